DROP FUNCTION app.admission_data;
DROP FUNCTION app.commit_uploads;
DROP TYPE app.finished_upload;
