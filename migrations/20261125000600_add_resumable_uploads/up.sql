-- Resumable uploads: they are created before their bytes are sent, and can be resumed after a failure. The
-- upload stores the specification of the file, and one row per stored part.
ALTER TABLE uploads
    -- The checked specification of the file; null for uploads of a single stream.
    ADD COLUMN spec jsonb,
    ADD COLUMN part_size_bytes bigint CHECK (part_size_bytes > 0),
    -- The media type that was detected in the first bytes. Null before the first part, or if no type was
    -- detected.
    ADD COLUMN sniffed_mime_type text COLLATE "C",
    ADD CONSTRAINT uploads_resumable CHECK ((spec IS NULL) = (part_size_bytes IS NULL));
-- For lists of uploads: users list their own, admins those of the whole tenant.
CREATE INDEX uploads_by_creator ON uploads (tenant_id, created_by, id) WHERE state = 1 AND spec IS NOT NULL;
CREATE INDEX uploads_by_tenant ON uploads (tenant_id, id) WHERE state = 1 AND spec IS NOT NULL;

-- The stored parts of uploads, with the data that another replica needs to continue after a part without
-- reading its bytes. Only parts before the first gap in the numbers count; parts after it are written again.
CREATE TABLE upload_parts (
    tenant_id uuid NOT NULL,
    upload_id uuid NOT NULL,
    number integer NOT NULL CHECK (number BETWEEN 1 AND 10000),
    size_bytes bigint NOT NULL CHECK (size_bytes > 0),
    -- the etag that the store returned for the part
    etag text COLLATE "C" NOT NULL,
    -- CRC-64/NVME, most significant byte first; bytes that are sent again are compared with it
    crc64nvme bytea NOT NULL CHECK (octet_length(crc64nvme) = 8),
    -- the state of the SHA-256 after the last byte of this part
    sha256_state bytea NOT NULL,
    PRIMARY KEY (tenant_id, upload_id, number),
    FOREIGN KEY (tenant_id, upload_id) REFERENCES uploads (tenant_id, id) ON DELETE CASCADE
);
CALL app.protect('upload_parts');
GRANT INSERT, UPDATE, DELETE ON upload_parts TO strongroom_app;
