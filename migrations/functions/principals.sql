-- The principals through which files can be granted to the caller: itself and its groups.
CREATE OR REPLACE FUNCTION app.principals() RETURNS text[]
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (
        SELECT coalesce(array_agg(convert_from(decode(part, 'hex'), 'UTF8')), '{}')
        FROM unnest(string_to_array(nullif(current_setting('app.principals', true), ''), ',')) AS part
    );
