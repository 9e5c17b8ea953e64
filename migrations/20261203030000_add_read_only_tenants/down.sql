SET LOCAL lock_timeout = '10s';

ALTER TABLE tenants DROP COLUMN is_read_only;
