-- Stores tags in the normalization form NFC, in which the service now writes and compares them. The same tag in
-- two forms becomes one tag.
INSERT INTO file_tags (tenant_id, file_id, tag)
SELECT tenant_id, file_id, normalize(tag, NFC) FROM file_tags WHERE tag IS NOT NFC NORMALIZED
ON CONFLICT DO NOTHING;

DELETE FROM file_tags WHERE tag IS NOT NFC NORMALIZED;
