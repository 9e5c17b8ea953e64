-- Rejects the deletion of protected files, even if the code has a bug.
CREATE OR REPLACE FUNCTION app.guard_protected_file() RETURNS trigger
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
