-- Quotas, one row per tenant. The CHECKs guarantee that `used + reserved` never exceeds the limit, even if
-- the code has a bug.
CREATE TABLE quotas (
    tenant_id uuid PRIMARY KEY REFERENCES tenants (id),
    limit_bytes bigint NOT NULL CHECK (limit_bytes >= 0),
    used_bytes bigint NOT NULL DEFAULT 0 CHECK (used_bytes >= 0),
    reserved_bytes bigint NOT NULL DEFAULT 0 CHECK (reserved_bytes >= 0),
    -- 0 means no limit
    file_count_max bigint NOT NULL CHECK (file_count_max >= 0),
    file_count bigint NOT NULL DEFAULT 0 CHECK (file_count >= 0),
    reserved_file_count bigint NOT NULL DEFAULT 0 CHECK (reserved_file_count >= 0),
    warning_percent smallint NOT NULL CHECK (warning_percent BETWEEN 1 AND 100),
    critical_percent smallint NOT NULL CHECK (critical_percent BETWEEN warning_percent AND 100),
    image_bytes_max bigint NOT NULL CHECK (image_bytes_max >= 0),
    video_bytes_max bigint NOT NULL CHECK (video_bytes_max >= 0),
    audio_bytes_max bigint NOT NULL CHECK (audio_bytes_max >= 0),
    document_bytes_max bigint NOT NULL CHECK (document_bytes_max >= 0),
    other_bytes_max bigint NOT NULL CHECK (other_bytes_max >= 0),
    ceiling_bytes bigint NOT NULL CHECK (ceiling_bytes >= limit_bytes),
    -- 0 means no limit
    ceiling_file_count bigint NOT NULL CHECK (
        ceiling_file_count = 0 OR (file_count_max > 0 AND file_count_max <= ceiling_file_count)),
    revision bigint NOT NULL DEFAULT 1,
    update_time timestamptz NOT NULL,
    CONSTRAINT quotas_bytes CHECK (used_bytes + reserved_bytes <= limit_bytes),
    CONSTRAINT quotas_files CHECK (file_count_max = 0 OR file_count + reserved_file_count <= file_count_max)
) WITH (fillfactor = 50);
CALL app.protect('quotas');
GRANT UPDATE ON quotas TO strongroom_app;
GRANT INSERT, UPDATE ON quotas TO strongroom_system;

-- Usage per category and media kind, updated in the same transaction as the files.
CREATE TABLE usage_counters (
    tenant_id uuid NOT NULL,
    category text COLLATE "C" NOT NULL,
    -- image, video, audio, document, other
    media_kind smallint NOT NULL CHECK (media_kind BETWEEN {media_kind.image} AND {media_kind.other}),
    file_count bigint NOT NULL CHECK (file_count >= 0),
    total_bytes bigint NOT NULL CHECK (total_bytes >= 0),
    PRIMARY KEY (tenant_id, category, media_kind)
) WITH (fillfactor = 50);
CALL app.protect('usage_counters');
GRANT INSERT, UPDATE ON usage_counters TO strongroom_app;
