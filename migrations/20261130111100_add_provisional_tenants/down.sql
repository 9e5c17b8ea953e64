DROP INDEX tenants_provisional;
-- The previous version treats every row as a tenant.
DELETE FROM tenants WHERE provisional_time IS NOT NULL AND state = {tenant_state.deleted};
ALTER TABLE tenants DROP COLUMN may_have_objects, DROP COLUMN first_call_count, DROP COLUMN provisional_time;
