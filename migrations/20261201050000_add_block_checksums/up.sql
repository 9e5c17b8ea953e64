-- Checksums of blocks, with which a download verifies a range without reading the whole blob.

SET LOCAL lock_timeout = '10s';

-- The checksums of the blocks of a blob: one CRC-32C for each MiB, 4 bytes each, most significant byte first. Blobs of
-- one block have no row, because their CRC-64 covers the same bytes. Blobs of earlier releases have none until they are
-- read completely.
CREATE TABLE blob_checksums (
    tenant_id uuid NOT NULL,
    blob_id uuid NOT NULL,
    block_checksums bytea NOT NULL CHECK (octet_length(block_checksums) % 4 = 0),
    PRIMARY KEY (tenant_id, blob_id),
    FOREIGN KEY (tenant_id, blob_id) REFERENCES blobs (tenant_id, id) ON DELETE CASCADE
);
-- Checksums cannot be compressed. Without compression, PostgreSQL reads only the requested slice of a large value: a
-- blob of 5 TiB has 20 MiB of checksums.
ALTER TABLE blob_checksums ALTER COLUMN block_checksums SET STORAGE EXTERNAL;
CALL app.protect('blob_checksums');
GRANT INSERT, DELETE ON blob_checksums TO strongroom_app;
-- For blobs without checksums that background work reads completely.
GRANT INSERT ON blob_checksums TO strongroom_system;

-- Where the computation resumes after a part: the checksums of the blocks that end in the part, and the checksum of the
-- bytes after the last of them. Null for parts that the previous version recorded.
ALTER TABLE upload_parts
    ADD COLUMN block_checksums bytea CHECK (octet_length(block_checksums) % 4 = 0),
    ADD COLUMN partial_block_checksum bytea CHECK (octet_length(partial_block_checksum) = 4);
ALTER TABLE upload_parts ALTER COLUMN block_checksums SET STORAGE EXTERNAL;

-- Null if the blob has one block, and for direct uploads and items of the previous version.
ALTER TYPE app.finished_upload ADD ATTRIBUTE block_checksums bytea;
