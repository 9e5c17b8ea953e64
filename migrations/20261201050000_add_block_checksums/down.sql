ALTER TYPE app.finished_upload DROP ATTRIBUTE block_checksums;
ALTER TABLE upload_parts DROP COLUMN partial_block_checksum, DROP COLUMN block_checksums;
DROP TABLE blob_checksums;
