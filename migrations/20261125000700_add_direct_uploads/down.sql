ALTER TABLE files DROP CONSTRAINT files_state_reason_check,
    ADD CONSTRAINT files_state_reason_check CHECK (state_reason BETWEEN 1 AND 2);
ALTER TABLE versions DROP CONSTRAINT versions_state_reason_check,
    ADD CONSTRAINT versions_state_reason_check CHECK (state_reason BETWEEN 1 AND 2);
DROP INDEX uploads_staging_key;
ALTER TABLE uploads
    DROP CONSTRAINT uploads_direct,
    DROP CONSTRAINT uploads_staging,
    DROP COLUMN staging_key,
    DROP COLUMN is_direct;
