-- Rejects new files in a category that was deleted after their upload was admitted. Transactions without a
-- tenant context are not checked, because they do not serve requests.
CREATE OR REPLACE FUNCTION app.check_created_files() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    IF app.tenant_id() IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM app.lock_file_creation(app.tenant_id(), false);
    -- A separate statement, so that it sees the changes of the previous lock holder.
    IF EXISTS (
        SELECT FROM inserted AS i JOIN public.tenants AS t ON t.id = i.tenant_id
        WHERE NOT t.policy -> 'categories' ? i.category)
    THEN
        RAISE EXCEPTION 'the category does not exist'
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = 'file_category_exists';
    END IF;
    RETURN NULL;
END
$$;
