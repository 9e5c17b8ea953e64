DROP FUNCTION app.count_versions;
DROP FUNCTION app.move_current;
DROP FUNCTION app.number_versions;
DROP FUNCTION app.judge_versions;
DROP FUNCTION app.taken_types;
ALTER TABLE versions DROP COLUMN restored_from, DROP COLUMN change_description;
ALTER TABLE files DROP COLUMN last_version;
