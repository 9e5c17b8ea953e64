-- Drops the partitions of a table that end at or before `before`, and deletes older rows of the default
-- partition. Returns the number of dropped partitions.
CREATE OR REPLACE FUNCTION app.drop_partitions(parent text, period interval, before timestamptz) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms'
    AS $$
DECLARE
    name text;
    dropped integer := 0;
BEGIN
    FOR name IN
        SELECT c.relname FROM pg_catalog.pg_inherits AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = format('public.%I', parent)::regclass AND c.relname ~ '_[0-9]{8}$'
          AND to_timestamp(right(c.relname, 8) || '+00', 'YYYYMMDDTZH') + period <= before
    LOOP
        EXECUTE format('DROP TABLE public.%I', name);
        dropped := dropped + 1;
    END LOOP;
    EXECUTE format('DELETE FROM public.%I WHERE create_time < %L', parent || '_default', before);
    RETURN dropped;
END
$$;
REVOKE ALL ON FUNCTION app.drop_partitions FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.drop_partitions TO strongroom_system;
