DROP TABLE tenants;
DROP FUNCTION app.guard_tenant_transition();
