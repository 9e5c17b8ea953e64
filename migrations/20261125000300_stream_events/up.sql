-- What a watcher of files needs: only events of what it could see, where the log of events begins, and whether it is
-- still the log that a cursor came from.

-- Who sees an event: whoever could see the file just before the change or just behind it. The rule of `files`, on what
-- the event itself remembers.
DO $$
DECLARE
    name regclass;
BEGIN
    FOR name IN
        SELECT 'public.events'::regclass
        UNION ALL SELECT inhrelid::regclass FROM pg_catalog.pg_inherits WHERE inhparent = 'public.events'::regclass
    LOOP
        EXECUTE format($policy$
            ALTER POLICY visible ON %s USING (
                audience >= (SELECT app.audience_min())
                OR owner_id = (SELECT app.user_id())
                OR readers && (SELECT app.principals())::text[])
        $policy$, name);
    END LOOP;
END
$$;

-- The history that positions belong to. A restored copy has positions that were given out before to other changes: it has
-- another timeline, another cluster, or is another database of the same one.
CREATE FUNCTION app.event_incarnation() RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (
        SELECT format('%s-%s-%s', c.system_identifier, left(pg_walfile_name(pg_current_wal_insert_lsn()), 8), d.oid)
        FROM pg_control_system() AS c, pg_catalog.pg_database AS d WHERE d.datname = current_database());

-- What is older may have been dropped: the beginning of the first partition that is there.
CREATE FUNCTION app.event_horizon() RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (
        SELECT min(to_timestamp(right(c.relname, 8) || '+00', 'YYYYMMDDTZH'))
        FROM pg_catalog.pg_inherits AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'public.events'::regclass AND c.relname ~ '_[0-9]{8}$');
