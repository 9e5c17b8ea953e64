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
END
$$;
