DROP INDEX jobs_waiting;
ALTER TABLE jobs DROP COLUMN dependency_failures;
