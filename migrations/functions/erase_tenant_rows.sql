-- Erases up to `row_max` rows of one table of a tenant that is being deleted, and returns their number.
-- Covers all tables with a column `tenant_id`, including those of later migrations, referencing tables first.
-- Excluded are the row of the tenant, the audit log, which expires by retention, and the rows that reference
-- objects in a store, which are deleted with their objects.
CREATE OR REPLACE FUNCTION app.erase_tenant_rows(tenant uuid, row_max integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    name text;
    erased bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM public.tenants WHERE id = tenant AND state = {tenant_state.deleting}) THEN
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
        SELECT t.relname FROM tenant_tables AS t JOIN depths USING (oid) GROUP BY t.relname
        -- Erasures allow the deletion of files in retention, so they are erased last.
        ORDER BY t.relname = 'erasures', max(depths.depth), t.relname
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
