-- The id of the caller.
CREATE OR REPLACE FUNCTION app.user_id() RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN convert_from(decode(nullif(current_setting('app.user_id', true), ''), 'hex'), 'UTF8');
