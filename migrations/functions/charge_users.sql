-- Applies changes of usage to the quotas of users. Users without a quota are ignored. Returns the first user whose limits
-- the changes exceed; the caller must then roll back. Returns null if all fit. A change that only releases always fits.
--
-- The transaction must hold the lock of the tenant's row in `quotas`. So the rows of users need no order of locks, and no
-- row is missed: a row is created under the same lock.
CREATE OR REPLACE FUNCTION app.charge_users(
    user_ids text[], used_changes bigint[], reserved_changes bigint[], file_changes bigint[],
    reserved_file_changes bigint[]
) RETURNS text LANGUAGE plpgsql
    AS $$
DECLARE
    tenant constant uuid := app.tenant_id();
    exceeded text;
BEGIN
    WITH d AS MATERIALIZED (
        SELECT c.user_id, sum(c.used)::bigint AS used, sum(c.reserved)::bigint AS reserved,
            sum(c.files)::bigint AS files, sum(c.reserved_files)::bigint AS reserved_files
        FROM unnest(user_ids, used_changes, reserved_changes, file_changes, reserved_file_changes)
            AS c (user_id, used, reserved, files, reserved_files)
        GROUP BY c.user_id
    ), charged AS (
        UPDATE public.user_quotas AS q SET
            used_bytes = q.used_bytes + d.used, reserved_bytes = q.reserved_bytes + d.reserved,
            file_count = q.file_count + d.files, reserved_file_count = q.reserved_file_count + d.reserved_files
        FROM d
        WHERE q.tenant_id = tenant AND q.user_id = d.user_id
          AND (q.limit_bytes IS NULL OR d.used + d.reserved <= 0
               OR q.used_bytes + q.reserved_bytes + d.used + d.reserved <= q.limit_bytes)
          AND (q.file_count_max = 0 OR d.files + d.reserved_files <= 0
               OR q.file_count + q.reserved_file_count + d.files + d.reserved_files <= q.file_count_max)
        RETURNING q.user_id
    )
    SELECT q.user_id INTO exceeded
    FROM d JOIN public.user_quotas AS q ON q.tenant_id = tenant AND q.user_id = d.user_id
    WHERE NOT EXISTS (SELECT FROM charged WHERE charged.user_id = q.user_id)
    ORDER BY q.user_id LIMIT 1;
    RETURN exceeded;
END
$$;
REVOKE ALL ON FUNCTION app.charge_users FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.charge_users TO strongroom_app;
