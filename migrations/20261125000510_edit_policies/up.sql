-- Admins of a tenant can edit its policy. The revision is the etag of the policy.
ALTER TABLE tenants ADD COLUMN policy_revision bigint NOT NULL DEFAULT 1;
CREATE POLICY edit ON tenants FOR UPDATE TO strongroom_app USING (true) WITH CHECK (true);
GRANT UPDATE (policy, policy_revision) ON tenants TO strongroom_app;

-- Locks the creation of files of a tenant. Commits hold the lock shared; changes of the categories or the
-- state of the tenant hold it exclusively, so that these do not change during a commit. It is an advisory
-- lock, because a row lock would cause contention.
CREATE FUNCTION app.lock_file_creation(tenant uuid, is_exclusive boolean) RETURNS void
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

-- Rejects new files in a category that was deleted after their upload was admitted. Transactions without a
-- tenant context are not checked, because they do not serve requests.
CREATE FUNCTION app.check_created_files() RETURNS trigger
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
CREATE TRIGGER created_files AFTER INSERT ON files REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION app.check_created_files();

-- Rejects moves of files into a deleted category.
CREATE FUNCTION app.check_category_change() RETURNS trigger
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
CREATE TRIGGER category_change BEFORE UPDATE OF category ON files
    FOR EACH ROW WHEN (OLD.category <> NEW.category) EXECUTE FUNCTION app.check_category_change();
