-- A second provider can hold a verified copy of each blob, from which a damaged blob is repaired.

SET LOCAL lock_timeout = '10s';

-- The copy of the blob at another provider, and when its bytes were last found intact. Null without a copy. The object
-- is deleted after the row of the blob, through `stray_objects`.
ALTER TABLE blobs ADD COLUMN replica_provider text COLLATE "C";
ALTER TABLE blobs ADD COLUMN replica_key text COLLATE "C";
ALTER TABLE blobs ADD COLUMN replica_verified_time timestamptz;
-- NOT VALID: all columns are null in existing rows, which need not be read.
ALTER TABLE blobs ADD CONSTRAINT blobs_replica CHECK (
    (replica_provider IS NULL) = (replica_key IS NULL)
    AND (replica_key IS NULL) = (replica_verified_time IS NULL)) NOT VALID;
-- Queries `list blobs to replicate` and `measure blobs to replicate`.
CREATE INDEX blobs_to_replicate ON blobs (create_time, tenant_id, id)
    WHERE replica_key IS NULL AND sha256 IS NOT NULL AND delete_after IS NULL;
-- Queries `list replicas to scrub`, `find replica to scrub` and `measure replicas to scrub`.
CREATE INDEX blobs_replicas_to_scrub ON blobs (replica_provider, replica_verified_time, tenant_id, id)
    WHERE replica_provider IS NOT NULL AND delete_after IS NULL;
-- Queries `find owners of candidates` and `find owners of keys`, which look up copies by key.
CREATE INDEX blobs_replica_key ON blobs (tenant_id, replica_key) WHERE replica_key IS NOT NULL;
-- Query `list blobs to repair`.
CREATE INDEX versions_lost ON versions (tenant_id, blob_id) WHERE state_reason IS NOT NULL;
GRANT UPDATE (replica_provider, replica_key, replica_verified_time) ON blobs TO strongroom_system;

-- The blobs without a copy at the configured replica provider, as of the last measurement. Only strongroom_system has
-- access.
CREATE TABLE replications (
    provider text COLLATE "C" PRIMARY KEY,
    pending_blob_count bigint NOT NULL CHECK (pending_blob_count >= 0),
    pending_bytes bigint NOT NULL CHECK (pending_bytes >= 0),
    -- When the oldest of these blobs was created. Null if there are none.
    oldest_pending_time timestamptz,
    measure_time timestamptz NOT NULL
);
ALTER TABLE replications ENABLE ROW LEVEL SECURITY;
ALTER TABLE replications FORCE ROW LEVEL SECURITY;
CREATE POLICY system ON replications TO strongroom_system USING (true) WITH CHECK (true);
CREATE POLICY backup ON replications FOR SELECT TO strongroom_backup USING (true);
CREATE POLICY migrate ON replications TO strongroom_migrate USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON replications TO strongroom_system;
GRANT SELECT ON replications TO strongroom_backup;
