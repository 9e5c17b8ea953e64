-- Only an available version can become current, and only an available file outside the trash can be archived.
CREATE OR REPLACE FUNCTION app.guard_file_transition() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    IF NEW.version <> OLD.version AND NOT (NEW.content_state = {content_state.available} AND EXISTS (
        SELECT FROM public.versions AS v
        WHERE v.tenant_id = NEW.tenant_id AND v.file_id = NEW.id AND v.version = NEW.version
          AND v.content_state = {content_state.available}))
    THEN
        RAISE EXCEPTION 'version % is not available and cannot become current', NEW.version
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = 'current_version_is_available';
    END IF;
    IF OLD.archive_time IS NULL AND NEW.archive_time IS NOT NULL
        AND (NEW.content_state <> {content_state.available} OR NEW.delete_time IS NOT NULL) THEN
        RAISE EXCEPTION 'only an available file outside the trash can be archived'
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = 'archive_transition';
    END IF;
    IF OLD.archive_time IS NOT NULL AND NEW.archive_time IS NULL AND OLD.delete_time IS NOT NULL THEN
        RAISE EXCEPTION 'a file in the trash cannot be unarchived'
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = 'archive_transition';
    END IF;
    RETURN NEW;
END
$$;
