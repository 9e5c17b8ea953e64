-- States of tenants: active, suspended, deleting, deleted. The row of a deleted tenant remains as a
-- tombstone, so that a request with its name does not create the tenant again; only an operator can create a
-- new tenant with that name.
ALTER TABLE tenants
    -- 1 active, 2 suspended, 3 deleting, 4 deleted
    ADD COLUMN state smallint NOT NULL DEFAULT 1 CHECK (state BETWEEN 1 AND 4),
    ADD COLUMN state_time timestamptz,
    ADD COLUMN state_reason text NOT NULL DEFAULT '',
    -- the request by which an operator created the tenant
    ADD COLUMN create_request_id uuid,
    ADD COLUMN create_payload_sha256 bytea CHECK (octet_length(create_payload_sha256) = 32),
    -- the amount of data when the deletion started, and the amount erased so far
    ADD COLUMN deletion_file_count bigint NOT NULL DEFAULT 0,
    ADD COLUMN deletion_object_count bigint NOT NULL DEFAULT 0,
    ADD COLUMN deletion_bytes bigint NOT NULL DEFAULT 0,
    ADD COLUMN erased_row_count bigint NOT NULL DEFAULT 0,
    ADD COLUMN erased_object_count bigint NOT NULL DEFAULT 0,
    ADD COLUMN erased_bytes bigint NOT NULL DEFAULT 0,
    ADD COLUMN deletion_problem text NOT NULL DEFAULT '',
    DROP CONSTRAINT tenants_kind_issuer_external_id_key;
CREATE UNIQUE INDEX tenants_unique_name ON tenants (kind, issuer, external_id) WHERE state <> 4;
CREATE INDEX tenants_by_name ON tenants (kind, issuer, external_id);
CREATE UNIQUE INDEX tenants_by_create_request ON tenants (create_request_id) WHERE create_request_id IS NOT NULL;
CREATE INDEX tenants_to_delete ON tenants (id) WHERE state = 3;
GRANT UPDATE (state, state_time, state_reason, deletion_file_count, deletion_object_count, deletion_bytes)
    ON tenants TO strongroom_app;
GRANT UPDATE (state, state_time, erased_row_count, erased_object_count, erased_bytes, deletion_problem)
    ON tenants TO strongroom_system;

-- A tenant can be suspended and resumed; a deletion cannot be reverted.
CREATE FUNCTION app.guard_tenant_transition() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    IF NOT (CASE OLD.state
        WHEN 1 THEN NEW.state IN (2, 3)
        WHEN 2 THEN NEW.state IN (1, 3)
        WHEN 3 THEN NEW.state = 4
        ELSE false
    END) THEN
        RAISE EXCEPTION 'a tenant cannot change from state % to %', OLD.state, NEW.state
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = 'tenant_transition';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER tenant_transition BEFORE UPDATE OF state ON tenants
    FOR EACH ROW WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION app.guard_tenant_transition();

-- Rejects uploads into a tenant that is not active, even if a replica has cached an older state.
CREATE FUNCTION app.check_tenant_is_active() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    tenant_state smallint;
BEGIN
    IF app.tenant_id() IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM app.lock_file_creation(app.tenant_id(), false);
    -- A separate statement, so that it sees the changes of the previous lock holder.
    tenant_state := (SELECT state FROM public.tenants WHERE id = app.tenant_id());
    IF tenant_state IS DISTINCT FROM 1 THEN
        RAISE EXCEPTION 'the tenant is not active' USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME,
            CONSTRAINT = CASE tenant_state WHEN 2 THEN 'tenant_is_active' ELSE 'tenant_is_not_deleted' END;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER tenant_is_active BEFORE INSERT ON versions
    FOR EACH STATEMENT EXECUTE FUNCTION app.check_tenant_is_active();
CREATE TRIGGER tenant_is_active BEFORE INSERT ON uploads
    FOR EACH STATEMENT EXECUTE FUNCTION app.check_tenant_is_active();
-- Also rejects new holds and retentions once a deletion has started, because they could no longer be
-- released.
CREATE TRIGGER tenant_is_active BEFORE UPDATE OF hold_time, retain_until_time ON files
    FOR EACH STATEMENT EXECUTE FUNCTION app.check_tenant_is_active();

-- Erases up to `row_max` rows of one table of a tenant that is being deleted, and returns their number.
-- Covers all tables with a column `tenant_id`, including those of later migrations, referencing tables first.
-- Excluded are the row of the tenant, the audit log, which expires by retention, and the rows that reference
-- objects in a store, which are deleted with their objects.
CREATE FUNCTION app.erase_tenant_rows(tenant uuid, row_max integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    name text;
    erased bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM public.tenants WHERE id = tenant AND state = 3) THEN
        RAISE EXCEPTION 'tenant % is not being deleted', tenant;
    END IF;
    FOR name IN
        WITH RECURSIVE tenant_tables AS (
            SELECT c.oid, c.relname::text FROM pg_class AS c
            WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
              AND c.relname !~ '^audit_entries' AND c.relname NOT IN ('tenants', 'blobs', 'stray_objects')
              AND EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id')
        ), depths AS (
            SELECT oid, 0 AS depth FROM tenant_tables
            UNION
            SELECT k.confrelid, d.depth + 1 FROM depths AS d JOIN pg_constraint AS k ON k.conrelid = d.oid
            WHERE k.contype = 'f' AND k.confrelid <> d.oid AND d.depth < 20
        )
        SELECT t.relname FROM tenant_tables AS t JOIN depths USING (oid) GROUP BY t.relname ORDER BY max(depths.depth), t.relname
    LOOP
        EXECUTE format('DELETE FROM public.%1$I WHERE tenant_id = $1 AND ctid = ANY (ARRAY(
            SELECT ctid FROM public.%1$I WHERE tenant_id = $1 LIMIT $2))', name) USING tenant, row_max;
        GET DIAGNOSTICS erased = ROW_COUNT;
        IF erased > 0 THEN
            RETURN erased;
        END IF;
    END LOOP;
    RETURN 0;
END
$$;
REVOKE ALL ON FUNCTION app.erase_tenant_rows FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.erase_tenant_rows TO strongroom_system;
