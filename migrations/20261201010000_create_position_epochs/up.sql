-- Positions of events and of audit entries are (epoch, xid, n). Transaction ids are those of one incarnation of the
-- database. After a restore, an upgrade of PostgreSQL or a failover, a new epoch begins, so that its positions are
-- greater than all former ones. See `docs/decisions/0009-position-epochs.md`.
SET LOCAL lock_timeout = '10s';

-- The epochs. `app.position_epoch` inserts the first rows of an epoch: one for each transaction that noticed the new
-- incarnation before one of them committed. They agree on the epoch, so that none waits for another one. It holds no
-- data of tenants.
CREATE TABLE app.position_epochs (
    -- A position in text form has 16 bits for it.
    epoch integer NOT NULL CHECK (epoch BETWEEN 0 AND 65535),
    incarnation text COLLATE "C" NOT NULL,
    -- The transaction that inserted this row. All events of former epochs in the history of this server have lower ones.
    begin_xid xid8 NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (epoch, begin_xid)
);
ALTER TABLE app.position_epochs ENABLE ROW LEVEL SECURITY;
ALTER TABLE app.position_epochs FORCE ROW LEVEL SECURITY;
CREATE POLICY readers ON app.position_epochs FOR SELECT TO strongroom_app, strongroom_system, strongroom_backup USING (true);
CREATE POLICY writers ON app.position_epochs FOR INSERT TO strongroom_app, strongroom_system
    WITH CHECK (begin_xid = pg_current_xact_id());
CREATE POLICY migrate ON app.position_epochs TO strongroom_migrate USING (true) WITH CHECK (true);
GRANT SELECT ON app.position_epochs TO strongroom_app, strongroom_system, strongroom_backup;
GRANT INSERT ON app.position_epochs TO strongroom_app, strongroom_system;
{function.event_incarnation}

-- The first epoch is that of the present incarnation, unless this database was restored from a dump of the previous
-- version and has not been used since. Then its webhooks have the positions of the former incarnation, or its events have
-- transaction ids that this server has not assigned yet. The first transaction that writes an event begins epoch 1.
WITH present AS (
    SELECT app.event_incarnation() AS incarnation
), active AS (
    SELECT w.incarnation, w.position_time, w.incarnation = p.incarnation AS is_present,
        split_part(w.incarnation, '-', 1) <> split_part(p.incarnation, '-', 1)
            OR split_part(w.incarnation, '-', 3) <> split_part(p.incarnation, '-', 3) AS is_restored
    FROM webhooks AS w, present AS p WHERE w.state = {webhook_state.active}
)
INSERT INTO app.position_epochs (epoch, incarnation, begin_xid, create_time)
SELECT 0, coalesce(
        (SELECT a.incarnation FROM active AS a WHERE a.is_restored AND NOT EXISTS (SELECT FROM active WHERE is_present)
         ORDER BY a.position_time DESC LIMIT 1),
        CASE WHEN NOT EXISTS (SELECT FROM events AS e WHERE e.xid >= pg_snapshot_xmax(pg_current_snapshot()))
            THEN p.incarnation ELSE 'unknown' END),
    pg_current_xact_id(), now()
FROM present AS p;

{function.position_epoch}

-- Existing rows belong to the first epoch. The default of new rows applies to the previous version as well.
ALTER TABLE events ADD COLUMN epoch integer NOT NULL DEFAULT 0;
ALTER TABLE events ALTER COLUMN epoch SET DEFAULT app.position_epoch();
ALTER TABLE audit_entries ADD COLUMN epoch integer NOT NULL DEFAULT 0;
ALTER TABLE audit_entries ALTER COLUMN epoch SET DEFAULT app.position_epoch();
ALTER TABLE webhooks ADD COLUMN position_epoch integer NOT NULL DEFAULT 0;
ALTER TABLE webhooks ALTER COLUMN position_epoch SET DEFAULT app.position_epoch();
ALTER TABLE webhook_deliveries ADD COLUMN position_epoch integer NOT NULL DEFAULT 0;
ALTER TABLE webhook_deliveries ALTER COLUMN position_epoch SET DEFAULT app.position_epoch();
