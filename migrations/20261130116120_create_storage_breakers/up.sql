-- The circuit breakers of all processes that run background work, for `strongroom storage status`. Each process
-- reports its own. Only strongroom_system has access.
CREATE TABLE storage_breakers (
    process_id uuid NOT NULL,
    provider text COLLATE "C" NOT NULL,
    state smallint NOT NULL CHECK (state BETWEEN {breaker_state.closed} AND {breaker_state.open}),
    failure_count integer NOT NULL CHECK (failure_count >= 0),
    last_error text NOT NULL,
    report_time timestamptz NOT NULL,
    PRIMARY KEY (process_id, provider)
);
ALTER TABLE storage_breakers ENABLE ROW LEVEL SECURITY;
ALTER TABLE storage_breakers FORCE ROW LEVEL SECURITY;
CREATE POLICY system ON storage_breakers TO strongroom_system USING (true) WITH CHECK (true);
CREATE POLICY backup ON storage_breakers FOR SELECT TO strongroom_backup USING (true);
CREATE POLICY migrate ON storage_breakers TO strongroom_migrate USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON storage_breakers TO strongroom_system;
GRANT SELECT ON storage_breakers TO strongroom_backup;
