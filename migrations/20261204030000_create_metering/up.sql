-- Metering: the prices of a tenant, and what its users have paid; see `docs/decisions/0018-metering.md`.

SET LOCAL lock_timeout = '10s';

-- The prices. An operator sets them with `UpdateTenant`; 0 means free.
ALTER TABLE tenants
    ADD COLUMN download_credits bigint NOT NULL DEFAULT 0 CHECK (download_credits BETWEEN 0 AND 1000000),
    ADD COLUMN gib_day_credits bigint NOT NULL DEFAULT 0 CHECK (gib_day_credits BETWEEN 0 AND 1000000);
GRANT UPDATE (download_credits, gib_day_credits) ON tenants TO strongroom_app;

-- What the sharer has paid for the download of a grant, until it is refunded.
ALTER TABLE share_grants ADD COLUMN paid_credits bigint NOT NULL DEFAULT 0 CHECK (paid_credits >= 0);

-- The last day in UTC for which all owners of a tenant were charged for their storage.
ALTER TABLE usage_measurements ADD COLUMN charged_day date;

-- The versions that users have paid to download. A payment is valid for 24 hours.
CREATE TABLE paid_downloads (
    tenant_id uuid NOT NULL,
    user_id text COLLATE "C" NOT NULL CHECK (user_id <> ''),
    file_id uuid NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    pay_time timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, user_id, file_id, version)
);
-- Query `delete expired download payments`.
CREATE INDEX paid_downloads_by_time ON paid_downloads (pay_time);
CALL app.protect('paid_downloads');
GRANT INSERT ON paid_downloads TO strongroom_app;
GRANT UPDATE (pay_time) ON paid_downloads TO strongroom_app;
GRANT DELETE ON paid_downloads TO strongroom_system;

-- What the storage of an owner cost on a day in UTC. No role of the service may update charges.
CREATE TABLE storage_charges (
    tenant_id uuid NOT NULL,
    user_id text COLLATE "C" NOT NULL CHECK (user_id <> ''),
    day date NOT NULL,
    due_credits bigint NOT NULL CHECK (due_credits > 0),
    -- less than `due_credits` if the owner had too few credits
    paid_credits bigint NOT NULL CHECK (paid_credits BETWEEN 0 AND due_credits),
    PRIMARY KEY (tenant_id, user_id, day)
);
-- Query `delete expired storage charges`.
CREATE INDEX storage_charges_by_day ON storage_charges (day);
CALL app.protect('storage_charges');
GRANT INSERT ON storage_charges TO strongroom_app;
GRANT DELETE ON storage_charges TO strongroom_system;
