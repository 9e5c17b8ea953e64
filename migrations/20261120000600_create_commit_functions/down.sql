DROP FUNCTION app.upload_terms;
DROP FUNCTION app.commit_uploads;
DROP TYPE app.finished_upload;
