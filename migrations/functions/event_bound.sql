-- Returns the bound below which all events are committed and readable in this snapshot: the epoch, and the oldest
-- transaction that is still running. All transactions of former epochs have ended. So have all transactions of the newest
-- epoch, if the database has another incarnation than it; its bound is then the greatest transaction id that a position in
-- text form can contain.
--
-- STABLE, so that it uses the snapshot of the statement that calls it.
CREATE OR REPLACE FUNCTION app.event_bound(OUT epoch integer, OUT xid xid8)
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
    newest_incarnation text;
BEGIN
    SELECT p.epoch, p.incarnation INTO epoch, newest_incarnation
    FROM app.position_epochs AS p ORDER BY p.epoch DESC LIMIT 1;
    xid := CASE
        WHEN newest_incarnation = app.event_incarnation() THEN pg_snapshot_xmin(pg_current_snapshot())
        ELSE '281474976710655'::xid8
    END;
END
$$;
