-- Bytes of purged files count until their objects are deleted, and are limited.

SET LOCAL lock_timeout = '10s';

-- The bytes of blobs whose deletion is scheduled. A trigger counts them, so that it also counts those of
-- replicas of the previous version.
ALTER TABLE quotas ADD COLUMN pending_deletion_bytes bigint NOT NULL DEFAULT 0 CHECK (pending_deletion_bytes >= 0);
-- How many times the limit these bytes may reach. Above that, nothing more can be stored.
ALTER TABLE quotas ADD COLUMN pending_deletion_multiple bigint NOT NULL DEFAULT 1
    CHECK (pending_deletion_multiple BETWEEN 0 AND 6);

{function.count_pending_deletion}
-- A trigger with transition tables cannot name columns.
CREATE TRIGGER pending_deletion_scheduled AFTER UPDATE ON blobs
    REFERENCING OLD TABLE AS blobs_before NEW TABLE AS blobs_after
    FOR EACH STATEMENT EXECUTE FUNCTION app.count_pending_deletion();
CREATE TRIGGER pending_deletion_ended AFTER DELETE ON blobs
    REFERENCING OLD TABLE AS blobs_before
    FOR EACH STATEMENT EXECUTE FUNCTION app.count_pending_deletion();

-- The triggers hold a lock on the table, so no blob changes between them and this statement.
UPDATE quotas AS q SET pending_deletion_bytes = scheduled.bytes
FROM (
    SELECT tenant_id, sum(size_bytes)::bigint AS bytes FROM blobs WHERE delete_after IS NOT NULL GROUP BY tenant_id
) AS scheduled
WHERE scheduled.tenant_id = q.tenant_id;
