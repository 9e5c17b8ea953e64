-- Every upload inserts into these two indexes, so they have no more columns than the order of the work needs. Blobs to
-- replicate are read by provider, because the blobs of the replica provider have no copy and stay in the index.

SET LOCAL lock_timeout = '10s';

DROP INDEX blobs_to_scrub;
-- Queries `list blobs to scrub`, `find blob to scrub` and `measure blobs to scrub`.
CREATE INDEX blobs_to_scrub ON blobs (provider, (coalesce(last_verified_time, create_time)))
    WHERE sha256 IS NOT NULL AND delete_after IS NULL;
DROP INDEX blobs_to_replicate;
-- Queries `list blobs to replicate`, `find oldest blob to replicate` and `measure blobs to replicate`.
CREATE INDEX blobs_to_replicate ON blobs (provider, create_time)
    WHERE replica_key IS NULL AND sha256 IS NOT NULL AND delete_after IS NULL;
