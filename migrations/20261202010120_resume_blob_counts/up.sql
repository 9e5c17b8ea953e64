-- The blobs that scrubbing must read, and those without a copy, are counted a part at a time, so that a count makes
-- progress however many blobs there are.

SET LOCAL lock_timeout = '10s';

-- The count in progress: its sum, and the times of verification up to which blobs and copies are counted. Null before
-- the first part.
ALTER TABLE scrubs
    ADD COLUMN counted_bytes bigint NOT NULL DEFAULT 0 CHECK (counted_bytes >= 0),
    ADD COLUMN counted_blob_time timestamptz,
    ADD COLUMN counted_replica_time timestamptz;

-- The count in progress: its sums, and the position up to which blobs are counted. The provider is null without one,
-- and the rest is null before the first part of a provider.
ALTER TABLE replications
    ADD COLUMN counted_blob_count bigint NOT NULL DEFAULT 0 CHECK (counted_blob_count >= 0),
    ADD COLUMN counted_bytes bigint NOT NULL DEFAULT 0 CHECK (counted_bytes >= 0),
    ADD COLUMN counted_oldest_time timestamptz,
    ADD COLUMN counted_provider text COLLATE "C",
    ADD COLUMN counted_tenant_id uuid,
    ADD COLUMN counted_create_time timestamptz;
