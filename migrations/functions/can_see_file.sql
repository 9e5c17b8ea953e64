-- Returns whether the uploader may see a file: the access rule of the policy on `files` and of
-- src/app/access.rs, for the uploader of an item instead of the viewer of the transaction. The transaction of a
-- commit serves several uploaders. `audience_min` is null for items of a process of an earlier release, which
-- are not checked.
CREATE OR REPLACE FUNCTION app.can_see_file(file public.files, upload app.finished_upload) RETURNS boolean
    LANGUAGE plpgsql STABLE
    AS $$
BEGIN
    RETURN upload.audience_min IS NULL
        OR file.audience >= upload.audience_min
        OR file.owner_id = upload.created_by
        OR EXISTS (
            SELECT FROM public.file_readers AS reader
            WHERE reader.tenant_id = file.tenant_id AND reader.file_id = file.id
              AND reader.principal = ANY (upload.principals) AND reader.view_end_time > app.now());
END
$$;
REVOKE ALL ON FUNCTION app.can_see_file FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.can_see_file TO strongroom_app;
