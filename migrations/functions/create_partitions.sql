-- Creates `count` partitions of a table that is partitioned by time, starting with the period that contains
-- `since`. Each gets the same row-level security as its parent. Existing partitions are left unchanged. Rows
-- outside all periods are stored in the default partition. The lock timeout is short, because while this
-- function waits for a long reader (such as a backup), all commits would have to wait for this function.
CREATE OR REPLACE FUNCTION app.create_partitions(parent text, period interval, since timestamptz, count integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms'
    AS $$
DECLARE
    step constant text := CASE WHEN period >= interval '1 month' THEN 'month' ELSE 'day' END;
    start_time timestamptz := date_trunc(step, since, 'UTC');
    visible constant text := (
        SELECT pg_get_expr(p.polqual, p.polrelid) FROM pg_catalog.pg_policy AS p
        WHERE p.polrelid = format('public.%I', parent)::regclass AND p.polname = 'visible');
    name text;
BEGIN
    FOR _ IN 1..count LOOP
        name := parent || to_char(start_time AT TIME ZONE 'UTC', '_YYYYMMDD');
        IF to_regclass('public.' || quote_ident(name)) IS NULL THEN
            BEGIN
                EXECUTE format('CREATE TABLE public.%I PARTITION OF public.%I FOR VALUES FROM (%L) TO (%L)',
                    name, parent, start_time, start_time + period);
                CALL app.protect(format('public.%I', name)::regclass, visible);
            EXCEPTION
                WHEN duplicate_table THEN NULL; -- created concurrently by another replica
                WHEN check_violation THEN
                    RAISE WARNING 'partition % was not created: the default partition already contains rows of its period', name;
            END;
        END IF;
        start_time := start_time + period;
    END LOOP;
END
$$;
REVOKE ALL ON FUNCTION app.create_partitions FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.create_partitions TO strongroom_system;
