-- Locks files for changes, in id order, until the transaction ends. Afterwards the position of this transaction's
-- events is later than the positions of all former events of these files; see
-- docs/decisions/0010-order-of-changes.md.
--
-- A transaction gets its id with its first lock. While it waits for the next one, a transaction with a later id can
-- change that file and commit. This can happen with a single file too: PostgreSQL assigns the id after the first wait,
-- but waits again if another transaction was faster. Therefore, if any transaction with a later id has ended, this
-- function starts a subtransaction, which gets an id now, and events get this id. Readers stop at the oldest running
-- transaction. It is not later than this one, so they cannot have passed the id.
--
-- The permissions of the caller apply: files that it cannot see are not locked.
CREATE OR REPLACE FUNCTION app.lock_files(tenant uuid, file_ids uuid[]) RETURNS void
    LANGUAGE plpgsql SET enable_seqscan = off
    AS $$
DECLARE
    own xid8;
    locked uuid;
    written xid;
BEGIN
    PERFORM FROM public.files AS f WHERE f.tenant_id = tenant AND f.id = ANY (file_ids) ORDER BY f.id FOR UPDATE;
    own := pg_current_xact_id_if_assigned();
    IF own IS NULL THEN
        -- Nothing was locked.
        RETURN;
    END IF;
    -- A new snapshot, which contains the former lock holders.
    IF pg_snapshot_xmax(pg_current_snapshot()) <= own THEN
        RETURN;
    END IF;
    locked := (SELECT f.id FROM public.files AS f WHERE f.tenant_id = tenant AND f.id = ANY (file_ids) LIMIT 1);
    IF locked IS NULL THEN
        RETURN;
    END IF;
    BEGIN
        -- The trigger `change_order` accepts this bound, until the id is known.
        PERFORM set_config('app.change_xid', pg_snapshot_xmax(pg_current_snapshot())::text, true);
        -- A subtransaction gets its id when it writes, and only a row that it wrote shows the lower 32 bits of the id.
        UPDATE public.files AS f SET revision = f.revision WHERE f.tenant_id = tenant AND f.id = locked
        RETURNING f.xmin INTO STRICT written;
        PERFORM set_config('app.change_xid', (
            own::text::bigint + ((written::text::bigint - own::text::bigint) & 4294967295))::text, true);
    EXCEPTION
        -- A block is a subtransaction if it handles an exception.
        WHEN no_data_found THEN RAISE;
    END;
END
$$;
REVOKE ALL ON FUNCTION app.lock_files FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.lock_files TO strongroom_app, strongroom_system;
