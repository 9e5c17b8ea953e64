-- The reason that a version is in state error: 1 its object is missing, 2 its object is damaged.
ALTER TABLE versions
    ADD COLUMN state_reason smallint CHECK (state_reason BETWEEN 1 AND 2),
    ADD CHECK (state_reason IS NULL OR content_state = 5);
ALTER TABLE files
    ADD COLUMN state_reason smallint CHECK (state_reason BETWEEN 1 AND 2),
    ADD CHECK (state_reason IS NULL OR content_state = 5);

-- A missing or damaged version remains in state error, except for a repair: strongroom_system can set it to
-- available after it has read the object and found it intact. This way, files are not lost if the service was
-- configured with a wrong bucket for a while.
CREATE OR REPLACE FUNCTION app.guard_content_transition() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    IF NOT (CASE OLD.content_state
        WHEN 1 THEN NEW.content_state IN (2, 3, 4, 5)
        WHEN 2 THEN NEW.content_state IN (1, 3, 5)
        WHEN 3 THEN NEW.content_state IN (2, 5)
        WHEN 4 THEN NEW.content_state IN (1, 2, 5)
        ELSE OLD.state_reason IS NOT NULL AND NEW.content_state = 2
            AND nullif(current_setting('app.repair', true), '') = 'on'
            AND pg_has_role(current_user, 'strongroom_system', 'MEMBER')
    END) THEN
        RAISE EXCEPTION 'content cannot change from state % to %', OLD.content_state, NEW.content_state
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = 'content_transition';
    END IF;
    RETURN NEW;
END
$$;

GRANT UPDATE (content_state, state_reason) ON versions TO strongroom_system;
GRANT UPDATE (content_state, state_reason, revision, update_time) ON files TO strongroom_system;
GRANT INSERT ON events TO strongroom_system;
GRANT USAGE ON SEQUENCE event_numbers TO strongroom_system;
