-- Webhooks. Each has its own position in `events`. There is a delivery row only for events that could not be
-- delivered.
CREATE TABLE webhooks (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    url text COLLATE "C" NOT NULL,
    description text NOT NULL,
    -- empty means all
    kinds smallint[] NOT NULL,
    -- Sealed, bound to tenant and webhook. The former secret is also used for signing until it expires.
    sealed_secret text COLLATE "C" NOT NULL,
    former_sealed_secret text COLLATE "C",
    former_secret_expire_time timestamptz,
    -- active, paused by an admin, disabled by the service
    state smallint NOT NULL CHECK (state BETWEEN {webhook_state.active} AND {webhook_state.disabled}),
    state_reason text NOT NULL DEFAULT '',
    -- All events up to this position were delivered or became dead letters.
    position_xid xid8 NOT NULL,
    position_n bigint NOT NULL,
    position_time timestamptz NOT NULL,
    incarnation text COLLATE "C" NOT NULL,
    -- failed attempts to deliver the next event
    failed_attempts integer NOT NULL DEFAULT 0 CHECK (failed_attempts >= 0),
    last_error text NOT NULL DEFAULT '',
    -- the first failure since the last successful delivery
    first_failure_time timestamptz,
    next_attempt_time timestamptz NOT NULL,
    -- One replica at a time delivers, under a lease. A replica that lost the lease can no longer change the
    -- row.
    lease_epoch integer NOT NULL DEFAULT 0,
    lease_expire_time timestamptz,
    created_by text COLLATE "C" NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    revision bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (tenant_id, id),
    CHECK ((former_sealed_secret IS NULL) = (former_secret_expire_time IS NULL))
);
-- Query `claim webhooks`.
CREATE INDEX webhooks_due ON webhooks (next_attempt_time) WHERE state = {webhook_state.active};
CALL app.protect('webhooks');
GRANT INSERT, UPDATE, DELETE ON webhooks TO strongroom_app;
GRANT UPDATE (lease_epoch, lease_expire_time) ON webhooks TO strongroom_system;

-- Failed deliveries: dead letters, and the results of their redelivery.
CREATE TABLE webhook_deliveries (
    tenant_id uuid NOT NULL,
    webhook_id uuid NOT NULL,
    position_xid xid8 NOT NULL,
    position_n bigint NOT NULL,
    kind smallint NOT NULL,
    file_id uuid NOT NULL,
    version integer NOT NULL,
    actor_id text COLLATE "C" NOT NULL,
    event_time timestamptz NOT NULL,
    -- dead (a dead letter), waiting (its redelivery was requested), delivered (redelivered)
    state smallint NOT NULL CHECK (state BETWEEN {delivery_state.dead} AND {delivery_state.delivered}),
    attempts integer NOT NULL CHECK (attempts > 0),
    last_error text NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, webhook_id, position_xid, position_n),
    FOREIGN KEY (tenant_id, webhook_id) REFERENCES webhooks (tenant_id, id) ON DELETE CASCADE
);
-- Queries `list pending deliveries` and `claim webhooks`.
CREATE INDEX webhook_deliveries_pending ON webhook_deliveries (tenant_id, webhook_id)
    WHERE state = {delivery_state.waiting};
-- Query `delete expired deliveries`.
CREATE INDEX webhook_deliveries_by_time ON webhook_deliveries (create_time);
CALL app.protect('webhook_deliveries');
GRANT INSERT, UPDATE, DELETE ON webhook_deliveries TO strongroom_app;
GRANT DELETE ON webhook_deliveries TO strongroom_system;
