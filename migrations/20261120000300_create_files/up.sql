-- Blobs, files, versions and dependent tables. They have no foreign key to `tenants`, because every commit of
-- a busy tenant would share-lock its row. Row-level security already ensures the correct `tenant_id`.

-- Stored objects, one row each. `delete_after` is set when no version references the blob; the object is
-- deleted after that time.
CREATE TABLE blobs (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    provider text COLLATE "C" NOT NULL,
    storage_key text COLLATE "C" NOT NULL,
    size_bytes bigint NOT NULL CHECK (size_bytes >= 0),
    -- SHA-256 and CRC-64/NVME, most significant byte first. Null until the bytes of a direct upload are verified.
    sha256 bytea CHECK (octet_length(sha256) = 32),
    crc64nvme bytea CHECK (octet_length(crc64nvme) = 8),
    -- 1 standard, 2 archive
    storage_class smallint NOT NULL DEFAULT 1 CHECK (storage_class BETWEEN 1 AND 2),
    create_time timestamptz NOT NULL,
    delete_after timestamptz,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, provider, storage_key),
    CHECK ((sha256 IS NULL) = (crc64nvme IS NULL))
);
-- Used by the sweeper and by fsck, which look up blobs by key, regardless of the provider.
CREATE INDEX blobs_key ON blobs (tenant_id, storage_key);
CREATE INDEX blobs_due ON blobs (delete_after) WHERE delete_after IS NOT NULL;
CALL app.protect('blobs');
GRANT INSERT, UPDATE ON blobs TO strongroom_app;
GRANT DELETE ON blobs TO strongroom_system;

-- Principals that may read a file in addition to its owner and its audience. Rows repeat the sort keys of the
-- file, so that a list of the files that were granted to a principal is one ordered index scan.
CREATE TABLE file_readers (
    tenant_id uuid NOT NULL,
    principal text COLLATE "C" NOT NULL,
    file_id uuid NOT NULL,
    create_time timestamptz NOT NULL,
    name text COLLATE "C" NOT NULL,
    size_bytes bigint NOT NULL,
    is_deleted boolean NOT NULL DEFAULT false,
    PRIMARY KEY (tenant_id, file_id, principal)
);
CREATE INDEX file_readers_by_time ON file_readers (tenant_id, principal, is_deleted, create_time, file_id);
CREATE INDEX file_readers_by_name ON file_readers (tenant_id, principal, is_deleted, name, file_id);
CREATE INDEX file_readers_by_size ON file_readers (tenant_id, principal, is_deleted, size_bytes, file_id);
CALL app.protect('file_readers');
GRANT INSERT, UPDATE, DELETE ON file_readers TO strongroom_app;

-- Files, with the columns of the current version that lists and access checks need. States are small integers
-- with a CHECK, because the operators of PostgreSQL enums are not leakproof, so indexes on them are not used
-- under row-level security.
CREATE TABLE files (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    owner_id text COLLATE "C" NOT NULL,
    created_by text COLLATE "C" NOT NULL,
    updated_by text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    original_name text COLLATE "C" NOT NULL,
    category text COLLATE "C" NOT NULL,
    title text NOT NULL,
    description text NOT NULL,
    metadata jsonb NOT NULL,
    -- 1 owner, 2 managers, 3 organization, 4 public
    visibility smallint NOT NULL CHECK (visibility BETWEEN 1 AND 4),
    -- The visibility, with public mapped to organization. A role sees at most three values, each in one
    -- ordered index scan.
    audience smallint NOT NULL GENERATED ALWAYS AS (least(visibility, 3::smallint)) STORED,
    version integer NOT NULL CHECK (version > 0),
    -- 1 processing, 2 available, 3 quarantined, 4 unscannable, 5 error
    content_state smallint NOT NULL CHECK (content_state BETWEEN 1 AND 5),
    -- 1 not scanned, 2 pending, 3 clean, 4 infected, 5 unscannable
    scan_status smallint NOT NULL CHECK (scan_status BETWEEN 1 AND 5),
    mime_type text COLLATE "C" NOT NULL,
    declared_mime_type text COLLATE "C" NOT NULL,
    -- 1 image, 2 video, 3 audio, 4 document, 5 other
    media_kind smallint NOT NULL CHECK (media_kind BETWEEN 1 AND 5),
    size_bytes bigint NOT NULL CHECK (size_bytes >= 0),
    sha256 bytea CHECK (octet_length(sha256) = 32),
    revision bigint NOT NULL DEFAULT 1,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    delete_time timestamptz,
    purge_time timestamptz,
    archive_time timestamptz,
    expire_time timestamptz,
    deletion_time timestamptz,
    retain_until_time timestamptz,
    PRIMARY KEY (tenant_id, id),
    CHECK ((delete_time IS NULL) = (purge_time IS NULL))
);
-- Lists merge a few ordered index scans: one per audience, and one for the files that the caller owns. The
-- trash has separate indexes.
CREATE INDEX files_by_time ON files (tenant_id, audience, create_time, id) WHERE delete_time IS NULL;
CREATE INDEX files_by_name ON files (tenant_id, audience, name, id) WHERE delete_time IS NULL;
CREATE INDEX files_by_size ON files (tenant_id, audience, size_bytes, id) WHERE delete_time IS NULL;
CREATE INDEX files_by_owner_and_time ON files (tenant_id, owner_id, audience, create_time, id) WHERE delete_time IS NULL;
CREATE INDEX files_by_owner_and_name ON files (tenant_id, owner_id, audience, name, id) WHERE delete_time IS NULL;
CREATE INDEX files_by_owner_and_size ON files (tenant_id, owner_id, audience, size_bytes, id) WHERE delete_time IS NULL;
CREATE INDEX trash_by_time ON files (tenant_id, audience, create_time, id) WHERE delete_time IS NOT NULL;
CREATE INDEX trash_by_name ON files (tenant_id, audience, name, id) WHERE delete_time IS NOT NULL;
CREATE INDEX trash_by_size ON files (tenant_id, audience, size_bytes, id) WHERE delete_time IS NOT NULL;
CREATE INDEX trash_by_owner_and_time ON files (tenant_id, owner_id, audience, create_time, id) WHERE delete_time IS NOT NULL;
CREATE INDEX trash_by_owner_and_name ON files (tenant_id, owner_id, audience, name, id) WHERE delete_time IS NOT NULL;
CREATE INDEX trash_by_owner_and_size ON files (tenant_id, owner_id, audience, size_bytes, id) WHERE delete_time IS NOT NULL;
CREATE INDEX files_to_purge ON files (purge_time) WHERE purge_time IS NOT NULL;
-- The same access rule as in src/app/access.rs.
CALL app.protect('files', $$
    audience >= (SELECT app.audience_min())
    OR owner_id = (SELECT app.user_id())
    OR EXISTS (
        SELECT FROM public.file_readers AS reader
        WHERE reader.tenant_id = files.tenant_id AND reader.file_id = files.id
          AND reader.principal = ANY ((SELECT app.principals())::text[])
    )
$$);
GRANT INSERT, UPDATE, DELETE ON files TO strongroom_app;
ALTER TABLE file_readers ADD FOREIGN KEY (tenant_id, file_id) REFERENCES files (tenant_id, id);

