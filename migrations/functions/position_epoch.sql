-- Returns the epoch of the positions that this transaction writes. Begins a new epoch if the incarnation of the database
-- is not that of the newest one: the transaction itself notices it, so that none writes under a former epoch.
--
-- Concurrent transactions that notice the new incarnation insert a row each, with the same epoch, and do not wait for
-- each other: a transaction that holds the lock of a file would otherwise wait for one that needs the lock.
--
-- The epoch is stored in a setting of the transaction, because this is the default of a column, and reading the
-- incarnation costs a read of `pg_control`.
CREATE OR REPLACE FUNCTION app.position_epoch() RETURNS integer
    LANGUAGE plpgsql
    AS $$
DECLARE
    newest_epoch integer := nullif(current_setting('app.position_epoch', true), '');
    newest_incarnation text;
    current_incarnation text;
BEGIN
    IF newest_epoch IS NOT NULL THEN
        RETURN newest_epoch;
    END IF;
    current_incarnation := app.event_incarnation();
    SELECT p.epoch, p.incarnation INTO newest_epoch, newest_incarnation
    FROM app.position_epochs AS p ORDER BY p.epoch DESC LIMIT 1;
    IF newest_incarnation IS DISTINCT FROM current_incarnation THEN
        newest_epoch := coalesce(newest_epoch + 1, 0);
        INSERT INTO app.position_epochs (epoch, incarnation, begin_xid, create_time)
        VALUES (newest_epoch, current_incarnation, pg_current_xact_id(), app.now());
    END IF;
    PERFORM set_config('app.position_epoch', newest_epoch::text, true);
    RETURN newest_epoch;
END
$$;
