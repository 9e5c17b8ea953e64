-- Returns the transaction id in the positions of this transaction's events: its own id, or the id of the
-- subtransaction in which `app.lock_files` continued it.
CREATE OR REPLACE FUNCTION app.change_xid() RETURNS xid8
    LANGUAGE sql STABLE
    RETURN coalesce(nullif(current_setting('app.change_xid', true), '')::xid8, pg_current_xact_id());
