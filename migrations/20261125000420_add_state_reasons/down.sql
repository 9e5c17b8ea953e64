REVOKE USAGE ON SEQUENCE event_numbers FROM strongroom_system;
REVOKE INSERT ON events FROM strongroom_system;
REVOKE UPDATE (content_state, state_reason, revision, update_time) ON files FROM strongroom_system;
REVOKE UPDATE (content_state, state_reason) ON versions FROM strongroom_system;
CREATE OR REPLACE FUNCTION app.guard_content_transition() RETURNS trigger
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
ALTER TABLE files DROP COLUMN state_reason;
ALTER TABLE versions DROP COLUMN state_reason;
