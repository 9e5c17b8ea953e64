DROP TRIGGER change_order ON files;
DROP FUNCTION app.guard_change_order;
ALTER TABLE audit_entries ALTER COLUMN xid SET DEFAULT pg_current_xact_id();
ALTER TABLE events ALTER COLUMN xid SET DEFAULT pg_current_xact_id();
DROP FUNCTION app.change_xid;
ALTER TABLE webhook_deliveries DROP COLUMN revision;
ALTER TABLE events DROP COLUMN revision;
