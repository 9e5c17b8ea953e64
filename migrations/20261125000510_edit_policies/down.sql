DROP TRIGGER category_moves ON files;
DROP FUNCTION app.check_category();
DROP TRIGGER births ON files;
DROP FUNCTION app.check_births();
DROP FUNCTION app.lock_births(uuid, boolean);
REVOKE UPDATE (policy, policy_revision) ON tenants FROM strongroom_app;
DROP POLICY edit ON tenants;
ALTER TABLE tenants DROP COLUMN policy_revision;
