-- The audit log, inserted in the transaction of each change. Partitioned by time, so that retention drops
-- partitions instead of deleting rows. The rows of a tenant are not chained when they are inserted, so that
-- requests need not wait for each other. A sealer can chain them later, in the order of (xid, n) and up to the
-- snapshot's xmin.
CREATE SEQUENCE audit_entry_numbers CACHE 32;
GRANT USAGE ON SEQUENCE audit_entry_numbers TO strongroom_app, strongroom_system;
CREATE TABLE audit_entries (
    tenant_id uuid NOT NULL,
    create_time timestamptz NOT NULL,
    n bigint NOT NULL DEFAULT nextval('audit_entry_numbers'),
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    -- user, service, operator, system
    actor_kind smallint NOT NULL CHECK (actor_kind BETWEEN {actor_kind.user} AND {actor_kind.system}),
    actor_id text COLLATE "C" NOT NULL,
    -- an `AuditAction` of src/db/audit_entries.rs
    action smallint NOT NULL,
    is_allowed boolean NOT NULL,
    file_id uuid,
    version integer,
    call_id text COLLATE "C" NOT NULL,
    address text COLLATE "C" NOT NULL,
    details jsonb NOT NULL,
    PRIMARY KEY (tenant_id, create_time, n)
) PARTITION BY RANGE (create_time);
-- Queries `find audit entry of upload` and `list unaudited versions`, which find the entries of a file.
CREATE INDEX audit_entries_by_file ON audit_entries (tenant_id, file_id, create_time);
CALL app.protect('audit_entries');
GRANT INSERT ON audit_entries TO strongroom_app, strongroom_system;
CREATE TABLE audit_entries_default PARTITION OF audit_entries DEFAULT;
CALL app.protect('audit_entries_default');
SELECT app.create_partitions('audit_entries', '1 month', now(), 2);
