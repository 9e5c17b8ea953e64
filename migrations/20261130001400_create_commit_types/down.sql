-- The signatures of these functions name the type.
DROP FUNCTION IF EXISTS app.check_new_versions(app.finished_upload[], text[]);
DROP FUNCTION IF EXISTS app.assign_version_numbers(app.finished_upload[]);
DROP FUNCTION IF EXISTS app.set_current_versions(app.finished_upload[]);
DROP FUNCTION IF EXISTS app.add_version_usage(app.finished_upload[], jsonb);
DROP TYPE app.finished_upload;
