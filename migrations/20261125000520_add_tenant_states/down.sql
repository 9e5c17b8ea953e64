DROP FUNCTION app.erase_tenant_rows(uuid, integer);
DROP TRIGGER tenant_is_active ON files;
DROP TRIGGER tenant_is_active ON uploads;
DROP TRIGGER tenant_is_active ON versions;
DROP FUNCTION app.check_tenant_is_active();
DROP TRIGGER tenant_transition ON tenants;
DROP FUNCTION app.guard_tenant_transition();
REVOKE UPDATE ON tenants FROM strongroom_system;
DROP INDEX tenants_to_delete, tenants_by_create_request, tenants_by_name, tenants_unique_name;
ALTER TABLE tenants
    DROP COLUMN state, DROP COLUMN state_time, DROP COLUMN state_reason, DROP COLUMN create_request_id,
    DROP COLUMN create_payload_sha256, DROP COLUMN deletion_file_count, DROP COLUMN deletion_object_count,
    DROP COLUMN deletion_bytes, DROP COLUMN erased_row_count, DROP COLUMN erased_object_count,
    DROP COLUMN erased_bytes, DROP COLUMN deletion_problem,
    ADD CONSTRAINT tenants_kind_issuer_external_id_key UNIQUE (kind, issuer, external_id);
