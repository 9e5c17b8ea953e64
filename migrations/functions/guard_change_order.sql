-- Rejects a change of a file by a transaction that got its id before the transaction of the former change did: its
-- events would have an earlier position. Such a transaction wrote something before it locked the file.
--
-- The system column `xmin` has only the lower 32 bits of an id, and a row keeps them until it is written again, so an
-- old row can look like one of the future. Ids that were not assigned yet are therefore accepted.
CREATE OR REPLACE FUNCTION app.guard_change_order() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    own constant bigint := pg_current_xact_id()::text::bigint;
    -- The id of the former change, if it was assigned after `own`.
    later constant bigint := own + ((OLD.xmin::text::bigint - own) & 4294967295);
BEGIN
    -- The snapshot is a new one, so it contains the transaction of the former change.
    IF later > app.change_xid()::text::bigint AND later < pg_snapshot_xmax(pg_current_snapshot())::text::bigint THEN
        RAISE EXCEPTION 'file % was changed by a transaction with a later id; lock files with app.lock_files', OLD.id
            USING ERRCODE = 'serialization_failure', TABLE = TG_TABLE_NAME, CONSTRAINT = 'change_order';
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END
$$;
