-- Uploads that are not finished, and their parts.

-- Uploads that hold a reservation. Each end of an upload is a compare-and-set on (id, lease epoch, state
-- open), so a reservation is converted into usage or released exactly once. After a crash, the row identifies
-- the objects to delete.
--
-- A resumable upload is created before its bytes are sent, and can be resumed after a failure. The bytes of a
-- direct upload are sent by the client directly to the store. A single-part direct upload is sent to a staging
-- key, because the presigned URL allows overwriting the object until it expires, and is copied from there. The
-- row owns both keys.
CREATE TABLE uploads (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    -- open, committed, abandoned
    state smallint NOT NULL CHECK (state BETWEEN {upload_state.open} AND {upload_state.abandoned}),
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
    -- The checked specification of the file; null for uploads of a single stream.
    spec jsonb,
    part_size_bytes bigint CHECK (part_size_bytes > 0),
    -- The media type that was detected in the first bytes. Null before the first part, or if no type was
    -- detected.
    sniffed_mime_type text COLLATE "C",
    is_direct boolean NOT NULL DEFAULT false,
    staging_key text COLLATE "C",
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT uploads_resumable CHECK ((spec IS NULL) = (part_size_bytes IS NULL)),
    CONSTRAINT uploads_staging CHECK (staging_key IS NULL OR (is_direct AND multipart_id IS NULL)),
    CONSTRAINT uploads_direct CHECK (NOT is_direct OR spec IS NOT NULL)
);
-- Queries `list expired uploads` and `delete committed uploads`.
CREATE INDEX uploads_due ON uploads (lease_expire_time);
-- Query `list uploads`: users list their own uploads,
CREATE INDEX uploads_by_creator ON uploads (tenant_id, created_by, id)
    WHERE state = {upload_state.open} AND spec IS NOT NULL;
-- admins those of the whole tenant.
CREATE INDEX uploads_by_tenant ON uploads (tenant_id, id) WHERE state = {upload_state.open} AND spec IS NOT NULL;
-- Queries `find owners of candidates` and `find owners of keys`, which look up uploads by staging key.
CREATE INDEX uploads_staging_key ON uploads (tenant_id, staging_key) WHERE staging_key IS NOT NULL;
CALL app.protect('uploads');
GRANT INSERT, UPDATE ON uploads TO strongroom_app;
GRANT DELETE ON uploads TO strongroom_system;
CREATE TRIGGER tenant_is_active BEFORE INSERT ON uploads
    FOR EACH STATEMENT EXECUTE FUNCTION app.check_tenant_is_active();

-- The stored parts of uploads, with the data that another replica needs to continue after a part without
-- reading its bytes. Only parts before the first gap in the numbers count; parts after it are written again.
CREATE TABLE upload_parts (
    tenant_id uuid NOT NULL,
    upload_id uuid NOT NULL,
    number integer NOT NULL CHECK (number BETWEEN 1 AND 10000),
    size_bytes bigint NOT NULL CHECK (size_bytes > 0),
    -- the etag that the store returned for the part
    etag text COLLATE "C" NOT NULL,
    -- CRC-64/NVME, most significant byte first; bytes that are sent again are compared with it
    crc64nvme bytea NOT NULL CHECK (octet_length(crc64nvme) = 8),
    -- the state of the SHA-256 after the last byte of this part
    sha256_state bytea NOT NULL,
    PRIMARY KEY (tenant_id, upload_id, number),
    FOREIGN KEY (tenant_id, upload_id) REFERENCES uploads (tenant_id, id) ON DELETE CASCADE
);
CALL app.protect('upload_parts');
GRANT INSERT, UPDATE, DELETE ON upload_parts TO strongroom_app;
