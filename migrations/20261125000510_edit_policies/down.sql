DROP TRIGGER category_change ON files;
DROP FUNCTION app.check_category_change();
DROP TRIGGER created_files ON files;
DROP FUNCTION app.check_created_files();
DROP FUNCTION app.lock_file_creation(uuid, boolean);
REVOKE UPDATE (policy, policy_revision) ON tenants FROM strongroom_app;
DROP POLICY edit ON tenants;
ALTER TABLE tenants DROP COLUMN policy_revision;
