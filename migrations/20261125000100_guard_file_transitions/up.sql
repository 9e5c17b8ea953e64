-- Rejects state transitions that src/domain/file_transitions.rs does not allow. Only updates are checked,
-- because inserted rows have no previous state.
CREATE FUNCTION app.guard_content_transition() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    IF NOT (CASE OLD.content_state
        WHEN 1 THEN NEW.content_state IN (2, 3, 4, 5)
        WHEN 2 THEN NEW.content_state IN (1, 3, 5)
        WHEN 3 THEN NEW.content_state IN (2, 5)
        WHEN 4 THEN NEW.content_state IN (1, 2, 5)
        ELSE false
    END) THEN
        RAISE EXCEPTION 'content cannot change from state % to %', OLD.content_state, NEW.content_state
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = 'content_transition';
    END IF;
    RETURN NEW;
END
$$;

-- Only an available version can become current, and only an available file outside the trash can be archived.
CREATE FUNCTION app.guard_file_transition() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    IF NEW.version <> OLD.version AND NOT (NEW.content_state = 2 AND EXISTS (
        SELECT FROM public.versions AS v
        WHERE v.tenant_id = NEW.tenant_id AND v.file_id = NEW.id AND v.version = NEW.version AND v.content_state = 2))
    THEN
        RAISE EXCEPTION 'version % is not available and cannot become current', NEW.version
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = 'current_version_is_available';
    END IF;
    IF OLD.archive_time IS NULL AND NEW.archive_time IS NOT NULL
        AND (NEW.content_state <> 2 OR NEW.delete_time IS NOT NULL) THEN
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

CREATE TRIGGER content_transition BEFORE UPDATE OF content_state ON versions
    FOR EACH ROW WHEN (OLD.content_state <> NEW.content_state) EXECUTE FUNCTION app.guard_content_transition();
CREATE TRIGGER content_transition BEFORE UPDATE OF content_state ON files
    FOR EACH ROW WHEN (OLD.content_state <> NEW.content_state AND OLD.version = NEW.version)
    EXECUTE FUNCTION app.guard_content_transition();
CREATE TRIGGER file_transition BEFORE UPDATE OF version, content_state, archive_time ON files
    FOR EACH ROW EXECUTE FUNCTION app.guard_file_transition();
