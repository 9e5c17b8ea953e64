-- One quota row a tenant. The CHECKs are the last wall: `used + reserved` never exceeds the limit, whatever the code does.
CREATE TABLE quotas (
    tenant_id uuid PRIMARY KEY REFERENCES tenants (id),
    limit_bytes bigint NOT NULL CHECK (limit_bytes >= 0),
    used_bytes bigint NOT NULL DEFAULT 0 CHECK (used_bytes >= 0),
    reserved_bytes bigint NOT NULL DEFAULT 0 CHECK (reserved_bytes >= 0),
    -- 0 means no limit
    file_count_max bigint NOT NULL CHECK (file_count_max >= 0),
    file_count bigint NOT NULL DEFAULT 0 CHECK (file_count >= 0),
    reserved_file_count bigint NOT NULL DEFAULT 0 CHECK (reserved_file_count >= 0),
    warning_percent smallint NOT NULL CHECK (warning_percent BETWEEN 1 AND 100),
    critical_percent smallint NOT NULL CHECK (critical_percent BETWEEN warning_percent AND 100),
    image_bytes_max bigint NOT NULL CHECK (image_bytes_max >= 0),
    video_bytes_max bigint NOT NULL CHECK (video_bytes_max >= 0),
    audio_bytes_max bigint NOT NULL CHECK (audio_bytes_max >= 0),
    document_bytes_max bigint NOT NULL CHECK (document_bytes_max >= 0),
    other_bytes_max bigint NOT NULL CHECK (other_bytes_max >= 0),
    ceiling_bytes bigint NOT NULL CHECK (ceiling_bytes >= limit_bytes),
    -- 0 means none
    ceiling_file_count bigint NOT NULL CHECK (
        ceiling_file_count = 0 OR (file_count_max > 0 AND file_count_max <= ceiling_file_count)),
    revision bigint NOT NULL DEFAULT 1,
    update_time timestamptz NOT NULL,
    CONSTRAINT quotas_bytes CHECK (used_bytes + reserved_bytes <= limit_bytes),
    CONSTRAINT quotas_files CHECK (file_count_max = 0 OR file_count + reserved_file_count <= file_count_max)
) WITH (fillfactor = 50);
CALL app.protect('quotas');
GRANT UPDATE ON quotas TO strongroom_app;
GRANT INSERT, UPDATE ON quotas TO strongroom_system;

-- What is stored per category and kind, counted in the same transaction as the files.
CREATE TABLE usage_counters (
    tenant_id uuid NOT NULL,
    category text COLLATE "C" NOT NULL,
    media_kind smallint NOT NULL CHECK (media_kind BETWEEN 1 AND 5),
    file_count bigint NOT NULL CHECK (file_count >= 0),
    total_bytes bigint NOT NULL CHECK (total_bytes >= 0),
    PRIMARY KEY (tenant_id, category, media_kind)
) WITH (fillfactor = 50);
CALL app.protect('usage_counters');
GRANT INSERT, UPDATE ON usage_counters TO strongroom_app;

-- Uploads that hold a reservation. `finish` is a compare-and-set on (id, lease epoch, open), so each reservation is
-- settled or released exactly once. What a crash leaves here says what to give up.
CREATE TABLE uploads (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    -- 1 open, 2 committed, 3 aborted
    state smallint NOT NULL CHECK (state BETWEEN 1 AND 3),
    lease_epoch integer NOT NULL DEFAULT 1,
    lease_expire_time timestamptz NOT NULL,
    reserved_bytes bigint NOT NULL CHECK (reserved_bytes >= 0),
    -- A further version of a file: it takes the place of no other file.
    is_version boolean NOT NULL DEFAULT false,
    blob_id uuid NOT NULL,
    provider text COLLATE "C" NOT NULL,
    storage_key text COLLATE "C" NOT NULL,
    multipart_id text,
    created_by text COLLATE "C" NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX uploads_due ON uploads (lease_expire_time);
CALL app.protect('uploads');
GRANT INSERT, UPDATE ON uploads TO strongroom_app;
GRANT DELETE ON uploads TO strongroom_system;

-- Objects that no blob refers to, yet or any more: a copy that is being made, and an original whose blob was moved away.
-- They are removed when their time has come; a crash leaves the row, and so nothing that nobody removes.
CREATE TABLE stray_objects (
    tenant_id uuid NOT NULL,
    provider text COLLATE "C" NOT NULL,
    storage_key text COLLATE "C" NOT NULL,
    -- There may be a multipart upload of this key that nobody will complete.
    may_be_unfinished boolean NOT NULL,
    delete_after timestamptz NOT NULL,
    -- From here on no blob may take it up.
    is_being_deleted boolean NOT NULL DEFAULT false,
    -- The key comes first: whoever found an object asks by the key alone.
    PRIMARY KEY (tenant_id, storage_key, provider)
);
CREATE INDEX stray_objects_due ON stray_objects (delete_after);
CALL app.protect('stray_objects');
GRANT INSERT, UPDATE, DELETE ON stray_objects TO strongroom_system;
-- A move points a blob to its copy, and changes nothing else of it.
GRANT UPDATE (provider, storage_key, storage_class) ON blobs TO strongroom_system;
