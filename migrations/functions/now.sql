-- The start time of the transaction by the database's clock, unless a test clock overrides it.
CREATE OR REPLACE FUNCTION app.now() RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN coalesce(nullif(current_setting('app.now', true), '')::timestamptz, transaction_timestamp());
