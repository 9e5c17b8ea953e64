DROP TABLE upload_parts;
DROP INDEX uploads_by_creator;
DROP INDEX uploads_by_tenant;
ALTER TABLE uploads
    DROP CONSTRAINT uploads_resumable,
    DROP COLUMN sniffed_mime_type,
    DROP COLUMN part_size_bytes,
    DROP COLUMN spec;
