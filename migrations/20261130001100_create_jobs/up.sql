-- The job queue. Jobs are enqueued in the transaction that causes them and run after it. The table contains
-- live jobs only; finished ones are moved to `finished_jobs`. As for files, there is no foreign key to
-- `tenants`.
CREATE TABLE jobs (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    -- The serialized job, including its kind.
    payload jsonb NOT NULL,
    kind text COLLATE "C" NOT NULL GENERATED ALWAYS AS (payload ->> 'kind') STORED,
    -- ready, running, parked
    state smallint NOT NULL CHECK (state BETWEEN {job_state.ready} AND {job_state.parked}),
    -- At most one job with this key is ready or running.
    dedup_key text COLLATE "C" CHECK (char_length(dedup_key) BETWEEN 1 AND 255),
    -- A job with the same key was requested while this one was running. It may have read older data, so it
    -- runs again.
    is_rerun_requested boolean NOT NULL DEFAULT false,
    -- The number of attempts that were started.
    attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    -- The earliest time of the next attempt.
    run_time timestamptz NOT NULL,
    -- Incremented by every claim. Workers with an older epoch are fenced.
    lease_epoch integer NOT NULL DEFAULT 0,
    lease_expire_time timestamptz,
    last_error text NOT NULL DEFAULT '',
    enqueue_time timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CHECK ((state = {job_state.running}) = (lease_expire_time IS NOT NULL))
);
-- Query `enqueue job`: the conflict with a job of the same key.
CREATE UNIQUE INDEX jobs_by_key ON jobs (tenant_id, dedup_key)
    WHERE dedup_key IS NOT NULL AND state IN ({job_state.ready}, {job_state.running});
-- Queries `list tenants with ready jobs` and `claim jobs`, which skip from tenant to tenant and take the job of
-- each that has been due for the longest time.
CREATE INDEX jobs_ready ON jobs (tenant_id, run_time, id) WHERE state = {job_state.ready};
-- Queries `list tenants with ready jobs` and `claim jobs`, which count the running jobs of a tenant.
CREATE INDEX jobs_running ON jobs (tenant_id) WHERE state = {job_state.running};
-- Query `recover jobs`.
CREATE INDEX jobs_by_lease ON jobs (lease_expire_time) WHERE state = {job_state.running};
-- Queries `list jobs` and `read queue depth`.
CREATE INDEX jobs_by_time ON jobs (state, run_time);
CALL app.protect('jobs');
GRANT INSERT ON jobs TO strongroom_app;
GRANT UPDATE (is_rerun_requested) ON jobs TO strongroom_app;
GRANT INSERT, UPDATE, DELETE ON jobs TO strongroom_system;

-- Finished jobs, for inspection. Dropped by retention.
CREATE TABLE finished_jobs (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    -- The time when the job finished.
    create_time timestamptz NOT NULL,
    kind text COLLATE "C" NOT NULL,
    payload jsonb NOT NULL,
    -- done, discarded
    outcome smallint NOT NULL CHECK (outcome BETWEEN {job_outcome.done} AND {job_outcome.discarded}),
    attempts integer NOT NULL,
    last_error text NOT NULL,
    enqueue_time timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id, create_time)
) PARTITION BY RANGE (create_time);
CALL app.protect('finished_jobs');
GRANT INSERT ON finished_jobs TO strongroom_system;
CREATE TABLE finished_jobs_default PARTITION OF finished_jobs DEFAULT;
CALL app.protect('finished_jobs_default');
SELECT app.create_partitions('finished_jobs', '1 day', now(), 3);

-- The schedule of background ticks. A replica claims a tick by advancing `next_time`. Only strongroom_system
-- has access.
CREATE TABLE schedules (
    name text COLLATE "C" PRIMARY KEY,
    next_time timestamptz NOT NULL,
    last_time timestamptz NOT NULL
);
ALTER TABLE schedules ENABLE ROW LEVEL SECURITY;
ALTER TABLE schedules FORCE ROW LEVEL SECURITY;
CREATE POLICY system ON schedules TO strongroom_system USING (true) WITH CHECK (true);
CREATE POLICY backup ON schedules FOR SELECT TO strongroom_backup USING (true);
CREATE POLICY migrate ON schedules TO strongroom_migrate USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON schedules TO strongroom_system;
GRANT SELECT ON schedules TO strongroom_backup;
