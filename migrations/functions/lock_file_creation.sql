-- Locks the creation of files of a tenant. Commits hold the lock shared; changes of the categories or the
-- state of the tenant hold it exclusively, so that these do not change during a commit. It is an advisory
-- lock, because a row lock would cause contention.
CREATE OR REPLACE FUNCTION app.lock_file_creation(tenant uuid, is_exclusive boolean) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    key constant bigint := hashtextextended('file creation ' || tenant::text, 0);
BEGIN
    IF is_exclusive THEN
        PERFORM pg_advisory_xact_lock(key);
    ELSE
        PERFORM pg_advisory_xact_lock_shared(key);
    END IF;
END
$$;
