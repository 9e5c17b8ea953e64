-- Tenants: organizations and persons. This is the only table that is not keyed by tenant, because it maps the
-- names at the identity provider (kind, issuer, external id) to tenant ids. strongroom_app sees only the row
-- of its tenant. The row of a deleted tenant remains as a tombstone, so that a request with its name does not
-- create the tenant again; only an operator can create a new tenant with that name.
CREATE TABLE tenants (
    id uuid PRIMARY KEY,
    -- organization, person
    kind smallint NOT NULL CHECK (kind IN ({tenant_kind.organization}, {tenant_kind.person})),
    issuer text COLLATE "C" NOT NULL,
    external_id text COLLATE "C" NOT NULL CHECK (char_length(external_id) BETWEEN 1 AND 255),
    policy jsonb NOT NULL,
    create_time timestamptz NOT NULL,
    -- the etag of the policy
    policy_revision bigint NOT NULL DEFAULT 1,
    -- active, suspended, deleting, deleted
    state smallint NOT NULL DEFAULT {tenant_state.active}
        CHECK (state BETWEEN {tenant_state.active} AND {tenant_state.deleted}),
    state_time timestamptz,
    state_reason text NOT NULL DEFAULT '',
    -- the request by which an operator created the tenant
    create_request_id uuid,
    create_payload_sha256 bytea CHECK (octet_length(create_payload_sha256) = 32),
    -- the amount of data when the deletion started, and the amount erased so far
    deletion_file_count bigint NOT NULL DEFAULT 0,
    deletion_object_count bigint NOT NULL DEFAULT 0,
    deletion_bytes bigint NOT NULL DEFAULT 0,
    erased_row_count bigint NOT NULL DEFAULT 0,
    erased_object_count bigint NOT NULL DEFAULT 0,
    erased_bytes bigint NOT NULL DEFAULT 0,
    deletion_problem text NOT NULL DEFAULT ''
);
-- Query `create tenant`: a name belongs to one tenant that is not deleted.
CREATE UNIQUE INDEX tenants_unique_name ON tenants (kind, issuer, external_id)
    WHERE state <> {tenant_state.deleted};
-- Query `find tenant by name`, which also finds deleted tenants.
CREATE INDEX tenants_by_name ON tenants (kind, issuer, external_id);
-- Query `find tenant by request`: a repeated request finds the tenant that it created.
CREATE UNIQUE INDEX tenants_by_create_request ON tenants (create_request_id) WHERE create_request_id IS NOT NULL;
-- Query `list tenants to delete`.
CREATE INDEX tenants_to_delete ON tenants (id) WHERE state = {tenant_state.deleting};

ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenants FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tenants AS RESTRICTIVE TO strongroom_app
    USING (id = (SELECT app.tenant_id())) WITH CHECK (id = (SELECT app.tenant_id()));
CREATE POLICY visible ON tenants FOR SELECT TO strongroom_app USING (true);
CREATE POLICY edit ON tenants FOR UPDATE TO strongroom_app USING (true) WITH CHECK (true);
CREATE POLICY system ON tenants TO strongroom_system USING (true) WITH CHECK (true);
CREATE POLICY backup ON tenants FOR SELECT TO strongroom_backup USING (true);
CREATE POLICY migrate ON tenants TO strongroom_migrate USING (true) WITH CHECK (true);
GRANT SELECT ON tenants TO strongroom_app, strongroom_backup;
GRANT SELECT, INSERT ON tenants TO strongroom_system;
-- Admins of a tenant edit its policy.
GRANT UPDATE (policy, policy_revision) ON tenants TO strongroom_app;
GRANT UPDATE (state, state_time, state_reason, deletion_file_count, deletion_object_count, deletion_bytes)
    ON tenants TO strongroom_app;
GRANT UPDATE (state, state_time, erased_row_count, erased_object_count, erased_bytes, deletion_problem)
    ON tenants TO strongroom_system;

{function.guard_tenant_transition}
CREATE TRIGGER tenant_transition BEFORE UPDATE OF state ON tenants
    FOR EACH ROW WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION app.guard_tenant_transition();
