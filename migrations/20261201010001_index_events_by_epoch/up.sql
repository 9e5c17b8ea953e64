-- Readers order events by (epoch, xid, n). A migration of its own, because building an index of events blocks writers,
-- and adding a column blocks readers as well. `events_by_position` remains for the previous version; a later release
-- drops it.

-- Queries `read events`, `find newest event`, `check position` and `claim webhooks`, which read events by position.
CREATE INDEX events_by_epoch ON events (tenant_id, epoch, xid, n);
