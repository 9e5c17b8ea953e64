-- Rejects the deletion of protected files, even if the code has a bug. An erasure in use overrides a retention,
-- but no legal hold.
CREATE OR REPLACE FUNCTION app.guard_protected_file() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    IF OLD.hold_time IS NULL AND (OLD.retain_until_time IS NULL OR OLD.retain_until_time <= app.now()) THEN
        RETURN OLD;
    END IF;
    IF OLD.hold_time IS NULL THEN
        IF EXISTS (
            SELECT FROM public.erasures AS e
            WHERE e.tenant_id = OLD.tenant_id AND e.use_time IS NOT NULL AND (e.file_id = OLD.id OR e.file_id IS NULL)
        ) THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'file % is protected by retention or a legal hold', OLD.id
        USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = 'protected_files';
END
$$;
