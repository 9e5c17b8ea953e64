-- Counts the bytes of objects that no blob references in the row of the quota, like `app.count_pending_deletion`.
-- Their size never changes. A transaction must insert and delete them last, because this locks the row of the
-- quota.
CREATE OR REPLACE FUNCTION app.count_stray_objects() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        UPDATE public.quotas AS q SET pending_deletion_bytes = q.pending_deletion_bytes + added.bytes
        FROM (
            SELECT tenant_id, sum(size_bytes)::bigint AS bytes FROM objects_after
            GROUP BY tenant_id HAVING sum(size_bytes) <> 0
        ) AS added
        WHERE q.tenant_id = added.tenant_id;
    ELSE
        UPDATE public.quotas AS q SET pending_deletion_bytes = q.pending_deletion_bytes - ended.bytes
        FROM (
            SELECT tenant_id, sum(size_bytes)::bigint AS bytes FROM objects_before
            GROUP BY tenant_id HAVING sum(size_bytes) <> 0
        ) AS ended
        WHERE q.tenant_id = ended.tenant_id;
    END IF;
    RETURN NULL;
END
$$;
