-- The roles of the service. Idempotent; run before the versioned migrations, by whoever may create roles.
-- They cannot log in: grant them to login roles (GRANT strongroom_app TO my_login), or give them a password.
--   strongroom_migrate  owns every table and applies migrations
--   strongroom_app      serves requests: owns nothing, bound by row-level security to one tenant a transaction
--   strongroom_system   finds work across tenants: few functions of the service use it
--   strongroom_backup   reads everything
DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['strongroom_migrate', 'strongroom_app', 'strongroom_system', 'strongroom_backup'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE', role);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL; -- another database of this cluster was being migrated at the same moment
            END;
        END IF;
    END LOOP;
    IF NOT pg_has_role(current_user, 'strongroom_migrate', 'MEMBER') THEN
        EXECUTE format('GRANT strongroom_migrate TO %I', current_user);
    END IF;
    EXECUTE format('GRANT CREATE ON DATABASE %I TO strongroom_migrate', current_database());
END
$$;
GRANT CREATE, USAGE ON SCHEMA public TO strongroom_migrate;
GRANT USAGE ON SCHEMA public TO strongroom_app, strongroom_system, strongroom_backup;
