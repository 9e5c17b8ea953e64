-- Removes a provisional tenant without first calls in progress. Returns one of
--   removed: it is removed
--   used: something is stored for it, so it must exist
--   busy: it has first calls in progress, or it exists
--   pending: it must wait for the end of uploads
-- Reads all tables with a column `tenant_id`, including those of later migrations, except logs, which are partitioned:
-- what they record is in other tables too, and the audit entries of refused calls remain until their retention ends.
-- If objects may be left in a store, the row becomes that of a deleted tenant, and stays provisional: a sweep deletes
-- objects only of tenants that it knows.
CREATE OR REPLACE FUNCTION app.remove_provisional_tenant(tenant uuid) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    provisional public.tenants;
    name text;
    has_rows boolean;
BEGIN
    -- Waits for first calls that begin or end.
    SELECT * INTO provisional FROM public.tenants WHERE id = tenant FOR UPDATE;
    IF provisional.provisional_time IS NULL OR provisional.first_call_count > 0 THEN
        RETURN 'busy';
    END IF;
    IF provisional.state = {tenant_state.deleted} THEN
        DELETE FROM public.tenants WHERE id = tenant;
        RETURN 'removed';
    END IF;
    IF provisional.policy_revision > 1
        OR EXISTS (SELECT FROM public.quotas WHERE tenant_id = tenant AND revision > 1) THEN
        RETURN 'used';
    END IF;
    FOR name IN
        SELECT c.relname::text FROM pg_class AS c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND NOT c.relispartition
          AND c.relname NOT IN ('tenants', 'quotas', 'uploads', 'upload_parts', 'stray_objects', 'sweep_candidates')
          AND EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id')
        ORDER BY c.relname
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM public.%I WHERE tenant_id = $1)', name)
            INTO has_rows USING tenant;
        IF has_rows THEN
            RETURN 'used';
        END IF;
    END LOOP;
    IF EXISTS (SELECT FROM public.uploads WHERE tenant_id = tenant)
        OR EXISTS (SELECT FROM public.stray_objects WHERE tenant_id = tenant) THEN
        RETURN 'pending';
    END IF;
    DELETE FROM public.quotas WHERE tenant_id = tenant;
    IF provisional.may_have_objects THEN
        UPDATE public.tenants SET state = {tenant_state.deleted}, state_time = app.now() WHERE id = tenant;
    ELSE
        DELETE FROM public.tenants WHERE id = tenant;
    END IF;
    RETURN 'removed';
END
$$;
REVOKE ALL ON FUNCTION app.remove_provisional_tenant FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.remove_provisional_tenant TO strongroom_system;
