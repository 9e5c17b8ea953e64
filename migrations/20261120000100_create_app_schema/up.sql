-- The context of a transaction (tenant, user, audience, principals, time) and the row-level security that
-- uses it. The settings are local to the transaction and are set in the same round trip as BEGIN. On a reused
-- connection an unset setting is '' instead of NULL, hence `nullif`. Strings are hex-encoded, so that no
-- string from a caller is spliced into SQL.
CREATE SCHEMA app;
GRANT USAGE ON SCHEMA app TO strongroom_app, strongroom_system, strongroom_backup;

-- The functions have SQL-standard bodies: names are resolved at creation, not through the caller's
-- search_path. They therefore need no `SET search_path`, which would prevent the planner from inlining them
-- into the policies.
CREATE FUNCTION app.tenant_id() RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN nullif(current_setting('app.tenant_id', true), '')::uuid;

CREATE FUNCTION app.user_id() RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN convert_from(decode(nullif(current_setting('app.user_id', true), ''), 'hex'), 'UTF8');

-- The lowest audience that the caller belongs to: 1 admins and the system, 2 managers, 3 all members of the
-- tenant.
CREATE FUNCTION app.audience_min() RETURNS smallint
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN nullif(current_setting('app.audience_min', true), '')::smallint;

-- The principals through which files can be granted to the caller: itself and its groups.
CREATE FUNCTION app.principals() RETURNS text[]
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (
        SELECT coalesce(array_agg(convert_from(decode(part, 'hex'), 'UTF8')), '{}')
        FROM unnest(string_to_array(nullif(current_setting('app.principals', true), ''), ',')) AS part
    );

-- The start time of the transaction by the database's clock, unless a test clock overrides it.
CREATE FUNCTION app.now() RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN coalesce(nullif(current_setting('app.now', true), '')::timestamptz, transaction_timestamp());

-- Enables row-level security on a table, also for its owner. The restrictive policy `tenant` limits
-- strongroom_app to rows of the transaction's tenant. `visible` is an additional condition on the rows of the
-- tenant that strongroom_app may see.
CREATE PROCEDURE app.protect(relation regclass, visible text DEFAULT 'true')
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

-- Creates `count` partitions of a table that is partitioned by time, starting with the period that contains
-- `since`. Each gets the same row-level security as its parent. Existing partitions are left unchanged. Rows
-- outside all periods are stored in the default partition. The lock timeout is short, because while this
-- function waits for a long reader (such as a backup), all commits would have to wait for this function.
CREATE FUNCTION app.create_partitions(parent text, period interval, since timestamptz, count integer) RETURNS void
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

-- Drops the partitions of a table that end at or before `before`, and deletes older rows of the default
-- partition. Returns the number of dropped partitions.
CREATE FUNCTION app.drop_partitions(parent text, period interval, before timestamptz) RETURNS integer
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

REVOKE ALL ON FUNCTION app.create_partitions, app.drop_partitions FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.create_partitions, app.drop_partitions TO strongroom_system;
