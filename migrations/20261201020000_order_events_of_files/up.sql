-- The order of a file's events is the order of its changes, and events have the revision of their file; see
-- `docs/decisions/0010-order-of-changes.md`.

SET LOCAL lock_timeout = '10s';

-- The revision of the file after the change. 0 in events about webhooks and in events of earlier versions.
ALTER TABLE events ADD COLUMN revision bigint NOT NULL DEFAULT 0;
ALTER TABLE webhook_deliveries ADD COLUMN revision bigint NOT NULL DEFAULT 0;

{function.change_xid}
ALTER TABLE events ALTER COLUMN xid SET DEFAULT app.change_xid();
ALTER TABLE audit_entries ALTER COLUMN xid SET DEFAULT app.change_xid();

{function.guard_change_order}
-- The condition is cheap, and almost always false.
CREATE TRIGGER change_order BEFORE UPDATE OR DELETE ON files
    FOR EACH ROW WHEN (age(OLD.xmin) < 0) EXECUTE FUNCTION app.guard_change_order();
