SET LOCAL lock_timeout = '10s';
DROP INDEX blobs_to_replicate;
-- Queries `list blobs to replicate`, `find oldest blob to replicate` and `measure blobs to replicate`.
CREATE INDEX blobs_to_replicate ON blobs (provider, create_time)
    WHERE replica_key IS NULL AND sha256 IS NOT NULL AND delete_after IS NULL;
