-- What keeps a file from being purged: its retention, and a legal hold.
ALTER TABLE files
    ADD COLUMN hold_time timestamptz,
    ADD COLUMN hold_by text COLLATE "C",
    ADD COLUMN hold_reason text,
    ADD CHECK ((hold_time IS NULL) = (hold_by IS NULL) AND (hold_time IS NULL) = (hold_reason IS NULL));

-- A file comes up for purging when both its time in the trash and its retention are over, and not while it is held: what must
-- be kept is not looked at in every round.
DROP INDEX files_to_purge;
CREATE INDEX files_to_purge ON files ((greatest(purge_time, retain_until_time)), tenant_id, id)
    WHERE purge_time IS NOT NULL AND hold_time IS NULL;

-- Whether a tenant keeps anything at all is asked while its uploads wait.
CREATE INDEX files_held ON files (tenant_id) WHERE hold_time IS NOT NULL;
CREATE INDEX files_retained ON files (tenant_id, retain_until_time) WHERE retain_until_time IS NOT NULL;

-- The last wall: nobody removes what must be kept, whatever the code does.
CREATE FUNCTION app.guard_kept_file() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    IF OLD.hold_time IS NOT NULL OR OLD.retain_until_time > app.now() THEN
        RAISE EXCEPTION 'file % must be kept', OLD.id
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = 'kept_files';
    END IF;
    RETURN OLD;
END
$$;
CREATE TRIGGER kept_files BEFORE DELETE ON files FOR EACH ROW EXECUTE FUNCTION app.guard_kept_file();
