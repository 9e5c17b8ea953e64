-- What a transaction knows of its caller, and how a table is bound to it. The settings are transaction-local and set in
-- the same round trip as BEGIN. `nullif`, because a reused connection answers '' instead of NULL. Texts come hex-encoded,
-- so that nothing a caller wrote is ever spliced into SQL.
CREATE SCHEMA app;
GRANT USAGE ON SCHEMA app TO strongroom_app, strongroom_system, strongroom_backup;

-- Bodies in the SQL standard's form: names in them are resolved here and now, not by the caller's search_path, so they need
-- no `SET`, which would keep the planner from inlining them into every policy.
CREATE FUNCTION app.tenant_id() RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN nullif(current_setting('app.tenant_id', true), '')::uuid;

CREATE FUNCTION app.user_id() RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN convert_from(decode(nullif(current_setting('app.user_id', true), ''), 'hex'), 'UTF8');

-- The lowest audience that the caller belongs to: 1 admins and the system, 2 managers, 3 everyone in the tenant.
CREATE FUNCTION app.audience_min() RETURNS smallint
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN nullif(current_setting('app.audience_min', true), '')::smallint;

-- The names under which files can be granted to the caller: itself and its groups.
CREATE FUNCTION app.principals() RETURNS text[]
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (
        SELECT coalesce(array_agg(convert_from(decode(part, 'hex'), 'UTF8')), '{}')
        FROM unnest(string_to_array(nullif(current_setting('app.principals', true), ''), ',')) AS part
    );

-- The time of this transaction, by the database's clock. A test clock overrides it.
CREATE FUNCTION app.now() RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN coalesce(nullif(current_setting('app.now', true), '')::timestamptz, transaction_timestamp());

-- Binds a table to the tenant of the transaction, for everyone, its owner included. The restrictive policy is the wall;
-- `visible` is what the service's role may see behind it.
CREATE PROCEDURE app.protect(relation regclass, visible text DEFAULT 'true')
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    own constant text := 'tenant_id = (SELECT app.tenant_id())';
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', relation);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', relation);
    EXECUTE format('CREATE POLICY tenant ON %s AS RESTRICTIVE TO strongroom_app USING (%s) WITH CHECK (%2$s)', relation, own);
    EXECUTE format('CREATE POLICY visible ON %s TO strongroom_app USING (%s) WITH CHECK (true)', relation, visible);
    EXECUTE format('CREATE POLICY system ON %s TO strongroom_system USING (true) WITH CHECK (true)', relation);
    EXECUTE format('CREATE POLICY backup ON %s FOR SELECT TO strongroom_backup USING (true)', relation);
    EXECUTE format('CREATE POLICY migrate ON %s TO strongroom_migrate USING (true) WITH CHECK (true)', relation);
    EXECUTE format('GRANT SELECT ON %s TO strongroom_app, strongroom_system, strongroom_backup', relation);
END
$$;

-- Creates the partitions of a table that is partitioned by time, from the period of `since` for `count` periods, each
-- protected as its parent is, by the same rule of who sees what. What exists is left alone. Rows outside every period land
-- in the default partition. Waits for no lock: whoever reads the table long (a backup) would make every commit queue
-- behind us.
CREATE FUNCTION app.create_partitions(parent text, period interval, since timestamptz, count integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms'
    AS $$
DECLARE
    step constant text := CASE WHEN period >= interval '1 month' THEN 'month' ELSE 'day' END;
    begins timestamptz := date_trunc(step, since, 'UTC');
    visible constant text := (
        SELECT pg_get_expr(p.polqual, p.polrelid) FROM pg_catalog.pg_policy AS p
        WHERE p.polrelid = format('public.%I', parent)::regclass AND p.polname = 'visible');
    name text;
BEGIN
    FOR _ IN 1..count LOOP
        name := parent || to_char(begins AT TIME ZONE 'UTC', '_YYYYMMDD');
        IF to_regclass('public.' || quote_ident(name)) IS NULL THEN
            BEGIN
                EXECUTE format('CREATE TABLE public.%I PARTITION OF public.%I FOR VALUES FROM (%L) TO (%L)',
                    name, parent, begins, begins + period);
                CALL app.protect(format('public.%I', name)::regclass, visible);
            EXCEPTION
                WHEN duplicate_table THEN NULL; -- another replica was faster
                WHEN check_violation THEN
                    RAISE WARNING 'rows of % are in the default partition already; they stay there', name;
            END;
        END IF;
        begins := begins + period;
    END LOOP;
END
$$;
-- Drops the partitions of a table that end before a time, and such rows of the default partition. Answers how many
-- partitions went.
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
