-- Uploads whose bytes go straight to the store. One of one piece is put under a key of its own, which a live URL may write
-- again and again, and is copied from there; its row owns both keys until the end.
ALTER TABLE uploads
    ADD COLUMN is_direct boolean NOT NULL DEFAULT false,
    ADD COLUMN staging_key text COLLATE "C",
    ADD CONSTRAINT uploads_staging CHECK (staging_key IS NULL OR (is_direct AND multipart_id IS NULL)),
    ADD CONSTRAINT uploads_direct CHECK (NOT is_direct OR spec IS NOT NULL);
-- Whoever found an object asks whose it is.
CREATE INDEX uploads_staging_key ON uploads (tenant_id, staging_key) WHERE staging_key IS NOT NULL;

-- 3: the bytes that were uploaded are not those that were declared.
ALTER TABLE versions DROP CONSTRAINT versions_state_reason_check,
    ADD CONSTRAINT versions_state_reason_check CHECK (state_reason BETWEEN 1 AND 3);
ALTER TABLE files DROP CONSTRAINT files_state_reason_check,
    ADD CONSTRAINT files_state_reason_check CHECK (state_reason BETWEEN 1 AND 3);
