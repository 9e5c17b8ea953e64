-- Copies in progress and replaced objects count as pending deletion until their objects are deleted.

SET LOCAL lock_timeout = '10s';

-- The size of the object, or of the copy in progress. 0 in rows of the previous version, whose objects are deleted
-- within the blob deletion delay.
ALTER TABLE stray_objects ADD COLUMN size_bytes bigint NOT NULL DEFAULT 0 CHECK (size_bytes >= 0);
-- Reclaiming makes replaced objects due earlier.
GRANT UPDATE (delete_after) ON stray_objects TO strongroom_app;

{function.count_stray_objects}
CREATE TRIGGER pending_deletion_added AFTER INSERT ON stray_objects
    REFERENCING NEW TABLE AS objects_after
    FOR EACH STATEMENT EXECUTE FUNCTION app.count_stray_objects();
CREATE TRIGGER pending_deletion_ended AFTER DELETE ON stray_objects
    REFERENCING OLD TABLE AS objects_before
    FOR EACH STATEMENT EXECUTE FUNCTION app.count_stray_objects();
