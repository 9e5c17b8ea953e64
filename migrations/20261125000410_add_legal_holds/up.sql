-- Legal holds. Together with the retention, they protect files from being purged.
ALTER TABLE files
    ADD COLUMN hold_time timestamptz,
    ADD COLUMN hold_by text COLLATE "C",
    ADD COLUMN hold_reason text,
    ADD CHECK ((hold_time IS NULL) = (hold_by IS NULL) AND (hold_time IS NULL) = (hold_reason IS NULL));

-- A file is due for purge when both its time in the trash and its retention have expired. Files under a legal
-- hold are not in the index, so they are not visited in every round.
DROP INDEX files_to_purge;
CREATE INDEX files_to_purge ON files ((greatest(purge_time, retain_until_time)), tenant_id, id)
    WHERE purge_time IS NOT NULL AND hold_time IS NULL;

-- For the check whether a tenant has protected files, which runs while its uploads wait.
CREATE INDEX files_held ON files (tenant_id) WHERE hold_time IS NOT NULL;
CREATE INDEX files_retained ON files (tenant_id, retain_until_time) WHERE retain_until_time IS NOT NULL;

-- Rejects the deletion of protected files, even if the code has a bug.
CREATE FUNCTION app.guard_protected_file() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    IF OLD.hold_time IS NOT NULL OR OLD.retain_until_time > app.now() THEN
        RAISE EXCEPTION 'file % is protected by retention or a legal hold', OLD.id
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = 'protected_files';
    END IF;
    RETURN OLD;
END
$$;
CREATE TRIGGER protected_files BEFORE DELETE ON files FOR EACH ROW EXECUTE FUNCTION app.guard_protected_file();
