-- Which file a foreign object became. Written by the commit that makes the file, so that an import that is run again, after a
-- crash too, finds it. A row outlives its file: what was imported and purged does not come back by itself.
CREATE TABLE imports (
    tenant_id uuid NOT NULL,
    -- of the source's name, a colon, and all of the key or URL, which may be longer than a key of an index
    source_sha256 bytea NOT NULL CHECK (octet_length(source_sha256) = 32),
    -- the source's name, a colon, and the key in it; or the URL, without its query, which may hold secrets and is in the digest
    source text NOT NULL,
    -- the id that the file had before, as the importer said
    legacy_id text NOT NULL,
    file_id uuid NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, source_sha256)
);
-- whoever still has an old id looks for the files that it became
CREATE INDEX imports_legacy_id ON imports (tenant_id, legacy_id, file_id);
CALL app.protect('imports');
GRANT SELECT, INSERT ON imports TO strongroom_app;
