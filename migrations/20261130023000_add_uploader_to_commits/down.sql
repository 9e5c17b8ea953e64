DROP FUNCTION IF EXISTS app.can_see_file(public.files, app.finished_upload);
ALTER TYPE app.finished_upload DROP ATTRIBUTE principals, DROP ATTRIBUTE audience_min;
