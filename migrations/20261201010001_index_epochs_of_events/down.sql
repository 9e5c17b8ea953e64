DROP INDEX events_by_position;
-- Queries `read events`, `find newest event` and `claim webhooks` of the previous version.
CREATE INDEX events_by_position ON events (tenant_id, xid, n);
