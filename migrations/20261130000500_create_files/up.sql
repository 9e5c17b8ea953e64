-- Files, their versions, and the rows that depend on a file.

{function.guard_content_transition}
{function.guard_file_transition}
{function.guard_protected_file}
{function.check_created_files}
{function.check_category_change}
{function.check_tenant_is_active}

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
    -- owner, managers, organization, public
    visibility smallint NOT NULL CHECK (visibility BETWEEN {visibility.owner} AND {visibility.public}),
    -- The visibility, with public mapped to organization. A role sees at most three values, each in one
    -- ordered index scan.
    audience smallint NOT NULL
        GENERATED ALWAYS AS (least(visibility, {visibility.organization}::smallint)) STORED,
    version integer NOT NULL CHECK (version > 0),
    -- processing, available, quarantined, unscannable, error
    content_state smallint NOT NULL
        CHECK (content_state BETWEEN {content_state.processing} AND {content_state.error}),
    -- not scanned, pending, clean, infected, unscannable
    scan_status smallint NOT NULL
        CHECK (scan_status BETWEEN {scan_status.not_scanned} AND {scan_status.unscannable}),
    mime_type text COLLATE "C" NOT NULL,
    declared_mime_type text COLLATE "C" NOT NULL,
    -- image, video, audio, document, other
    media_kind smallint NOT NULL CHECK (media_kind BETWEEN {media_kind.image} AND {media_kind.other}),
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
    -- The highest version number that was ever assigned. Numbers are never reused, even if the newest version
    -- was deleted.
    last_version integer NOT NULL DEFAULT 1,
    -- The legal hold. Together with the retention, it protects the file from being purged.
    hold_time timestamptz,
    hold_by text COLLATE "C",
    hold_reason text,
    -- why the content is in state error: object missing, object damaged, checksum mismatch
    state_reason smallint
        CHECK (state_reason BETWEEN {state_reason.object_missing} AND {state_reason.checksum_mismatch}),
    PRIMARY KEY (tenant_id, id),
    CHECK ((delete_time IS NULL) = (purge_time IS NULL)),
    CHECK (last_version >= version),
    CHECK ((hold_time IS NULL) = (hold_by IS NULL) AND (hold_time IS NULL) = (hold_reason IS NULL)),
    CHECK (state_reason IS NULL OR content_state = {content_state.error})
);
-- Queries `list files` and `count files`. They merge a few ordered index scans: one per audience, and one per
-- audience for the files that the caller owns. The trash has separate indexes.
-- Files of one audience, by time,
CREATE INDEX files_by_time ON files (tenant_id, audience, create_time, id) WHERE delete_time IS NULL;
-- by name,
CREATE INDEX files_by_name ON files (tenant_id, audience, name, id) WHERE delete_time IS NULL;
-- and by size.
CREATE INDEX files_by_size ON files (tenant_id, audience, size_bytes, id) WHERE delete_time IS NULL;
-- Files of one owner, by time (also for query `lock files of owner`),
CREATE INDEX files_by_owner_and_time ON files (tenant_id, owner_id, audience, create_time, id)
    WHERE delete_time IS NULL;
-- by name,
CREATE INDEX files_by_owner_and_name ON files (tenant_id, owner_id, audience, name, id) WHERE delete_time IS NULL;
-- and by size.
CREATE INDEX files_by_owner_and_size ON files (tenant_id, owner_id, audience, size_bytes, id)
    WHERE delete_time IS NULL;
-- The trash of one audience, by time,
CREATE INDEX trash_by_time ON files (tenant_id, audience, create_time, id) WHERE delete_time IS NOT NULL;
-- by name,
CREATE INDEX trash_by_name ON files (tenant_id, audience, name, id) WHERE delete_time IS NOT NULL;
-- and by size.
CREATE INDEX trash_by_size ON files (tenant_id, audience, size_bytes, id) WHERE delete_time IS NOT NULL;
-- The trash of one owner, by time (also for query `lock files of owner`),
CREATE INDEX trash_by_owner_and_time ON files (tenant_id, owner_id, audience, create_time, id)
    WHERE delete_time IS NOT NULL;
