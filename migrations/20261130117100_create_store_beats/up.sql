-- The identity of this installation, and the owner markers that it wrote to its stores. A store belongs to
-- the database that has the row of its marker; see `docs/decisions/0007-owner-markers.md`.

-- The installation: one row, which is created here and never changes. Copies of the database have the same
-- id. Only strongroom_system has access.
CREATE TABLE installations (
    id uuid PRIMARY KEY,
    create_time timestamptz NOT NULL
);
-- Allows one row only.
CREATE UNIQUE INDEX installations_single ON installations ((true));
ALTER TABLE installations ENABLE ROW LEVEL SECURITY;
ALTER TABLE installations FORCE ROW LEVEL SECURITY;
CREATE POLICY system ON installations FOR SELECT TO strongroom_system USING (true);
CREATE POLICY backup ON installations FOR SELECT TO strongroom_backup USING (true);
CREATE POLICY migrate ON installations TO strongroom_migrate USING (true) WITH CHECK (true);
GRANT SELECT ON installations TO strongroom_system, strongroom_backup;
INSERT INTO installations (id, create_time) VALUES (gen_random_uuid(), now());

-- The latest owner markers of each store, one row for each. A row is inserted before its marker is written. A
-- copy of the database, or an earlier state of it, lacks the markers that were written since. Only
-- strongroom_system has access.
CREATE TABLE store_beats (
    provider text COLLATE "C" NOT NULL,
    epoch bigint NOT NULL CHECK (epoch >= 1),
    beat bigint NOT NULL CHECK (beat >= 1),
    token uuid NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (provider, epoch, beat)
);
ALTER TABLE store_beats ENABLE ROW LEVEL SECURITY;
ALTER TABLE store_beats FORCE ROW LEVEL SECURITY;
CREATE POLICY system ON store_beats TO strongroom_system USING (true) WITH CHECK (true);
CREATE POLICY backup ON store_beats FOR SELECT TO strongroom_backup USING (true);
CREATE POLICY migrate ON store_beats TO strongroom_migrate USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, DELETE ON store_beats TO strongroom_system;
GRANT SELECT ON store_beats TO strongroom_backup;