-- Versions of files. The content of a version never changes; its state may.
CREATE TABLE versions (
    tenant_id uuid NOT NULL,
    file_id uuid NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    blob_id uuid NOT NULL,
    content_state smallint NOT NULL CHECK (content_state BETWEEN 1 AND 5),
    scan_status smallint NOT NULL CHECK (scan_status BETWEEN 1 AND 5),
    mime_type text COLLATE "C" NOT NULL,
    declared_mime_type text COLLATE "C" NOT NULL,
    media_kind smallint NOT NULL CHECK (media_kind BETWEEN 1 AND 5),
    size_bytes bigint NOT NULL CHECK (size_bytes >= 0),
    sha256 bytea CHECK (octet_length(sha256) = 32),
    created_by text COLLATE "C" NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, file_id, version),
    FOREIGN KEY (tenant_id, file_id) REFERENCES files (tenant_id, id),
    FOREIGN KEY (tenant_id, blob_id) REFERENCES blobs (tenant_id, id)
);
CREATE INDEX versions_by_blob ON versions (tenant_id, blob_id);
CALL app.protect('versions');
GRANT INSERT, UPDATE, DELETE ON versions TO strongroom_app;

CREATE TABLE file_tags (
    tenant_id uuid NOT NULL,
    file_id uuid NOT NULL,
    tag text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant_id, file_id, tag),
    FOREIGN KEY (tenant_id, file_id) REFERENCES files (tenant_id, id)
);
CREATE INDEX file_tags_by_tag ON file_tags (tenant_id, tag, file_id);
CALL app.protect('file_tags');
GRANT INSERT, DELETE ON file_tags TO strongroom_app;

-- External entities that use a file.
CREATE TABLE attachments (
    tenant_id uuid NOT NULL,
    file_id uuid NOT NULL,
    entity_type text COLLATE "C" NOT NULL,
    entity_id text COLLATE "C" NOT NULL,
    field text COLLATE "C" NOT NULL,
    created_by text COLLATE "C" NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, file_id, entity_type, entity_id, field),
    FOREIGN KEY (tenant_id, file_id) REFERENCES files (tenant_id, id)
);
CREATE INDEX attachments_by_entity ON attachments (tenant_id, entity_type, entity_id, field, file_id);
CALL app.protect('attachments');
GRANT INSERT, DELETE ON attachments TO strongroom_app;

-- Tombstones of purged files. They are deleted after `expire_time`.
CREATE TABLE tombstones (
    tenant_id uuid NOT NULL,
    file_id uuid NOT NULL,
    name text NOT NULL,
    size_bytes bigint NOT NULL,
    sha256 bytea,
    purged_by text COLLATE "C" NOT NULL,
    purge_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, file_id)
);
CREATE INDEX tombstones_due ON tombstones (expire_time);
CALL app.protect('tombstones');
GRANT INSERT ON tombstones TO strongroom_app;
GRANT DELETE ON tombstones TO strongroom_system;