-- by name,
CREATE INDEX trash_by_owner_and_name ON files (tenant_id, owner_id, audience, name, id)
    WHERE delete_time IS NOT NULL;
-- and by size.
CREATE INDEX trash_by_owner_and_size ON files (tenant_id, owner_id, audience, size_bytes, id)
    WHERE delete_time IS NOT NULL;
-- Query `list files due for purge`. A file is due for purge when both its time in the trash and its retention have
-- expired. Files under a legal hold are not in the index, so they are not visited in every round.
CREATE INDEX files_to_purge ON files ((greatest(purge_time, retain_until_time)), tenant_id, id)
    WHERE purge_time IS NOT NULL AND hold_time IS NULL;
-- Queries `find tenants with files to delete` and `find files to delete`: files outside the trash that will be
-- deleted automatically, by tenant and by the earlier of both times.
CREATE INDEX files_to_delete ON files (tenant_id, least(expire_time, deletion_time), id)
    WHERE delete_time IS NULL AND least(expire_time, deletion_time) IS NOT NULL;
-- Query `find protected files`, which runs while the uploads of the tenant wait: files under a legal hold,
CREATE INDEX files_held ON files (tenant_id) WHERE hold_time IS NOT NULL;
-- and files in retention.
CREATE INDEX files_retained ON files (tenant_id, retain_until_time) WHERE retain_until_time IS NOT NULL;

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
    PRIMARY KEY (tenant_id, file_id, principal),
    FOREIGN KEY (tenant_id, file_id) REFERENCES files (tenant_id, id)
);
-- Queries `list files` and `count files`: one scan per principal of the caller, by time,
CREATE INDEX file_readers_by_time ON file_readers (tenant_id, principal, is_deleted, create_time, file_id);
-- by name,
CREATE INDEX file_readers_by_name ON file_readers (tenant_id, principal, is_deleted, name, file_id);
-- and by size.
CREATE INDEX file_readers_by_size ON file_readers (tenant_id, principal, is_deleted, size_bytes, file_id);
CALL app.protect('file_readers');
GRANT INSERT, UPDATE, DELETE ON file_readers TO strongroom_app;

-- The same access rule as in src/app/access.rs. It names `file_readers`, so it follows that table.
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
-- Checks of the stored bytes change the state of a file.
GRANT UPDATE (content_state, state_reason, revision, update_time) ON files TO strongroom_system;

CREATE TRIGGER content_transition BEFORE UPDATE OF content_state ON files
    FOR EACH ROW WHEN (OLD.content_state <> NEW.content_state AND OLD.version = NEW.version)
    EXECUTE FUNCTION app.guard_content_transition();
CREATE TRIGGER file_transition BEFORE UPDATE OF version, content_state, archive_time ON files
    FOR EACH ROW EXECUTE FUNCTION app.guard_file_transition();
CREATE TRIGGER protected_files BEFORE DELETE ON files FOR EACH ROW EXECUTE FUNCTION app.guard_protected_file();
CREATE TRIGGER created_files AFTER INSERT ON files REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION app.check_created_files();
CREATE TRIGGER category_change BEFORE UPDATE OF category ON files
    FOR EACH ROW WHEN (OLD.category <> NEW.category) EXECUTE FUNCTION app.check_category_change();
-- Rejects new holds and retentions once a deletion of the tenant has started, because they could no longer be
-- released.
CREATE TRIGGER tenant_is_active BEFORE UPDATE OF hold_time, retain_until_time ON files
    FOR EACH STATEMENT EXECUTE FUNCTION app.check_tenant_is_active();

