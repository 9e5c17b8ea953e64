-- Rejects moves of files into a deleted category.
CREATE OR REPLACE FUNCTION app.check_category_change() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    IF app.tenant_id() IS NULL THEN
        RETURN NEW;
    END IF;
    PERFORM app.lock_file_creation(NEW.tenant_id, false);
    -- A separate statement, so that it sees the changes of the previous lock holder.
    IF NOT EXISTS (
        SELECT FROM public.tenants AS t WHERE t.id = NEW.tenant_id AND t.policy -> 'categories' ? NEW.category)
    THEN
        RAISE EXCEPTION 'the category does not exist'
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = 'file_category_exists';
    END IF;
    RETURN NEW;
END
$$;
