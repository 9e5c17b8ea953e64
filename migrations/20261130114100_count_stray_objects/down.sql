DROP TRIGGER pending_deletion_ended ON stray_objects;
DROP TRIGGER pending_deletion_added ON stray_objects;
DROP FUNCTION app.count_stray_objects;
UPDATE quotas AS q SET pending_deletion_bytes = q.pending_deletion_bytes - stray.bytes
FROM (SELECT tenant_id, sum(size_bytes)::bigint AS bytes FROM stray_objects GROUP BY tenant_id) AS stray
WHERE stray.tenant_id = q.tenant_id;
REVOKE UPDATE (delete_after) ON stray_objects FROM strongroom_app;
ALTER TABLE stray_objects DROP COLUMN size_bytes;
