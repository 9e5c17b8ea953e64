-- Grants: permissions on single files for users, groups and the organization, with an optional expiry.

SET LOCAL lock_timeout = '10s';

-- The policy of `files` calls it.
{function.now}

-- Permissions on a file that people gave. A principal has the highest permission of its grants that have not expired.
CREATE TABLE file_grants (
    tenant_id uuid NOT NULL,
    file_id uuid NOT NULL,
    id uuid NOT NULL,
    -- in the form of `file_readers.principal`: a user, a service, a group or the organization
    principal text COLLATE "C" NOT NULL,
    -- view, download, delete; each includes the lower ones
    permission smallint NOT NULL CHECK (permission BETWEEN {permission.view} AND {permission.delete}),
    -- The share that created the grant; null for grants without a share.
    share_id uuid,
    -- The grant under which a caller who is neither owner nor admin gave this one. If that one ends, this one ends.
    source_id uuid CHECK (source_id <> id),
    -- null for grants that do not expire
    expire_time timestamptz,
    created_by text COLLATE "C" NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, file_id, id),
    CONSTRAINT file_grants_per_principal UNIQUE NULLS NOT DISTINCT (tenant_id, file_id, principal, share_id),
    -- The previous version does not delete grants when it purges a file.
    FOREIGN KEY (tenant_id, file_id) REFERENCES files (tenant_id, id) ON DELETE CASCADE
);
-- Query `list files with expired grants`.
CREATE INDEX file_grants_by_expiry ON file_grants (expire_time, tenant_id, file_id) WHERE expire_time IS NOT NULL;
-- Query `find grants of share`.
CREATE INDEX file_grants_by_share ON file_grants (tenant_id, share_id, file_id) WHERE share_id IS NOT NULL;
CALL app.protect('file_grants');
GRANT INSERT, DELETE, UPDATE (permission, source_id, expire_time, created_by, update_time) ON file_grants
    TO strongroom_app;

-- A reader by policy reads and downloads the file without an end. The grants of a principal add their permissions until
-- they expire: the times are the latest expiry of a grant that includes the permission, `infinity` if one does not
-- expire, and `-infinity` without a grant. The defaults are those of a reader by policy, which are the only ones
-- that the previous version inserts.
ALTER TABLE file_readers
    ADD COLUMN is_by_policy boolean NOT NULL DEFAULT true,
    ADD COLUMN view_end_time timestamptz NOT NULL DEFAULT 'infinity',
    ADD COLUMN download_end_time timestamptz NOT NULL DEFAULT 'infinity',
    ADD COLUMN delete_end_time timestamptz NOT NULL DEFAULT '-infinity';

-- The same access rule as in src/app/access.rs.
ALTER POLICY visible ON files USING (
    audience >= (SELECT app.audience_min())
    OR owner_id = (SELECT app.user_id())
    OR EXISTS (
        SELECT FROM public.file_readers AS reader
        WHERE reader.tenant_id = files.tenant_id AND reader.file_id = files.id
          AND reader.principal = ANY ((SELECT app.principals())::text[])
          AND reader.view_end_time > (SELECT app.now())
    )
);
