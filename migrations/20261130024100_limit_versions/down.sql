ALTER TYPE app.finished_upload DROP ATTRIBUTE version_count_max;
