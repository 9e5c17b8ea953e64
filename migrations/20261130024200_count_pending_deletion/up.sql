-- Bytes of purged files count until their objects are deleted, and are limited.

SET LOCAL lock_timeout = '10s';

-- The bytes of blobs whose deletion is scheduled. A trigger counts them, so that it also counts those of
-- replicas of the previous version.
ALTER TABLE quotas ADD COLUMN pending_deletion_bytes bigint NOT NULL DEFAULT 0 CHECK (pending_deletion_bytes >= 0);
-- How many times the limit these bytes may reach. Above that, nothing more can be stored.
ALTER TABLE quotas ADD COLUMN pending_deletion_multiple bigint NOT NULL DEFAULT 1
    CHECK (pending_deletion_multiple BETWEEN 0 AND 6);

{function.count_pending_deletion}
CREATE CONSTRAINT TRIGGER pending_deletion_scheduled AFTER UPDATE OF delete_after ON blobs
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN ((OLD.delete_after IS NULL) <> (NEW.delete_after IS NULL) AND NEW.size_bytes > 0)
    EXECUTE FUNCTION app.count_pending_deletion();
CREATE CONSTRAINT TRIGGER pending_deletion_ended AFTER DELETE ON blobs
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (OLD.delete_after IS NOT NULL AND OLD.size_bytes > 0)
    EXECUTE FUNCTION app.count_pending_deletion();

-- The triggers hold a lock on the table, so no blob changes between them and this statement.
UPDATE quotas AS q SET pending_deletion_bytes = scheduled.bytes
FROM (
    SELECT tenant_id, sum(size_bytes)::bigint AS bytes FROM blobs WHERE delete_after IS NOT NULL GROUP BY tenant_id
) AS scheduled
WHERE scheduled.tenant_id = q.tenant_id;
