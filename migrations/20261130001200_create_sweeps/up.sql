-- The sweeper's state: what it has found in the stores, and when it ran.

-- Sweep candidates: objects and multipart uploads without an owner that the sweeper has found in a store. A
-- later sweep deletes those that still have no owner after the grace period, and drops candidates that have
-- one.
CREATE TABLE sweep_candidates (
    tenant_id uuid NOT NULL,
    provider text COLLATE "C" NOT NULL,
    storage_key text COLLATE "C" NOT NULL,
    -- '' for an object
    multipart_id text COLLATE "C" NOT NULL,
    size_bytes bigint NOT NULL CHECK (size_bytes >= 0),
    first_seen_time timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, provider, storage_key, multipart_id)
);
-- Queries `list due sweep candidates` and `count sweep candidates`.
CREATE INDEX sweep_candidates_due ON sweep_candidates (provider, first_seen_time);
CALL app.protect('sweep_candidates');
GRANT INSERT, DELETE ON sweep_candidates TO strongroom_system;

-- The times of the last sweep and the last full walk of each store. Only strongroom_system has access.
CREATE TABLE sweeps (
    provider text COLLATE "C" PRIMARY KEY,
    sweep_time timestamptz NOT NULL,
    full_walk_time timestamptz
);
ALTER TABLE sweeps ENABLE ROW LEVEL SECURITY;
ALTER TABLE sweeps FORCE ROW LEVEL SECURITY;
CREATE POLICY system ON sweeps TO strongroom_system USING (true) WITH CHECK (true);
CREATE POLICY backup ON sweeps FOR SELECT TO strongroom_backup USING (true);
CREATE POLICY migrate ON sweeps TO strongroom_migrate USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON sweeps TO strongroom_system;
GRANT SELECT ON sweeps TO strongroom_backup;
