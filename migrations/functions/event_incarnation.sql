-- Identifies the incarnation of the database that positions belong to. After a restore, a position can refer
-- to another event. A restored database has another timeline, is in another cluster, or is another database
-- of the same cluster.
CREATE OR REPLACE FUNCTION app.event_incarnation() RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    AS $$
BEGIN
    RETURN (
        SELECT format('%s-%s-%s', c.system_identifier, left(pg_walfile_name(pg_current_wal_insert_lsn()), 8), d.oid)
        FROM pg_control_system() AS c, pg_catalog.pg_database AS d WHERE d.datname = current_database());
END
$$;
