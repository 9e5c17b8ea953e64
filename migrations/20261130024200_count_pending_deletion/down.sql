DROP TRIGGER pending_deletion_ended ON blobs;
DROP TRIGGER pending_deletion_scheduled ON blobs;
DROP FUNCTION app.count_pending_deletion;
ALTER TABLE quotas DROP COLUMN pending_deletion_multiple;
ALTER TABLE quotas DROP COLUMN pending_deletion_bytes;
