-- The number of consecutive attempts of a job that failed because of a dependency, such as an unreachable store.
-- They do not count as attempts, and determine only the pause before the next one.
ALTER TABLE jobs ADD COLUMN dependency_failures integer NOT NULL DEFAULT 0 CHECK (dependency_failures >= 0);
-- Query `read queue depth`, which counts the jobs that wait for a dependency.
CREATE INDEX jobs_waiting ON jobs (run_time) WHERE state = {job_state.ready} AND dependency_failures > 0;
