-- Rejects state transitions that src/domain/file_transitions.rs does not allow. Only updates are checked,
-- because inserted rows have no previous state.
--
-- A missing or damaged version remains in state error, except for a repair: strongroom_system can set it to
-- available after it has read the object and found it intact. This way, files are not lost if the service was
-- configured with a wrong bucket for a while.
CREATE OR REPLACE FUNCTION app.guard_content_transition() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    IF NOT (CASE OLD.content_state
        WHEN {content_state.processing} THEN NEW.content_state IN (
            {content_state.available}, {content_state.quarantined}, {content_state.unscannable}, {content_state.error})
        WHEN {content_state.available} THEN NEW.content_state IN (
            {content_state.processing}, {content_state.quarantined}, {content_state.error})
        WHEN {content_state.quarantined} THEN NEW.content_state IN ({content_state.available}, {content_state.error})
        WHEN {content_state.unscannable} THEN NEW.content_state IN (
            {content_state.processing}, {content_state.available}, {content_state.error})
        ELSE OLD.state_reason IS NOT NULL AND NEW.content_state = {content_state.available}
            AND nullif(current_setting('app.repair', true), '') = 'on'
            AND pg_has_role(current_user, 'strongroom_system', 'MEMBER')
    END) THEN
        RAISE EXCEPTION 'content cannot change from state % to %', OLD.content_state, NEW.content_state
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = 'content_transition';
    END IF;
    RETURN NEW;
END
$$;
