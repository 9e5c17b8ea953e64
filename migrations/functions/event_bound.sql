-- Returns the position below which this snapshot can read all events, because all transactions that write there have
-- ended. It consists of the newest epoch and the id of the oldest running transaction.
--
-- No transaction of an earlier epoch is running. If the newest epoch is of another incarnation than the database, none
-- of its transactions is running either. The id is then the greatest one that a position in text form can contain.
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
