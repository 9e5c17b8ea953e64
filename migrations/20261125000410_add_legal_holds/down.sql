DROP TRIGGER protected_files ON files;
DROP FUNCTION app.guard_protected_file();
DROP INDEX files_held;
DROP INDEX files_retained;
DROP INDEX files_to_purge;
CREATE INDEX files_to_purge ON files (purge_time) WHERE purge_time IS NOT NULL;
ALTER TABLE files DROP COLUMN hold_reason, DROP COLUMN hold_by, DROP COLUMN hold_time;
