-- Returns the start of the oldest partition. Older events may have been dropped.
CREATE OR REPLACE FUNCTION app.event_horizon() RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (
        SELECT min(to_timestamp(right(c.relname, 8) || '+00', 'YYYYMMDDTZH'))
        FROM pg_catalog.pg_inherits AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'public.events'::regclass AND c.relname ~ '_[0-9]{8}$');