-- Versions of files. The content of a version never changes; its state may.
CREATE TABLE versions (
    tenant_id uuid NOT NULL,
    file_id uuid NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    blob_id uuid NOT NULL,
    -- the same states and kinds as in `files`
    content_state smallint NOT NULL
        CHECK (content_state BETWEEN {content_state.processing} AND {content_state.error}),
    scan_status smallint NOT NULL
        CHECK (scan_status BETWEEN {scan_status.not_scanned} AND {scan_status.unscannable}),
    mime_type text COLLATE "C" NOT NULL,
    declared_mime_type text COLLATE "C" NOT NULL,
    media_kind smallint NOT NULL CHECK (media_kind BETWEEN {media_kind.image} AND {media_kind.other}),
    size_bytes bigint NOT NULL CHECK (size_bytes >= 0),
    sha256 bytea CHECK (octet_length(sha256) = 32),
    created_by text COLLATE "C" NOT NULL,
    create_time timestamptz NOT NULL,
    change_description text NOT NULL DEFAULT '',
    -- the version that this version restored, if any
    restored_from integer,
    state_reason smallint
        CHECK (state_reason BETWEEN {state_reason.object_missing} AND {state_reason.checksum_mismatch}),
    PRIMARY KEY (tenant_id, file_id, version),
    FOREIGN KEY (tenant_id, file_id) REFERENCES files (tenant_id, id),
    FOREIGN KEY (tenant_id, blob_id) REFERENCES blobs (tenant_id, id),
    CHECK (state_reason IS NULL OR content_state = {content_state.error})
);
-- Queries `list due blobs`, `schedule deletion of blobs`, `mark versions damaged`, `list blobs to check` and
-- `get upload`, which find the versions of a blob.
CREATE INDEX versions_by_blob ON versions (tenant_id, blob_id);
CALL app.protect('versions');
GRANT INSERT, UPDATE, DELETE ON versions TO strongroom_app;
GRANT UPDATE (content_state, state_reason) ON versions TO strongroom_system;
CREATE TRIGGER content_transition BEFORE UPDATE OF content_state ON versions
    FOR EACH ROW WHEN (OLD.content_state <> NEW.content_state) EXECUTE FUNCTION app.guard_content_transition();
CREATE TRIGGER tenant_is_active BEFORE INSERT ON versions
    FOR EACH STATEMENT EXECUTE FUNCTION app.check_tenant_is_active();

-- Tags of files.
CREATE TABLE file_tags (
    tenant_id uuid NOT NULL,
    file_id uuid NOT NULL,
    tag text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant_id, file_id, tag),
    FOREIGN KEY (tenant_id, file_id) REFERENCES files (tenant_id, id)
);
-- Query `list files` with a filter by tag, if the planner starts from the tag.
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
-- Query `list files` with a filter by entity, if the planner starts from the entity.
CREATE INDEX attachments_by_entity ON attachments (tenant_id, entity_type, entity_id, field, file_id);
CALL app.protect('attachments');
GRANT INSERT, DELETE ON attachments TO strongroom_app;

-- Download counts and last access times of files. They are in a separate table, because a download must
-- change neither the etag nor the update time of the file. They are written in batches, a few seconds after
-- the downloads.
CREATE TABLE download_counts (
    tenant_id uuid NOT NULL,
    file_id uuid NOT NULL,
    download_count bigint NOT NULL CHECK (download_count >= 0),
    last_access_time timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, file_id),
    FOREIGN KEY (tenant_id, file_id) REFERENCES files (tenant_id, id)
) WITH (fillfactor = 50);
CALL app.protect('download_counts');
-- A purge deletes the row; only strongroom_system writes it.
GRANT DELETE ON download_counts TO strongroom_app;
GRANT INSERT, UPDATE ON download_counts TO strongroom_system;

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
-- Query `delete expired tombstones`.
CREATE INDEX tombstones_due ON tombstones (expire_time);
CALL app.protect('tombstones');
GRANT INSERT ON tombstones TO strongroom_app;
GRANT DELETE ON tombstones TO strongroom_system;
