SET LOCAL lock_timeout = '10s';
ALTER TABLE webhook_deliveries DROP COLUMN position_epoch;
ALTER TABLE webhooks DROP COLUMN position_epoch;
ALTER TABLE audit_entries DROP COLUMN epoch;
ALTER TABLE events DROP COLUMN epoch;
DROP TABLE app.position_epochs;
