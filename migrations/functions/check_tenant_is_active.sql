-- Rejects uploads into a tenant that is not active or is read-only, even if a process has cached an older state.
CREATE OR REPLACE FUNCTION app.check_tenant_is_active() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    tenant_state smallint;
    tenant_is_read_only boolean;
BEGIN
    IF app.tenant_id() IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM app.lock_file_creation(app.tenant_id(), false);
    -- A separate statement, so that it sees the changes of the previous lock holder.
    SELECT state, is_read_only INTO tenant_state, tenant_is_read_only FROM public.tenants WHERE id = app.tenant_id();
    IF tenant_state IS DISTINCT FROM {tenant_state.active} THEN
        RAISE EXCEPTION 'the tenant is not active' USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME,
            CONSTRAINT = CASE tenant_state
                WHEN {tenant_state.suspended} THEN 'tenant_is_active' ELSE 'tenant_is_not_deleted' END;
    END IF;
    IF tenant_is_read_only THEN
        RAISE EXCEPTION 'the tenant is read-only' USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME,
            CONSTRAINT = 'tenant_is_writable';
    END IF;
    RETURN NULL;
END
$$;
