-- A tenant's admins edit its own copy of the policy. The revision is its etag.
ALTER TABLE tenants ADD COLUMN policy_revision bigint NOT NULL DEFAULT 1;
CREATE POLICY edit ON tenants FOR UPDATE TO strongroom_app USING (true) WITH CHECK (true);
GRANT UPDATE (policy, policy_revision) ON tenants TO strongroom_app;

-- What new files depend on (the categories of their tenant) must not change while they are being committed. Every commit
-- holds this lock shared, which costs no row; whoever changes those things holds it alone, for an instant.
CREATE FUNCTION app.lock_births(tenant uuid, is_alone boolean) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    number constant bigint := hashtextextended('births of ' || tenant::text, 0);
BEGIN
    IF is_alone THEN
        PERFORM pg_advisory_xact_lock(number);
    ELSE
        PERFORM pg_advisory_xact_lock_shared(number);
    END IF;
END
$$;

-- No file is born into a category that was removed since its upload was admitted. Whoever works without the context of a
-- tenant is not serving anyone.
CREATE FUNCTION app.check_births() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    IF app.tenant_id() IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM app.lock_births(app.tenant_id(), false);
    -- A statement of its own, so that it sees what the lock's last holder committed.
    IF EXISTS (
        SELECT FROM born AS b JOIN public.tenants AS t ON t.id = b.tenant_id
        WHERE NOT t.policy -> 'categories' ? b.category)
    THEN
        RAISE EXCEPTION 'the category is not there any more'
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = 'file_category_exists';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER births AFTER INSERT ON files REFERENCING NEW TABLE AS born
    FOR EACH STATEMENT EXECUTE FUNCTION app.check_births();

-- Nor does a file move into one.
CREATE FUNCTION app.check_category() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    IF app.tenant_id() IS NULL THEN
        RETURN NEW;
    END IF;
    PERFORM app.lock_births(NEW.tenant_id, false);
    -- A statement of its own, so that it sees what the lock's last holder committed.
    IF NOT EXISTS (
        SELECT FROM public.tenants AS t WHERE t.id = NEW.tenant_id AND t.policy -> 'categories' ? NEW.category)
    THEN
        RAISE EXCEPTION 'the category is not there any more'
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = 'file_category_exists';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER category_moves BEFORE UPDATE OF category ON files
    FOR EACH ROW WHEN (OLD.category <> NEW.category) EXECUTE FUNCTION app.check_category();
