-- Operators hasten the deletion of the purged files of one tenant.

-- Query `make scheduled blobs due`.
CREATE INDEX blobs_scheduled ON blobs (tenant_id, delete_after) WHERE delete_after IS NOT NULL;
