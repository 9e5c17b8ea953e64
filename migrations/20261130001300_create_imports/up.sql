-- Imported objects and their files. Inserted by the commit that creates the file, so that a repeated import,
-- also after a crash, finds it. A row outlives its file, so that a purged file is not imported again.
CREATE TABLE imports (
    tenant_id uuid NOT NULL,
    -- the digest of the source's name, a colon, and the full key or URL, which can exceed the size limit of
    -- index keys
    source_sha256 bytea NOT NULL CHECK (octet_length(source_sha256) = 32),
    -- the source's name, a colon, and the key; or the URL without its query, which can contain secrets and is
    -- only in the digest
    source text NOT NULL,
    -- the id of the file in the legacy system, as stated by the importer
    legacy_id text NOT NULL,
    file_id uuid NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, source_sha256)
);
-- Query `find imports`, by legacy id.
CREATE INDEX imports_legacy_id ON imports (tenant_id, legacy_id, file_id);
CALL app.protect('imports');
GRANT INSERT ON imports TO strongroom_app;
