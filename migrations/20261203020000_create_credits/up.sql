-- Credits: an append-only ledger per user, and the balance of each user. A statement that changes a balance inserts the
-- entry of the change, so the balance always equals the sum of the entries.

-- Balances, one row per user with entries. The CHECK guarantees that no balance is negative, even if the code has a
-- bug.
CREATE TABLE credit_balances (
    tenant_id uuid NOT NULL,
    user_id text COLLATE "C" NOT NULL CHECK (user_id <> ''),
    balance bigint NOT NULL CHECK (balance >= 0),
    -- the number of the last entry
    entry_count bigint NOT NULL CHECK (entry_count > 0),
    update_time timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, user_id)
) WITH (fillfactor = 50);
CALL app.protect('credit_balances');
GRANT INSERT ON credit_balances TO strongroom_app;
GRANT UPDATE (balance, entry_count, update_time) ON credit_balances TO strongroom_app;

-- The ledger. No role of the service may update or delete entries; only the erasure of the tenant removes them. The
-- entries of a user are numbered without gaps. The primary key serves the lists `list credit entries` and
-- `list exported credit entries`.
CREATE TABLE credit_entries (
    tenant_id uuid NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    number bigint NOT NULL CHECK (number > 0),
    -- negative for a deduction
    amount bigint NOT NULL CHECK (amount <> 0),
    balance_after bigint NOT NULL CHECK (balance_after >= 0),
    reason text NOT NULL CHECK (reason <> ''),
    -- may be empty
    reference text NOT NULL,
    actor_kind smallint NOT NULL CHECK (actor_kind BETWEEN {actor_kind.user} AND {actor_kind.system}),
    actor_id text COLLATE "C" NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, user_id, number),
    FOREIGN KEY (tenant_id, user_id) REFERENCES credit_balances (tenant_id, user_id)
);
CALL app.protect('credit_entries');
GRANT INSERT ON credit_entries TO strongroom_app;
