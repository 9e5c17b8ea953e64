-- Drops the partitions of a table that end at or before `before`, and deletes older rows of the default
-- partition. Records up to which time rows were dropped. Returns the number of dropped partitions. Periods are
-- computed in UTC, whatever the time zone of the session.
CREATE OR REPLACE FUNCTION app.drop_partitions(parent text, period interval, before timestamptz) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' SET timezone = 'UTC'
    AS $$
DECLARE
    name text;
    end_time timestamptz;
    deleted bigint;
    dropped integer := 0;
    last_dropped timestamptz := NULL;
BEGIN
    FOR name, end_time IN
        SELECT * FROM (
            SELECT c.relname, to_timestamp(right(c.relname, 8) || '+00', 'YYYYMMDDTZH') + period AS end_time
            FROM pg_catalog.pg_inherits AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
            WHERE i.inhparent = format('public.%I', parent)::regclass AND c.relname ~ '_[0-9]{8}$') AS partitions
        WHERE partitions.end_time <= before
    LOOP
        EXECUTE format('DROP TABLE public.%I', name);
        dropped := dropped + 1;
        last_dropped := greatest(last_dropped, end_time);
    END LOOP;
    EXECUTE format('DELETE FROM public.%I WHERE create_time < %L', parent || '_default', before);
    GET DIAGNOSTICS deleted = ROW_COUNT;
    IF deleted > 0 THEN
        last_dropped := before;
    END IF;
    IF last_dropped IS NOT NULL THEN
        INSERT INTO app.retention_horizons AS h (table_name, horizon) VALUES (parent, last_dropped)
        ON CONFLICT (table_name) DO UPDATE SET horizon = greatest(h.horizon, excluded.horizon);
    END IF;
    RETURN dropped;
END
$$;
REVOKE ALL ON FUNCTION app.drop_partitions FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.drop_partitions TO strongroom_system;
