-- Support for reading the event stream: visibility of events, the oldest retained events, and the incarnation
-- of the database.

-- An event is visible to viewers who could see the file immediately before or after the change. This is the
-- rule of `files`, applied to the columns of the event.
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

-- Identifies the incarnation of the database that positions belong to. After a restore, a position can refer
-- to another event. A restored database has another timeline, is in another cluster, or is another database
-- of the same cluster.
CREATE FUNCTION app.event_incarnation() RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (
        SELECT format('%s-%s-%s', c.system_identifier, left(pg_walfile_name(pg_current_wal_insert_lsn()), 8), d.oid)
        FROM pg_control_system() AS c, pg_catalog.pg_database AS d WHERE d.datname = current_database());

-- Returns the start of the oldest partition. Older events may have been dropped.
CREATE FUNCTION app.event_horizon() RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (
        SELECT min(to_timestamp(right(c.relname, 8) || '+00', 'YYYYMMDDTZH'))
        FROM pg_catalog.pg_inherits AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'public.events'::regclass AND c.relname ~ '_[0-9]{8}$');
