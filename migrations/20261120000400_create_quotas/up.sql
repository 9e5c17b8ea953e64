-- Quotas, one row per tenant. The CHECKs guarantee that `used + reserved` never exceeds the limit, even if
-- the code has a bug.
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
    -- 0 means no limit
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

-- Usage per category and media kind, updated in the same transaction as the files.
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

-- Uploads that hold a reservation. Each end of an upload is a compare-and-set on (id, lease epoch, state
-- open), so a reservation is converted into usage or released exactly once. After a crash, the row identifies
-- the objects to delete.
CREATE TABLE uploads (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    -- 1 open, 2 committed, 3 abandoned
    state smallint NOT NULL CHECK (state BETWEEN 1 AND 3),
    lease_epoch integer NOT NULL DEFAULT 1,
    lease_expire_time timestamptz NOT NULL,
    reserved_bytes bigint NOT NULL CHECK (reserved_bytes >= 0),
    -- A new version of an existing file, which does not increase the number of files.
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

-- Stray objects: objects that no blob references. They are copies in progress, and originals whose blob was
-- moved. They are deleted after `delete_after`. After a crash the row remains, so the object is still
-- deleted.
CREATE TABLE stray_objects (
    tenant_id uuid NOT NULL,
    provider text COLLATE "C" NOT NULL,
    storage_key text COLLATE "C" NOT NULL,
    -- An incomplete multipart upload of this key may exist.
    may_be_unfinished boolean NOT NULL,
    delete_after timestamptz NOT NULL,
    -- The object is being deleted, so a blob must no longer adopt it.
    is_being_deleted boolean NOT NULL DEFAULT false,
    -- The key precedes the provider, because the sweeper and fsck look up objects by key, regardless of the
    -- provider.
    PRIMARY KEY (tenant_id, storage_key, provider)
);
CREATE INDEX stray_objects_due ON stray_objects (delete_after);
CALL app.protect('stray_objects');
GRANT INSERT, UPDATE, DELETE ON stray_objects TO strongroom_system;
-- Moving a blob to another provider or class changes only these columns.
GRANT UPDATE (provider, storage_key, storage_class) ON blobs TO strongroom_system;
