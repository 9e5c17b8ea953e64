-- Direct uploads, whose bytes the client sends directly to the store. A single-part direct upload is
-- sent to a staging key, because the presigned URL allows overwriting the object until it expires, and is
-- copied from there. The row owns both keys.
ALTER TABLE uploads
    ADD COLUMN is_direct boolean NOT NULL DEFAULT false,
    ADD COLUMN staging_key text COLLATE "C",
    ADD CONSTRAINT uploads_staging CHECK (staging_key IS NULL OR (is_direct AND multipart_id IS NULL)),
    ADD CONSTRAINT uploads_direct CHECK (NOT is_direct OR spec IS NOT NULL);
-- Used by the sweeper and by fsck, which look up uploads by staging key.
CREATE INDEX uploads_staging_key ON uploads (tenant_id, staging_key) WHERE staging_key IS NOT NULL;

-- 3: the uploaded bytes differ from the declared ones.
ALTER TABLE versions DROP CONSTRAINT versions_state_reason_check,
    ADD CONSTRAINT versions_state_reason_check CHECK (state_reason BETWEEN 1 AND 3);
ALTER TABLE files DROP CONSTRAINT files_state_reason_check,
    ADD CONSTRAINT files_state_reason_check CHECK (state_reason BETWEEN 1 AND 3);
