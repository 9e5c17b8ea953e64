-- Tenants: organizations and persons. This is the only table that is not keyed by tenant, because it maps the
-- names at the identity provider (kind, issuer, external id) to tenant ids. strongroom_app sees only the row
-- of its tenant.
CREATE TABLE tenants (
    id uuid PRIMARY KEY,
    kind smallint NOT NULL CHECK (kind IN (1, 2)),
    issuer text COLLATE "C" NOT NULL,
    external_id text COLLATE "C" NOT NULL CHECK (char_length(external_id) BETWEEN 1 AND 255),
    policy jsonb NOT NULL,
    create_time timestamptz NOT NULL,
    UNIQUE (kind, issuer, external_id)
);
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenants FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tenants AS RESTRICTIVE TO strongroom_app
    USING (id = (SELECT app.tenant_id())) WITH CHECK (id = (SELECT app.tenant_id()));
CREATE POLICY visible ON tenants FOR SELECT TO strongroom_app USING (true);
CREATE POLICY system ON tenants TO strongroom_system USING (true) WITH CHECK (true);
CREATE POLICY backup ON tenants FOR SELECT TO strongroom_backup USING (true);
CREATE POLICY migrate ON tenants TO strongroom_migrate USING (true) WITH CHECK (true);
GRANT SELECT ON tenants TO strongroom_app, strongroom_backup;
GRANT SELECT, INSERT ON tenants TO strongroom_system;
