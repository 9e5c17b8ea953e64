-- Recalculations of usage: a job compares the quota and the usage counters of a tenant with its files, and repairs them.

-- One row for each tenant that requested one: the newest request, and the result of the last completed recalculation.
CREATE TABLE usage_recalculations (
    tenant_id uuid PRIMARY KEY,
    state smallint NOT NULL
        CHECK (state BETWEEN {recalculation_state.queued} AND {recalculation_state.limit_exceeded}),
    -- Incremented when the job begins. A job with an older epoch repairs nothing, so no drift is repaired twice.
    epoch integer NOT NULL DEFAULT 0,
    request_time timestamptz NOT NULL,
    -- null before the first one is completed
    calculate_time timestamptz,
    -- The recorded values minus the actual ones, before the repair.
    drift_bytes bigint NOT NULL DEFAULT 0,
    drift_files bigint NOT NULL DEFAULT 0,
    drift_reserved_bytes bigint NOT NULL DEFAULT 0,
    drift_reserved_files bigint NOT NULL DEFAULT 0,
    drift_pending_deletion_bytes bigint NOT NULL DEFAULT 0,
    -- the number of usage counters that were wrong
    drift_counters bigint NOT NULL DEFAULT 0
);
CALL app.protect('usage_recalculations');
GRANT INSERT, UPDATE ON usage_recalculations TO strongroom_app;
