-- Files outside the trash that will be deleted automatically, by tenant and by the earlier of `expire_time`
-- and `deletion_time`.
CREATE INDEX files_to_delete ON files (tenant_id, least(expire_time, deletion_time), id)
    WHERE delete_time IS NULL AND least(expire_time, deletion_time) IS NOT NULL;
