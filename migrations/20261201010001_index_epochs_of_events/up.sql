-- Readers order events by (epoch, xid, n). A migration of its own, because building an index of events blocks writers,
-- and adding a column blocks readers as well. During the upgrade, the previous version sorts the events of a tenant.
SET LOCAL lock_timeout = '10s';
DROP INDEX events_by_position;
-- Queries `read events`, `find newest event`, `check position` and `claim webhooks`, which read events by position.
CREATE INDEX events_by_position ON events (tenant_id, epoch, xid, n);
