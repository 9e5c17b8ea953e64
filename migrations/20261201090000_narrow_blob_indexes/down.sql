SET LOCAL lock_timeout = '10s';
DROP INDEX blobs_to_replicate;
-- Queries `list blobs to replicate` and `measure blobs to replicate`.
CREATE INDEX blobs_to_replicate ON blobs (create_time, tenant_id, id)
    WHERE replica_key IS NULL AND sha256 IS NOT NULL AND delete_after IS NULL;
DROP INDEX blobs_to_scrub;
-- Queries `list blobs to scrub`, `find blob to scrub` and `measure blobs to scrub`.
CREATE INDEX blobs_to_scrub ON blobs (provider, (coalesce(last_verified_time, create_time)), tenant_id, id)
    WHERE sha256 IS NOT NULL AND delete_after IS NULL;
