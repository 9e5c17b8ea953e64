-- Rejects a change of a file by a transaction whose id is lower than that of the last change: its events would come
-- before those of the last change. A transaction has such an id if it wrote something before it locked the file.
--
-- The system column `xmin` has only the lower 32 bits of an id, and a row keeps them until it is written again. An old
-- row can therefore look as if a transaction of the future had written it. Ids that were not assigned yet are accepted.
CREATE OR REPLACE FUNCTION app.guard_change_order() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    own constant bigint := pg_current_xact_id()::text::bigint;
    -- The id of the last change, if it is higher than `own`.
    later constant bigint := own + ((OLD.xmin::text::bigint - own) & 4294967295);
BEGIN
    -- Each statement of this function has a new snapshot, so the last change is committed in it.
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
