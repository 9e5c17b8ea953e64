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
            'UPDATE public.%1$I SET %2$I = substr(%2$I, 9) WHERE %2$I LIKE ''service:%%''',
            place.table_name, place.column_name);
    END LOOP;
    UPDATE public.tenants AS changed SET external_id = substr(changed.external_id, 9)
    WHERE changed.kind = {tenant_kind.person} AND changed.external_id LIKE 'service:%'
      AND NOT EXISTS (SELECT FROM public.tenants AS named
                      WHERE named.kind = changed.kind AND named.issuer = changed.issuer
                        AND named.external_id = substr(changed.external_id, 9));
END
$$;
