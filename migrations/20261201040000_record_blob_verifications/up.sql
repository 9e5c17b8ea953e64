-- Background work reads every blob once in a period and verifies its bytes.

SET LOCAL lock_timeout = '10s';

-- When the bytes were last read and found intact. Null for a blob that was not read since its commit, whose time
-- counts then, because the upload hashed the bytes. Written once in a period, so that the index changes rarely.
ALTER TABLE blobs ADD COLUMN last_verified_time timestamptz;
-- Queries `list blobs to scrub`, `find blob to scrub` and `measure blobs to scrub`.
CREATE INDEX blobs_to_scrub ON blobs (provider, (coalesce(last_verified_time, create_time)), tenant_id, id)
    WHERE sha256 IS NOT NULL AND delete_after IS NULL;
GRANT UPDATE (last_verified_time) ON blobs TO strongroom_system;

-- Claims of blobs by processes of background work, one for each kind of work on a blob. A claim that expires can be
-- taken by another process. One whose work failed remains until the pause before the next attempt has passed.
CREATE TABLE blob_claims (
    tenant_id uuid NOT NULL,
    blob_id uuid NOT NULL,
    -- scrub, scrub_replica, replicate, repair
    work text COLLATE "C" NOT NULL,
    expire_time timestamptz NOT NULL,
    failure_count integer NOT NULL DEFAULT 0 CHECK (failure_count >= 0),
    PRIMARY KEY (tenant_id, blob_id, work),
    FOREIGN KEY (tenant_id, blob_id) REFERENCES blobs (tenant_id, id) ON DELETE CASCADE
);
CALL app.protect('blob_claims');
GRANT INSERT, UPDATE, DELETE ON blob_claims TO strongroom_system;

-- The pass over the blobs of each provider. Only strongroom_system has access.
CREATE TABLE scrubs (
    provider text COLLATE "C" PRIMARY KEY,
    -- The pass reads the blobs that were last verified before this time.
    pass_start_time timestamptz NOT NULL,
    -- The bytes that the pass must still read, as of the last measurement and without those that were claimed since.
    left_bytes bigint NOT NULL DEFAULT 0 CHECK (left_bytes >= 0),
    -- Null before the first measurement of the pass.
    measure_time timestamptz,
    -- The time of the verification that is longest ago, as of the last measurement. Null without blobs.
    oldest_verified_time timestamptz,
    -- The limit of the rate, for all processes together: the next bytes may be read from this time on.
    ready_time timestamptz NOT NULL,
    -- The last pass that was complete.
    full_pass_start_time timestamptz,
    full_pass_end_time timestamptz
);
ALTER TABLE scrubs ENABLE ROW LEVEL SECURITY;
ALTER TABLE scrubs FORCE ROW LEVEL SECURITY;
CREATE POLICY system ON scrubs TO strongroom_system USING (true) WITH CHECK (true);
CREATE POLICY backup ON scrubs FOR SELECT TO strongroom_backup USING (true);
CREATE POLICY migrate ON scrubs TO strongroom_migrate USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON scrubs TO strongroom_system;
GRANT SELECT ON scrubs TO strongroom_backup;
