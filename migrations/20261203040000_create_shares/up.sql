-- Shares of files; see `docs/decisions/0015-shares.md`.

SET LOCAL lock_timeout = '10s';

{function.limit_shares_to_source}

-- Shares. A link (public_link, temporary) has a token and serves visitors without an account. The recipients of the
-- other shares are callers of the tenant.
CREATE TABLE shares (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    file_id uuid NOT NULL,
    -- public link, organization, users, group, temporary
    share_type smallint NOT NULL CHECK (share_type BETWEEN {share_type.public_link} AND {share_type.temporary}),
    -- view, download, delete
    permission smallint NOT NULL CHECK (permission BETWEEN {permission.view} AND {permission.delete}),
    -- The digest of the token. The token itself is not stored.
    token_hash bytea CHECK (octet_length(token_hash) = 32),
    -- Argon2id, in the PHC string format
    password_hash text COLLATE "C",
    -- Incremented by every rotation of the token, change of the password or permission, and by the revocation. A
    -- visitor's grant names it, and ends when it changes.
    secret_revision bigint NOT NULL DEFAULT 1 CHECK (secret_revision > 0),
    -- The version that the share serves; NULL means the current version at the time of reading.
    pinned_version integer CHECK (pinned_version > 0),
    expire_time timestamptz,
    max_downloads bigint CHECK (max_downloads > 0),
    -- Downloads and views change neither the revision nor the update time.
    download_count bigint NOT NULL DEFAULT 0 CHECK (download_count >= 0),
    view_count bigint NOT NULL DEFAULT 0 CHECK (view_count >= 0),
    last_access_time timestamptz,
    note text NOT NULL DEFAULT '',
    created_by text COLLATE "C" NOT NULL,
    -- The grant under which a caller who is neither owner nor admin shared the file. The share never exceeds it, and
    -- ends with it: see the trigger on `file_grants`.
    source_grant_id uuid,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    revision bigint NOT NULL DEFAULT 1,
    revoke_time timestamptz,
    PRIMARY KEY (tenant_id, id),
    -- The previous version does not delete shares when it purges a file.
    FOREIGN KEY (tenant_id, file_id) REFERENCES files (tenant_id, id) ON DELETE CASCADE,
    CHECK ((token_hash IS NOT NULL) = (share_type IN ({share_type.public_link}, {share_type.temporary}))),
    CHECK (token_hash IS NOT NULL OR (password_hash IS NULL AND max_downloads IS NULL AND pinned_version IS NULL)),
    CHECK (token_hash IS NULL OR permission < {permission.delete}),
    CHECK (share_type <> {share_type.temporary} OR expire_time IS NOT NULL),
    CHECK (download_count <= max_downloads)
) WITH (fillfactor = 70);
-- Query `find share by token`.
CREATE UNIQUE INDEX shares_by_token ON shares (tenant_id, token_hash) WHERE token_hash IS NOT NULL;
-- Queries `list shares of file`, `count shares of file`, `delete shares of file` and `delete closed shares of file`.
CREATE INDEX shares_by_file ON shares (tenant_id, file_id, id);
-- Query `list shares of creator`.
CREATE INDEX shares_by_creator ON shares (tenant_id, created_by, id);
-- Query `delete closed shares`: shares that end, by the time of their end.
CREATE INDEX shares_by_end ON shares (least(revoke_time, expire_time), tenant_id, id)
    WHERE least(revoke_time, expire_time) IS NOT NULL;
-- A share is hidden from callers that do not see its file, by the policies of `files`.
CALL app.protect('shares', $$
    EXISTS (SELECT FROM public.files AS f WHERE f.tenant_id = shares.tenant_id AND f.id = shares.file_id)
$$);
GRANT INSERT, UPDATE, DELETE ON shares TO strongroom_app;
-- FOR UPDATE needs the privilege to update a column.
GRANT UPDATE (revoke_time), DELETE ON shares TO strongroom_system;

-- Query `list shares of recipient`.
CREATE INDEX file_grants_by_recipient ON file_grants (tenant_id, principal, share_id) WHERE share_id IS NOT NULL;
-- A share ends with the grant under which it was created.
CREATE TRIGGER limit_shares AFTER DELETE OR UPDATE OF permission, expire_time ON file_grants
    FOR EACH ROW EXECUTE FUNCTION app.limit_shares_to_source();
