SET LOCAL lock_timeout = '10s';

ALTER POLICY visible ON files USING (
    audience >= (SELECT app.audience_min())
    OR owner_id = (SELECT app.user_id())
    OR EXISTS (
        SELECT FROM public.file_readers AS reader
        WHERE reader.tenant_id = files.tenant_id AND reader.file_id = files.id
          AND reader.principal = ANY ((SELECT app.principals())::text[])
    )
);
DELETE FROM file_readers WHERE NOT is_by_policy;
ALTER TABLE file_readers
    DROP COLUMN delete_end_time, DROP COLUMN download_end_time, DROP COLUMN view_end_time, DROP COLUMN is_by_policy;
DROP TABLE file_grants;
