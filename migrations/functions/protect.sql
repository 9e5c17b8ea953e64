-- Enables row-level security on a table, also for its owner. The restrictive policy `tenant` limits
-- strongroom_app to rows of the transaction's tenant. `visible` is an additional condition on the rows of the
-- tenant that strongroom_app may see.
CREATE OR REPLACE PROCEDURE app.protect(relation regclass, visible text DEFAULT 'true')
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    is_own constant text := 'tenant_id = (SELECT app.tenant_id())';
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', relation);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', relation);
    EXECUTE format('CREATE POLICY tenant ON %s AS RESTRICTIVE TO strongroom_app USING (%s) WITH CHECK (%2$s)', relation, is_own);
    EXECUTE format('CREATE POLICY visible ON %s TO strongroom_app USING (%s) WITH CHECK (true)', relation, visible);
    EXECUTE format('CREATE POLICY system ON %s TO strongroom_system USING (true) WITH CHECK (true)', relation);
    EXECUTE format('CREATE POLICY backup ON %s FOR SELECT TO strongroom_backup USING (true)', relation);
    EXECUTE format('CREATE POLICY migrate ON %s TO strongroom_migrate USING (true) WITH CHECK (true)', relation);
    EXECUTE format('GRANT SELECT ON %s TO strongroom_app, strongroom_system, strongroom_backup', relation);
END
$$;
