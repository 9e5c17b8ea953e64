-- The hours that a restore lost, and the objects of these hours that an operator keeps; see
-- `docs/runbooks/restore-and-sweep.md`.

-- Restore windows: the time from the last owner marker that this database knew to the adoption of the store.
-- Sweeps leave the objects of a window alone until an operator decides about them. Only strongroom_system has
-- access.
CREATE TABLE restore_windows (
    id uuid PRIMARY KEY,
    provider text COLLATE "C" NOT NULL,
    start_time timestamptz NOT NULL,
    -- the time of the adoption
    end_time timestamptz NOT NULL,
    -- null while undecided
    decide_time timestamptz,
    CHECK (start_time <= end_time)
);
ALTER TABLE restore_windows ENABLE ROW LEVEL SECURITY;
ALTER TABLE restore_windows FORCE ROW LEVEL SECURITY;
CREATE POLICY system ON restore_windows TO strongroom_system USING (true) WITH CHECK (true);
CREATE POLICY backup ON restore_windows FOR SELECT TO strongroom_backup USING (true);
CREATE POLICY migrate ON restore_windows TO strongroom_migrate USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE (decide_time) ON restore_windows TO strongroom_system;
GRANT SELECT ON restore_windows TO strongroom_backup;

-- Quarantined objects: objects without another row that an operator keeps. No sweep deletes them. The rows of a
-- deleted tenant are erased, and a sweep then deletes their objects.
CREATE TABLE quarantined_objects (
    tenant_id uuid NOT NULL,
    provider text COLLATE "C" NOT NULL,
    storage_key text COLLATE "C" NOT NULL,
    size_bytes bigint NOT NULL CHECK (size_bytes >= 0),
    -- the time of the object in its store
    modify_time timestamptz NOT NULL,
    reason text NOT NULL,
    quarantine_time timestamptz NOT NULL,
    -- The key precedes the provider, because the sweeper and fsck look up objects by key, regardless of the
    -- provider.
    PRIMARY KEY (tenant_id, storage_key, provider)
);
CALL app.protect('quarantined_objects');
GRANT INSERT, DELETE ON quarantined_objects TO strongroom_system;
