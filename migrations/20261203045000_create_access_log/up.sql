-- The access log, and the attempts of visitors of shares.

-- The attempts to read a file with a share. Inserted in the transaction that decides about the attempt, before the first
-- byte is sent. Partitioned by time, so that retention drops partitions.
CREATE SEQUENCE access_log_numbers CACHE 32;
GRANT USAGE ON SEQUENCE access_log_numbers TO strongroom_app, strongroom_system;
CREATE TABLE access_log (
    tenant_id uuid NOT NULL,
    create_time timestamptz NOT NULL,
    n bigint NOT NULL DEFAULT nextval('access_log_numbers'),
    file_id uuid NOT NULL,
    -- null before the version is known
    version integer,
    -- null for access without a share
    share_id uuid,
    -- null for a visitor
    actor_kind smallint CHECK (actor_kind BETWEEN {actor_kind.user} AND {actor_kind.system}),
    actor_id text COLLATE "C" NOT NULL,
    call_id text COLLATE "C" NOT NULL,
    address text COLLATE "C" NOT NULL,
    user_agent text NOT NULL CHECK (length(user_agent) <= 255),
    -- resolve, view, download
    action smallint NOT NULL CHECK (action BETWEEN {access_action.resolve} AND {access_action.download}),
    is_granted boolean NOT NULL,
    -- empty if granted
    denial_reason text NOT NULL CHECK (length(denial_reason) <= 255),
    purpose text NOT NULL CHECK (length(purpose) <= 255),
    PRIMARY KEY (tenant_id, create_time, n),
    CHECK (is_granted = (denial_reason = '')),
    CHECK ((actor_kind IS NULL) = (actor_id = ''))
) PARTITION BY RANGE (create_time);
-- Query `list access to file`.
CREATE INDEX access_log_by_file ON access_log (tenant_id, file_id, create_time, n);
-- Query `list access to share`.
CREATE INDEX access_log_by_share ON access_log (tenant_id, share_id, create_time, n) WHERE share_id IS NOT NULL;
CALL app.protect('access_log');
GRANT INSERT ON access_log TO strongroom_app;
-- `app.erase_tenant_rows` and `app.drop_partitions` run as the owner.
CREATE TABLE access_log_default PARTITION OF access_log DEFAULT;
CALL app.protect('access_log_default');
SELECT app.create_partitions('access_log', '1 month', now(), 2);

-- The failed attempts of visitors in the current window, by bucket: a hash of an address, of a share, or of both. The
-- number of buckets is fixed, so an attacker with any number of addresses adds a bounded number of rows.
--
-- Attempts with an unknown token belong to no tenant: their rows have the nil UUID.
CREATE TABLE visitor_attempts (
    tenant_id uuid NOT NULL,
    -- address, share, share_address, log
    scope smallint NOT NULL CHECK (scope BETWEEN {attempt_scope.address} AND {attempt_scope.log}),
    bucket integer NOT NULL CHECK (bucket BETWEEN 0 AND 16383),
    window_start_time timestamptz NOT NULL,
    attempts integer NOT NULL CHECK (attempts >= 0),
    PRIMARY KEY (tenant_id, scope, bucket)
);
CALL app.protect('visitor_attempts');
GRANT INSERT, UPDATE ON visitor_attempts TO strongroom_app;
