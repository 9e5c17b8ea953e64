-- The type of the items of `app.commit_uploads`.

-- A finished upload. The fields are the columns of the same names, and those of `FinishedUploadRow` in
-- src/db/commit.rs, from which the function's argument is serialized.
CREATE TYPE app.finished_upload AS (
    file_id uuid,
    owner_id text,
    -- the creation time of an imported file at its source; null for other files
    file_create_time timestamptz,
    import_source text,
    import_sha256 bytea,
    import_legacy_id text,
    created_by text,
    name text,
    category text,
    title text,
    description text,
    metadata jsonb,
    visibility smallint,
    -- assigned by the commit if `is_version`: a new version of the existing file `file_id`, whose record is
    -- not changed
    version integer,
    is_version boolean,
    -- whether the uploader may change files that other users own
    may_write_all boolean,
    -- the expected etag of the file of a version; empty for no check
    if_etag text,
    change_description text,
    content_state smallint,
    scan_status smallint,
    mime_type text,
    declared_mime_type text,
    media_kind smallint,
    expire_time timestamptz,
    retain_until_time timestamptz,
    retention_days integer,
    tags text[],
    -- [{entity_type, entity_id, field}]
    attachments jsonb,
    -- principals that may read the file
    readers text[],
    blob_id uuid,
    provider text,
    storage_key text,
    size_bytes bigint,
    sha256 bytea,
    crc64nvme bytea,
    actor_kind smallint,
    actor_id text,
    audit_action smallint,
    audit_call_id text,
    audit_address text,
    audit_details jsonb,
    event_kind smallint,
    -- the lease of the upload's reservation, if it has one
    lease_id uuid,
    lease_epoch integer,
    -- the id that the response is stored under, if the caller sent one
    request_id uuid,
    method smallint,
    payload_sha256 bytea,
    -- the response without the values that the commit adds: the times of the file and the quota
    response jsonb
);
