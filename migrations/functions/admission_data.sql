-- Returns the tenant's quota, and the response stored under the request id, if there is one. The function
-- sets the tenant context of the transaction itself, so that both reads take one round trip. They are lookups
-- by primary key and take no locks.
CREATE OR REPLACE FUNCTION app.admission_data(tenant uuid, request uuid, idempotency_hours integer, now_override text)
    RETURNS TABLE (quota public.quotas, method smallint, payload_sha256 bytea, response jsonb)
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM set_config('app.tenant_id', tenant::text, true);
    IF now_override IS NOT NULL THEN
        PERFORM set_config('app.now', now_override, true);
    END IF;
    RETURN QUERY
        SELECT q, k.method, k.payload_sha256, k.response
        FROM public.quotas AS q
        LEFT JOIN public.idempotency_keys AS k ON k.tenant_id = q.tenant_id AND k.request_id = request
            AND k.create_time > app.now() - make_interval(hours => idempotency_hours)
        WHERE q.tenant_id = tenant
        LIMIT 1;
END
$$;
REVOKE ALL ON FUNCTION app.admission_data FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.admission_data TO strongroom_app;
