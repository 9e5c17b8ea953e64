-- The downloads of visitors; see `docs/decisions/0016-visitors.md`.

SET LOCAL lock_timeout = '10s';

-- The grants that visitors have used. A grant is one download, however many requests it takes. A grant that was not
-- used has no row.
CREATE TABLE share_grants (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    share_id uuid NOT NULL,
    -- whether the download or view is counted in the share
    is_counted boolean NOT NULL DEFAULT false,
    -- The bytes that were sent, and those that may still be sent by running requests.
    served_bytes bigint NOT NULL DEFAULT 0 CHECK (served_bytes >= 0),
    -- The number of requests. Each reads at least a block of the object, however few bytes it serves.
    use_count integer NOT NULL DEFAULT 0 CHECK (use_count >= 0),
    expire_time timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, share_id) REFERENCES shares (tenant_id, id) ON DELETE CASCADE
);
-- Queries `delete shares of file` and `delete closed shares`, which delete the grants of a share.
CREATE INDEX share_grants_by_share ON share_grants (tenant_id, share_id);
-- Query `delete expired share grants`.
CREATE INDEX share_grants_by_end ON share_grants (expire_time);
CALL app.protect('share_grants');
GRANT INSERT, UPDATE ON share_grants TO strongroom_app;
GRANT DELETE ON share_grants TO strongroom_system;
