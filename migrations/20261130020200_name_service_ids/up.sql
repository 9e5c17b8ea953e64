-- The ids of services begin with `service:` from now on, because a user and a service with the same subject are
-- different callers. Renames the ids of services in existing rows. A service is an actor that the audit log knows
-- only as a service; where a user has acted under the same subject, rows stay the user's. Audit entries, which
-- contain the kind of the actor, do not change.
DO $$
DECLARE
    place record;
BEGIN
    FOR place IN
        SELECT * FROM (VALUES
            ('files', 'owner_id'), ('files', 'created_by'), ('files', 'updated_by'), ('files', 'hold_by'),
            ('versions', 'created_by'), ('attachments', 'created_by'), ('uploads', 'created_by'),
            ('tombstones', 'purged_by'), ('events', 'actor_id'), ('events', 'owner_id'),
            ('webhooks', 'created_by'), ('webhook_deliveries', 'actor_id')) AS p (table_name, column_name)
    LOOP
        EXECUTE format(
            'UPDATE public.%1$I AS changed SET %2$I = ''service:'' || changed.%2$I
             FROM (SELECT tenant_id, actor_id FROM public.audit_entries
                   WHERE actor_kind IN ({actor_kind.user}, {actor_kind.service}) AND actor_id NOT LIKE ''service:%%''
                   GROUP BY tenant_id, actor_id
                   HAVING bool_and(actor_kind = {actor_kind.service})) AS service
             WHERE changed.tenant_id = service.tenant_id AND changed.%2$I = service.actor_id',
            place.table_name, place.column_name);
    END LOOP;
    -- The tenant of a service without an organization is named by the id of the service. A name that is too long or
    -- already in use stays; the service then gets a new tenant.
    UPDATE public.tenants AS changed SET external_id = 'service:' || changed.external_id
    FROM (SELECT tenant_id, actor_id FROM public.audit_entries
          WHERE actor_kind IN ({actor_kind.user}, {actor_kind.service}) AND actor_id NOT LIKE 'service:%'
          GROUP BY tenant_id, actor_id
          HAVING bool_and(actor_kind = {actor_kind.service})) AS service
    WHERE changed.kind = {tenant_kind.person} AND changed.id = service.tenant_id
      AND changed.external_id = service.actor_id AND char_length(changed.external_id) <= 247
      AND NOT EXISTS (SELECT FROM public.tenants AS named
                      WHERE named.kind = changed.kind AND named.issuer = changed.issuer
                        AND named.external_id = 'service:' || changed.external_id);
END
$$;
