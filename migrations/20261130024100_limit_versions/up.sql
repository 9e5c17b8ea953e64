-- The limit of the number of versions of a file, which the commit checks under the lock of the file.

-- Null means no limit: replicas of the previous version do not send it.
ALTER TYPE app.finished_upload ADD ATTRIBUTE version_count_max integer;
