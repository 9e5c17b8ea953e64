-- The roles of the service. Idempotent. Runs before the migrations and requires permission to create roles.
-- The roles cannot log in: grant them to login roles (GRANT strongroom_app TO my_login).
--   strongroom_migrate  owns all tables and applies migrations
--   strongroom_app      serves requests; owns nothing; row-level security limits it to one tenant
--   strongroom_system   works across tenants, for background work and operators
--   strongroom_backup   reads all rows
DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['strongroom_migrate', 'strongroom_app', 'strongroom_system', 'strongroom_backup'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE', role);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL; -- created concurrently from another database of this cluster
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
