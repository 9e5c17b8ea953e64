-- What retention has dropped from the tables that are partitioned by time: rows before `horizon` may be missing, later
-- rows are complete. Written by `app.drop_partitions` in the transaction that drops rows. It holds no data of tenants.
CREATE TABLE app.retention_horizons (
    table_name text COLLATE "C" PRIMARY KEY,
    horizon timestamptz NOT NULL
);
ALTER TABLE app.retention_horizons ENABLE ROW LEVEL SECURITY;
ALTER TABLE app.retention_horizons FORCE ROW LEVEL SECURITY;
CREATE POLICY readers ON app.retention_horizons FOR SELECT TO strongroom_app, strongroom_system, strongroom_backup USING (true);
CREATE POLICY migrate ON app.retention_horizons TO strongroom_migrate USING (true) WITH CHECK (true);
GRANT SELECT ON app.retention_horizons TO strongroom_app, strongroom_system, strongroom_backup;

-- Until this migration, the start of the oldest partition of events was the horizon.
INSERT INTO app.retention_horizons (table_name, horizon)
SELECT 'events', min(to_timestamp(right(c.relname, 8) || '+00', 'YYYYMMDDTZH'))
FROM pg_catalog.pg_inherits AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'public.events'::regclass AND c.relname ~ '_[0-9]{8}$'
HAVING count(*) > 0;
