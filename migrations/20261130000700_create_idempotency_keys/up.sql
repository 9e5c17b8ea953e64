-- The responses that are stored under request ids, inserted in the transaction of each change. Partitioned by
-- time, so that retention drops partitions instead of deleting rows. A unique constraint cannot span
-- partitions, so a transaction takes an advisory lock on the request id before it inserts a response.
CREATE TABLE idempotency_keys (
    tenant_id uuid NOT NULL,
    request_id uuid NOT NULL,
    create_time timestamptz NOT NULL,
    -- a `Method` of src/db/idempotency_keys.rs
    method smallint NOT NULL,
    payload_sha256 bytea NOT NULL CHECK (octet_length(payload_sha256) = 32),
    response jsonb NOT NULL,
    PRIMARY KEY (tenant_id, request_id, create_time)
) PARTITION BY RANGE (create_time);
CALL app.protect('idempotency_keys');
GRANT INSERT ON idempotency_keys TO strongroom_app;
CREATE TABLE idempotency_keys_default PARTITION OF idempotency_keys DEFAULT;
CALL app.protect('idempotency_keys_default');
SELECT app.create_partitions('idempotency_keys', '1 day', now(), 3);
