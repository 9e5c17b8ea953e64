-- Blobs are copied to the replica provider by turns of tenants, so that the import of one tenant does not delay the
-- copies of the others.

SET LOCAL lock_timeout = '10s';

DROP INDEX blobs_to_replicate;
-- Queries `list tenants to replicate`, `list blobs to replicate` and `count blobs to replicate`.
CREATE INDEX blobs_to_replicate ON blobs (provider, tenant_id, create_time)
    WHERE replica_key IS NULL AND sha256 IS NOT NULL AND delete_after IS NULL;
