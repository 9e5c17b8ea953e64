-- Tenants whose callers can read but change nothing. An operator sets it with `UpdateTenant`.

SET LOCAL lock_timeout = '10s';

ALTER TABLE tenants ADD COLUMN is_read_only boolean NOT NULL DEFAULT false;
GRANT UPDATE (is_read_only) ON tenants TO strongroom_app;
