-- The lowest audience that the caller belongs to. An audience is a visibility up to `organization`: `owner` for
-- admins and the system, `managers` for managers, `organization` for all other members of the tenant.
CREATE OR REPLACE FUNCTION app.audience_min() RETURNS smallint
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN nullif(current_setting('app.audience_min', true), '')::smallint;
