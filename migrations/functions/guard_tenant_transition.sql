-- A tenant can be suspended and resumed; a deletion cannot be reverted. A provisional tenant, of which nothing is
-- stored, is deleted at once.
CREATE OR REPLACE FUNCTION app.guard_tenant_transition() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    IF NOT (CASE OLD.state
        WHEN {tenant_state.active} THEN NEW.state IN ({tenant_state.suspended}, {tenant_state.deleting})
            OR (NEW.state = {tenant_state.deleted} AND NEW.provisional_time IS NOT NULL)
        WHEN {tenant_state.suspended} THEN NEW.state IN ({tenant_state.active}, {tenant_state.deleting})
        WHEN {tenant_state.deleting} THEN NEW.state = {tenant_state.deleted}
        ELSE false
    END) THEN
        RAISE EXCEPTION 'a tenant cannot change from state % to %', OLD.state, NEW.state
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = 'tenant_transition';
    END IF;
    RETURN NEW;
END
$$;
