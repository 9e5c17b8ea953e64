-- Creates `count` partitions of a table that is partitioned by time, starting with the period that contains
-- `since`. Each gets the same row-level security as its parent. Existing partitions are left unchanged. Periods are
-- computed in UTC, whatever the time zone of the session.
--
-- Rows outside all periods are stored in the default partition. Those of a new partition's period move into it. A period
-- with more rows than `moved_rows_max` gets no partition, and its rows stay where they are until they expire: the move
-- locks the default partition, and commits would wait noticeably.
--
-- The lock timeout is short, because while this function waits for a long reader (such as a backup), all commits
-- would have to wait for this function.
CREATE OR REPLACE FUNCTION app.create_partitions(parent text, period interval, since timestamptz, count integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' SET timezone = 'UTC'
    AS $$
DECLARE
    moved_rows_max constant integer := 50000;
    step constant text := CASE WHEN period >= interval '1 month' THEN 'month' ELSE 'day' END;
    start_time timestamptz := date_trunc(step, since, 'UTC');
    end_time timestamptz;
    in_period text;
    visible constant text := (
        SELECT pg_get_expr(p.polqual, p.polrelid) FROM pg_catalog.pg_policy AS p
        WHERE p.polrelid = format('public.%I', parent)::regclass AND p.polname = 'visible');
    name text;
    default_name constant text := parent || '_default';
    stored bigint;
BEGIN
    FOR _ IN 1..count LOOP
        end_time := start_time + period;
        in_period := format('create_time >= %L AND create_time < %L', start_time, end_time);
        name := parent || to_char(start_time, '_YYYYMMDD');
        IF to_regclass('public.' || quote_ident(name)) IS NULL THEN
            BEGIN
                stored := 0;
                -- The first migrations create partitions before the default partition exists.
                IF to_regclass('public.' || quote_ident(default_name)) IS NOT NULL THEN
                    EXECUTE format('SELECT count(*) FROM (SELECT FROM public.%I WHERE %s LIMIT %s) AS stored_rows',
                        default_name, in_period, moved_rows_max + 1) INTO stored;
                END IF;
                IF stored = 0 THEN
                    EXECUTE format('CREATE TABLE public.%I PARTITION OF public.%I FOR VALUES FROM (%L) TO (%L)',
                        name, parent, start_time, end_time);
                    CALL app.protect(format('public.%I', name)::regclass, visible);
                ELSIF stored <= moved_rows_max THEN
                    -- The parent first, as in an INSERT.
                    EXECUTE format('LOCK TABLE ONLY public.%I IN ACCESS EXCLUSIVE MODE', parent);
                    EXECUTE format('LOCK TABLE public.%I IN ACCESS EXCLUSIVE MODE', default_name);
                    EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING ALL)', name, parent);
                    EXECUTE format('INSERT INTO public.%I SELECT * FROM public.%I WHERE %s',
                        name, default_name, in_period);
                    EXECUTE format('DELETE FROM public.%I WHERE %s', default_name, in_period);
                    CALL app.protect(format('public.%I', name)::regclass, visible);
                    EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
                        parent, name, start_time, end_time);
                ELSE
                    RAISE WARNING 'partition % was not created: the default partition contains more than % rows of its period',
                        name, moved_rows_max;
                END IF;
            EXCEPTION
                WHEN duplicate_table THEN NULL; -- created concurrently by another process
                WHEN check_violation THEN
                    RAISE WARNING 'partition % was not created: a row of its period was inserted meanwhile', name;
            END;
        END IF;
        start_time := end_time;
    END LOOP;
END
$$;
REVOKE ALL ON FUNCTION app.create_partitions FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.create_partitions TO strongroom_system;
