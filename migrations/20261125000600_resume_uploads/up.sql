-- Uploads that are created before their bytes come, and can be gone on with after anything broke: what was said about the
-- file, and one row for each part that is in the store.
ALTER TABLE uploads
    -- What the file will be, checked when the upload was created; an upload of one stream has it in its memory.
    ADD COLUMN spec jsonb,
    ADD COLUMN part_size_bytes bigint CHECK (part_size_bytes > 0),
    -- What the first bytes were recognised as; known from the first part on, and even then perhaps nothing.
    ADD COLUMN sniffed_mime_type text COLLATE "C",
    ADD CONSTRAINT uploads_resumable CHECK ((spec IS NULL) = (part_size_bytes IS NULL));
-- Whoever lists uploads sees its own; an admin all of the tenant's.
CREATE INDEX uploads_of_creator ON uploads (tenant_id, created_by, id) WHERE state = 1 AND spec IS NOT NULL;
CREATE INDEX uploads_of_tenant ON uploads (tenant_id, id) WHERE state = 1 AND spec IS NOT NULL;

-- All that another replica needs to go on behind a part without reading any of its bytes. The longest run of numbers from
-- 1 without a gap is what counts; what lies behind a gap is written again.
CREATE TABLE upload_parts (
    tenant_id uuid NOT NULL,
    upload_id uuid NOT NULL,
    number integer NOT NULL CHECK (number BETWEEN 1 AND 10000),
    size_bytes bigint NOT NULL CHECK (size_bytes > 0),
    -- the store's mark for these bytes
    etag text COLLATE "C" NOT NULL,
    -- CRC-64/NVME, the most significant byte first: bytes that are sent again are compared with it
    crc64nvme bytea NOT NULL CHECK (octet_length(crc64nvme) = 8),
    -- the state of the SHA-256 behind the last byte of this part
    sha256_state bytea NOT NULL,
    PRIMARY KEY (tenant_id, upload_id, number),
    FOREIGN KEY (tenant_id, upload_id) REFERENCES uploads (tenant_id, id) ON DELETE CASCADE
);
CALL app.protect('upload_parts');
GRANT INSERT, UPDATE, DELETE ON upload_parts TO strongroom_app;
