-- Counts the bytes of blobs that no version references and whose objects are not deleted yet. The trigger is
-- deferred to the end of the transaction, because the row of the quota is locked last.
CREATE OR REPLACE FUNCTION app.count_pending_deletion() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    added_bytes bigint := 0;
BEGIN
    IF OLD.delete_after IS NOT NULL THEN
        added_bytes := -OLD.size_bytes;
    END IF;
    IF TG_OP = 'UPDATE' AND NEW.delete_after IS NOT NULL THEN
        added_bytes := added_bytes + NEW.size_bytes;
    END IF;
    UPDATE public.quotas SET pending_deletion_bytes = pending_deletion_bytes + added_bytes
    WHERE tenant_id = OLD.tenant_id;
    RETURN NULL;
END
$$;
