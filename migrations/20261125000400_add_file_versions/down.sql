DROP FUNCTION app.add_version_usage;
DROP FUNCTION app.set_current_versions;
DROP FUNCTION app.assign_version_numbers;
DROP FUNCTION app.check_new_versions;
DROP FUNCTION app.allowed_types;
ALTER TABLE versions DROP COLUMN restored_from, DROP COLUMN change_description;
ALTER TABLE files DROP COLUMN last_version;
