-- Stored objects: those that a version references, and those that only the service knows. Like the other
-- tables of a tenant, they have no foreign key to `tenants`, because every commit of a busy tenant would
-- share-lock its row. Row-level security already ensures the correct `tenant_id`.

-- Blobs: one row per object that versions reference. `delete_after` is set when no version references the
-- blob; the object is deleted after that time.
CREATE TABLE blobs (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    provider text COLLATE "C" NOT NULL,
    storage_key text COLLATE "C" NOT NULL,
    size_bytes bigint NOT NULL CHECK (size_bytes >= 0),
    -- SHA-256 and CRC-64/NVME, most significant byte first. Null until the bytes of a direct upload are verified.
    sha256 bytea CHECK (octet_length(sha256) = 32),
    crc64nvme bytea CHECK (octet_length(crc64nvme) = 8),
    -- standard, archive
    storage_class smallint NOT NULL DEFAULT {storage_class.standard}
        CHECK (storage_class BETWEEN {storage_class.standard} AND {storage_class.archive}),
    create_time timestamptz NOT NULL,
    delete_after timestamptz,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, provider, storage_key),
    CHECK ((sha256 IS NULL) = (crc64nvme IS NULL))
);
-- Queries `find owners of candidates`, `find owners of keys` and `find blob by key`, which look up blobs
-- regardless of the provider.
CREATE INDEX blobs_key ON blobs (tenant_id, storage_key);
-- Query `list due blobs`.
CREATE INDEX blobs_due ON blobs (delete_after) WHERE delete_after IS NOT NULL;
CALL app.protect('blobs');
GRANT INSERT, UPDATE ON blobs TO strongroom_app;
GRANT DELETE ON blobs TO strongroom_system;
-- Moving a blob to another provider or class changes only these columns.
GRANT UPDATE (provider, storage_key, storage_class) ON blobs TO strongroom_system;

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
-- Query `list due stray objects`.
CREATE INDEX stray_objects_due ON stray_objects (delete_after);
CALL app.protect('stray_objects');
GRANT INSERT, UPDATE, DELETE ON stray_objects TO strongroom_system;
