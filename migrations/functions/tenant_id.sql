-- The tenant of the transaction. This function and `user_id`, `audience_min`, `principals` and `now` return the
-- context of the transaction, which consists of settings that are local to it and are set in the same round trip
-- as BEGIN. On a reused connection an unset setting is '' instead of NULL, hence `nullif`. Strings are
-- hex-encoded, so that no string from a caller is spliced into SQL.
--
-- These functions have SQL-standard bodies: names are resolved at creation, not through the caller's
-- search_path. They therefore need no `SET search_path`, which would prevent the planner from inlining them
-- into the policies.
CREATE OR REPLACE FUNCTION app.tenant_id() RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN nullif(current_setting('app.tenant_id', true), '')::uuid;
