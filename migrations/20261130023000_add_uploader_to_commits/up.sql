-- The uploader's permissions, so that a commit evaluates the access rule of the file again. They are null if a
-- process of an earlier release commits; its items are checked as before.
ALTER TYPE app.finished_upload
    -- the lowest audience that the uploader belongs to; see `app.audience_min`
    ADD ATTRIBUTE audience_min smallint,
    -- the principals through which files are granted to the uploader; see `app.principals`
    ADD ATTRIBUTE principals text[];
