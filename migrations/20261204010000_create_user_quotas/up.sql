-- Quotas of users inside their tenant. See `docs/decisions/0017-user-quotas.md`.

SET LOCAL lock_timeout = '10s';

-- One row per user whose limits were ever set. All changes hold the lock of the tenant's row in `quotas`, so usage is
-- exact. The CHECKs guarantee the limits, even if the code has a bug.
CREATE TABLE user_quotas (
    tenant_id uuid NOT NULL REFERENCES quotas (tenant_id),
    user_id text COLLATE "C" NOT NULL CHECK (user_id <> ''),
    -- null means no limit
    limit_bytes bigint CHECK (limit_bytes >= 0),
    -- 0 means no limit
    file_count_max bigint NOT NULL DEFAULT 0 CHECK (file_count_max >= 0),
    used_bytes bigint NOT NULL DEFAULT 0,
    reserved_bytes bigint NOT NULL DEFAULT 0,
    file_count bigint NOT NULL DEFAULT 0,
    reserved_file_count bigint NOT NULL DEFAULT 0,
    -- Whether the files from before the row are counted. Until then, the columns above only contain later changes, and
    -- there are no limits.
    is_counted boolean NOT NULL DEFAULT false,
    revision bigint NOT NULL DEFAULT 1,
    update_time timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, user_id),
    CONSTRAINT user_quotas_counted CHECK (is_counted OR (limit_bytes IS NULL AND file_count_max = 0)),
    CONSTRAINT user_quotas_usage CHECK (
        NOT is_counted OR least(used_bytes, reserved_bytes, file_count, reserved_file_count) >= 0),
    CONSTRAINT user_quotas_bytes CHECK (used_bytes + reserved_bytes <= limit_bytes),
    CONSTRAINT user_quotas_files CHECK (file_count_max = 0 OR file_count + reserved_file_count <= file_count_max)
) WITH (fillfactor = 50);
CALL app.protect('user_quotas');
GRANT INSERT, UPDATE ON user_quotas TO strongroom_app;

-- The number of the tenant's rows in `user_quotas`. Without any, a commit does not look for them.
ALTER TABLE quotas ADD COLUMN user_quota_count integer NOT NULL DEFAULT 0;

-- The owner of the file that an upload creates or gives a new version, when it was opened. Its quota contains the
-- reservation. Null for uploads that earlier releases opened.
ALTER TABLE uploads ADD COLUMN owner_id text COLLATE "C";
