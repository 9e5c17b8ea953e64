-- Rows that are inserted in the transaction of each change: the response under the request id, the audit
-- entry, and the event. The tables are partitioned by time, so that retention drops partitions instead of
-- deleting rows.

-- A unique constraint cannot span partitions, so a transaction takes an advisory lock on the request id
-- before it inserts a response.
CREATE TABLE idempotency_keys (
    tenant_id uuid NOT NULL,
    request_id uuid NOT NULL,
    create_time timestamptz NOT NULL,
    method smallint NOT NULL,
    payload_sha256 bytea NOT NULL CHECK (octet_length(payload_sha256) = 32),
    response jsonb NOT NULL,
    PRIMARY KEY (tenant_id, request_id, create_time)
) PARTITION BY RANGE (create_time);
CALL app.protect('idempotency_keys');
GRANT INSERT ON idempotency_keys TO strongroom_app;

-- The rows of a tenant are not chained when they are inserted, so that requests need not wait for each other.
-- A sealer can chain them later, in the order of (xid, n) and up to the snapshot's xmin.
CREATE SEQUENCE audit_entry_numbers CACHE 32;
GRANT USAGE ON SEQUENCE audit_entry_numbers TO strongroom_app, strongroom_system;
CREATE TABLE audit_entries (
    tenant_id uuid NOT NULL,
    create_time timestamptz NOT NULL,
    n bigint NOT NULL DEFAULT nextval('audit_entry_numbers'),
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    -- 1 user, 2 service, 3 operator, 4 system
    actor_kind smallint NOT NULL CHECK (actor_kind BETWEEN 1 AND 4),
    actor_id text COLLATE "C" NOT NULL,
    action smallint NOT NULL,
    is_allowed boolean NOT NULL,
    file_id uuid,
    version integer,
    call_id text COLLATE "C" NOT NULL,
    address text COLLATE "C" NOT NULL,
    details jsonb NOT NULL,
    PRIMARY KEY (tenant_id, create_time, n)
) PARTITION BY RANGE (create_time);
CREATE INDEX audit_entries_by_file ON audit_entries (tenant_id, file_id, create_time);
CALL app.protect('audit_entries');
GRANT INSERT ON audit_entries TO strongroom_app, strongroom_system;

-- The position of an event is (xid, n). Readers stop at the snapshot's xmin, so a cursor never skips an event
-- of a transaction that commits late.
CREATE SEQUENCE event_numbers CACHE 32;
GRANT USAGE ON SEQUENCE event_numbers TO strongroom_app;
CREATE TABLE events (
    tenant_id uuid NOT NULL,
    create_time timestamptz NOT NULL,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    n bigint NOT NULL DEFAULT nextval('event_numbers'),
    kind smallint NOT NULL,
    file_id uuid NOT NULL,
    version integer NOT NULL,
    actor_id text COLLATE "C" NOT NULL,
    -- The viewers who could see the file immediately before or after the change. They are stored here,
    -- because the file may be purged or hidden when the event is read. The name is not stored: readers who
    -- may see the file read it from there.
    owner_id text COLLATE "C" NOT NULL,
    audience smallint NOT NULL CHECK (audience BETWEEN 1 AND 3),
    readers text[] COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant_id, create_time, xid, n)
) PARTITION BY RANGE (create_time);
CREATE INDEX events_by_position ON events (tenant_id, xid, n);
CALL app.protect('events');
GRANT INSERT ON events TO strongroom_app;

CREATE TABLE idempotency_keys_default PARTITION OF idempotency_keys DEFAULT;
CREATE TABLE audit_entries_default PARTITION OF audit_entries DEFAULT;
CREATE TABLE events_default PARTITION OF events DEFAULT;
CALL app.protect('idempotency_keys_default');
CALL app.protect('audit_entries_default');
CALL app.protect('events_default');
SELECT app.create_partitions('idempotency_keys', '1 day', now(), 3);
SELECT app.create_partitions('audit_entries', '1 month', now(), 2);
-- Starts one month early, so that the first partition, before whose start events may have been dropped, is
-- older than any cursor.
SELECT app.create_partitions('events', '1 month', now() - interval '1 month', 3);
