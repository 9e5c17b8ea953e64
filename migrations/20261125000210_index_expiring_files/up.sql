-- Files that delete themselves, by tenant and by the time that comes first. What is in the trash is on its way already.
CREATE INDEX files_to_delete ON files (tenant_id, least(expire_time, deletion_time), id)
    WHERE delete_time IS NULL AND least(expire_time, deletion_time) IS NOT NULL;
