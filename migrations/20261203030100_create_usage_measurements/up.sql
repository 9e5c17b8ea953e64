-- What a tenant stores, measured in the background: its parts, its owners, and one sample a day.

-- The last measurement of a tenant. The three parts contain every stored version once.
CREATE TABLE usage_measurements (
    tenant_id uuid PRIMARY KEY,
    measure_time timestamptz NOT NULL,
    -- the current versions of files outside the trash
    file_count bigint NOT NULL CHECK (file_count >= 0),
    current_bytes bigint NOT NULL CHECK (current_bytes >= 0),
    -- the other versions of these files
    old_version_count bigint NOT NULL CHECK (old_version_count >= 0),
    old_version_bytes bigint NOT NULL CHECK (old_version_bytes >= 0),
    -- the files in the trash, with all of their versions
    trash_file_count bigint NOT NULL CHECK (trash_file_count >= 0),
    trash_bytes bigint NOT NULL CHECK (trash_bytes >= 0),
    -- the owners of all these files, of which only the largest are in `owner_usage`
    owner_count bigint NOT NULL CHECK (owner_count >= 0)
);
CALL app.protect('usage_measurements');
GRANT INSERT, UPDATE ON usage_measurements TO strongroom_system;

-- The owners with the most bytes at the last measurement; at most 1,000 of a tenant, so they are sorted when they are
-- listed.
CREATE TABLE owner_usage (
    tenant_id uuid NOT NULL,
    owner_id text COLLATE "C" NOT NULL,
    -- current versions, other versions and trash
    total_bytes bigint NOT NULL CHECK (total_bytes >= 0),
    file_count bigint NOT NULL CHECK (file_count >= 0),
    old_version_bytes bigint NOT NULL CHECK (old_version_bytes >= 0),
    trash_file_count bigint NOT NULL CHECK (trash_file_count >= 0),
    trash_bytes bigint NOT NULL CHECK (trash_bytes >= 0),
    PRIMARY KEY (tenant_id, owner_id)
);
CALL app.protect('owner_usage');
GRANT INSERT, DELETE ON owner_usage TO strongroom_system;

-- One sample of the usage of a tenant for each day in UTC. The measurement that adds the sample of a day drops those
-- that are too old.
CREATE TABLE usage_samples (
    tenant_id uuid NOT NULL,
    day date NOT NULL,
    sample_time timestamptz NOT NULL,
    used_bytes bigint NOT NULL CHECK (used_bytes >= 0),
    limit_bytes bigint NOT NULL CHECK (limit_bytes >= 0),
    file_count bigint NOT NULL CHECK (file_count >= 0),
    old_version_bytes bigint NOT NULL CHECK (old_version_bytes >= 0),
    trash_bytes bigint NOT NULL CHECK (trash_bytes >= 0),
    PRIMARY KEY (tenant_id, day)
);
CALL app.protect('usage_samples');
GRANT INSERT, DELETE ON usage_samples TO strongroom_system;
