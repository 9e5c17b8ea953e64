-- Events, inserted in the transaction of each change. Partitioned by time, so that retention drops partitions
-- instead of deleting rows. The position of an event is (xid, n). Readers stop at the snapshot's xmin, so a
-- cursor never skips an event of a transaction that commits late.
CREATE SEQUENCE event_numbers CACHE 32;
GRANT USAGE ON SEQUENCE event_numbers TO strongroom_app, strongroom_system;
CREATE TABLE events (
    tenant_id uuid NOT NULL,
    create_time timestamptz NOT NULL,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    n bigint NOT NULL DEFAULT nextval('event_numbers'),
    -- an `EventKind` of src/db/events.rs
    kind smallint NOT NULL,
    file_id uuid NOT NULL,
    version integer NOT NULL,
    actor_id text COLLATE "C" NOT NULL,
    -- The viewers who could see the file immediately before or after the change. They are stored here,
    -- because the file may be purged or hidden when the event is read. The name is not stored: readers who
    -- may see the file read it from there.
    owner_id text COLLATE "C" NOT NULL,
    audience smallint NOT NULL CHECK (audience BETWEEN {visibility.owner} AND {visibility.organization}),
    readers text[] COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant_id, create_time, xid, n)
) PARTITION BY RANGE (create_time);
-- Queries `read events`, `find newest event` and `claim webhooks`, which read events after a position.
CREATE INDEX events_by_position ON events (tenant_id, xid, n);
-- An event is visible to viewers who could see the file immediately before or after the change. This is the
-- rule of `files`, applied to the columns of the event.
CALL app.protect('events', $$
    audience >= (SELECT app.audience_min())
    OR owner_id = (SELECT app.user_id())
    OR readers && (SELECT app.principals())::text[]
$$);
GRANT INSERT ON events TO strongroom_app, strongroom_system;
CREATE TABLE events_default PARTITION OF events DEFAULT;
CALL app.protect('events_default', $$
    audience >= (SELECT app.audience_min())
    OR owner_id = (SELECT app.user_id())
    OR readers && (SELECT app.principals())::text[]
$$);
-- Starts one month early, so that the first partition, before whose start events may have been dropped, is
-- older than any cursor.
SELECT app.create_partitions('events', '1 month', now() - interval '1 month', 3);
