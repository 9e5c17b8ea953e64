SET LOCAL lock_timeout = '10s';
ALTER TABLE audit_entries DROP COLUMN actor_issuer;
