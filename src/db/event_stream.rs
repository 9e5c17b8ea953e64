//! Reads events in order, up to the bound of the current snapshot (`app.event_bound`). All transactions below it
//! have ended, so no later commit can add an event before a position that a reader has passed.

use std::sync::Arc;

use diesel::{
    ExpressionMethods as _, IntoSql as _, QueryDsl as _, QueryableByName, SelectableHelper as _,
    sql_types::{
        Array, BigInt, Bool, Integer, Nullable, Record, SmallInt, Text, Timestamptz, Uuid as SqlUuid,
    },
};

use super::{
    DbError, TenantTx,
    events::{EventKind, EventSubject, PositionRow, position_number, position_of},
    schema::events,
    sql::{
        OfTenant as _, query, sql, statement,
        xid::{Xid, Xid8},
    },
};
use crate::domain::{clock::Timestamp, event_position::EventPosition, ids::FileId};

/// A stored event.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    pub position: EventPosition,
    pub kind: EventKind,
    pub subject: EventSubject,
    /// The revision of the file after the change. 0 if the event is not about a file.
    pub revision: i64,
    pub actor_id: String,
    /// The start time of its transaction.
    pub create_time: Timestamp,
}

/// The place of an event in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventPlace {
    pub position: EventPosition,
    /// The start time of its transaction.
    pub time: Timestamp,
}

/// The readable range of the event stream in one database snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSnapshot {
    /// The upper bound. All events before it are committed and readable.
    pub position: EventPosition,
    /// The time of the snapshot.
    pub time: Timestamp,
    /// The incarnation of the database in each epoch, from epoch 0 to the newest one.
    pub incarnations: Arc<[String]>,
    /// The lower bound. Retention may have dropped older events; all later ones are stored.
    pub horizon: Timestamp,
}

/// The maximum by which an event can be older than one with a lower position. A transaction gets its id at
/// its first write, but its time when it begins. No transaction lasts nearly this long.
const EVENT_SKEW_MAX: chrono::Duration = chrono::Duration::hours(1);

impl StreamSnapshot {
    /// Returns whether all events since `time` are retained.
    pub fn retains_time(&self, time: Timestamp) -> bool {
        let oldest = time.checked_sub_signed(EVENT_SKEW_MAX);
        oldest.is_some_and(|oldest| oldest >= self.horizon)
    }

    /// Returns the incarnation of the database in an epoch, or `None` if the epoch has not begun.
    pub fn incarnation_of(&self, epoch: u16) -> Option<&str> {
        self.incarnations.get(usize::from(epoch)).map(String::as_str)
    }

    /// Returns whether transactions of this incarnation of the database can have written positions of an epoch.
    pub fn is_current(&self, epoch: u16) -> bool {
        epoch == self.position.epoch && self.position.xid < EventPosition::XID_MAX
    }
}

/// Events in order, and the snapshot that they were read in.
#[derive(Debug)]
pub struct EventBatch {
    /// The events that were visible to the viewer when they occurred.
    pub events: Vec<StoredEvent>,
    pub snapshot: StreamSnapshot,
}

/// A filter for events.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// The numbers of the event kinds; empty means all kinds of changes of files. May contain kinds of a newer
    /// release.
    pub kinds: Vec<i16>,
    /// Selects events of this file only.
    pub file: Option<FileId>,
}

#[derive(QueryableByName)]
struct SnapshotRow {
    #[diesel(sql_type = Integer)]
    bound_epoch: i32,
    #[diesel(sql_type = Xid8)]
    bound_xid: Xid,
    #[diesel(sql_type = Timestamptz)]
    time: Timestamp,
    #[diesel(sql_type = Array<Text>)]
    incarnations: Vec<String>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    horizon: Option<Timestamp>,
}

#[derive(QueryableByName)]
#[diesel(table_name = events)]
struct EventRow {
    #[diesel(embed)]
    position: PositionRow,
    kind: EventKind,
    file_id: FileId,
    version: i32,
    revision: i64,
    actor_id: String,
    create_time: Timestamp,
}

/// The snapshot, and one of the events in it.
#[derive(QueryableByName)]
struct BatchRow {
    #[diesel(embed)]
    snapshot: SnapshotRow,
    #[diesel(embed)]
    event: Option<EventRow>,
}

/// The snapshot, and the newest event in it.
#[derive(QueryableByName)]
struct NewestRow {
    #[diesel(embed)]
    snapshot: SnapshotRow,
    #[diesel(embed)]
    newest: Option<PlaceRow>,
}

#[derive(QueryableByName)]
#[diesel(table_name = events)]
struct PlaceRow {
    #[diesel(embed)]
    position: PositionRow,
    create_time: Timestamp,
}

#[derive(QueryableByName)]
struct KnownRow {
    #[diesel(sql_type = Bool)]
    is_known: bool,
}

/// Reads the snapshot once per statement.
const SNAPSHOT: &str = "WITH moment AS MATERIALIZED (
    SELECT b.epoch AS bound_epoch, b.xid AS bound_xid, app.now() AS time, app.event_horizon() AS horizon,
        ARRAY(SELECT DISTINCT ON (p.epoch) p.incarnation FROM app.position_epochs AS p ORDER BY p.epoch) AS incarnations
    FROM app.event_bound() AS b)";

/// Reads events after a position, oldest first. Returns those that were visible to the viewer when they
/// occurred.
pub async fn read(
    tx: &mut TenantTx,
    after: EventPosition,
    filter: &EventFilter,
    limit: i64,
) -> Result<EventBatch, DbError> {
    const OPERATION: &str = "read events";
    // A lateral join, so that the events are from the snapshot.
    let text = sql!(
        "{snapshot}
         SELECT m.*, e.epoch, e.xid, e.n, e.kind, e.file_id, e.version, e.revision, e.actor_id,
            e.create_time
         FROM moment AS m LEFT JOIN LATERAL (
            SELECT * FROM events AS e
            WHERE e.tenant_id = $1 AND (e.epoch, e.xid, e.n) > ($2, $3, $4)
              AND (e.epoch, e.xid) < (m.bound_epoch, m.bound_xid)
              AND (cardinality($5) = 0 AND e.kind NOT IN ({webhook_disabled}, {quota_alert}) OR e.kind = ANY ($5))
              AND ($6 IS NULL OR e.file_id = $6)
            ORDER BY e.epoch, e.xid, e.n LIMIT $7) AS e ON true
         ORDER BY e.epoch, e.xid, e.n",
        snapshot = SNAPSHOT,
        webhook_disabled = EventKind::WebhookDisabled,
        quota_alert = EventKind::QuotaAlert,
    );
    let rows: Vec<BatchRow> = statement(OPERATION, text)
        .bind::<SqlUuid, _>(tx.tenant())
        .bind::<Integer, _>(i32::from(after.epoch))
        .bind::<Xid8, _>(Xid(after.xid))
        .bind::<BigInt, _>(position_number(after))
        .bind::<Array<SmallInt>, _>(filter.kinds.clone())
        .bind::<Nullable<SqlUuid>, _>(filter.file)
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await?;
    let first = rows.first().ok_or_else(|| DbError::corrupt(OPERATION, "missing snapshot"))?;
    let snapshot = first.snapshot.read(OPERATION)?;
    let events = rows.into_iter().filter_map(|row| row.event).map(|row| row.into_event(OPERATION));
    Ok(EventBatch { events: events.collect::<Result<_, _>>()?, snapshot })
}

/// Returns the current snapshot, and the newest event in it.
pub async fn get_newest(tx: &mut TenantTx) -> Result<(StreamSnapshot, Option<EventPlace>), DbError> {
    const OPERATION: &str = "find newest event";
    // A lateral join, so that the event is from the snapshot.
    let text = sql!(
        "{snapshot}
         SELECT m.*, e.epoch, e.xid, e.n, e.create_time
         FROM moment AS m LEFT JOIN LATERAL (
            SELECT e.epoch, e.xid, e.n, e.create_time FROM events AS e
            WHERE e.tenant_id = $1 AND (e.epoch, e.xid) < (m.bound_epoch, m.bound_xid)
            ORDER BY e.epoch DESC, e.xid DESC, e.n DESC LIMIT 1) AS e ON true",
        snapshot = SNAPSHOT,
    );
    let row: NewestRow =
        statement(OPERATION, text).bind::<SqlUuid, _>(tx.tenant()).one(tx.connection()?).await?;
    let newest = row.newest.map(|newest| newest.into_place(OPERATION)).transpose()?;
    Ok((row.snapshot.read(OPERATION)?, newest))
}

/// Returns whether the database knows the history up to a position that a reader has reached. It does not if it was
/// restored to an earlier time: the reader may have seen events of transactions that are lost.
///
/// `event_time` is the time of the event at the position, which must not have been dropped by retention. A reader of
/// the version before epochs has none. Its position may be between two events, so it is compared with the first
/// transaction of the next epoch, or, if transaction ids begin again in that epoch, with the newest event.
pub async fn is_known(
    tx: &mut TenantTx,
    position: EventPosition,
    event_time: Option<Timestamp>,
) -> Result<bool, DbError> {
    // A function of the server, and two tests of which one applies.
    let row: KnownRow = statement(
        "check position",
        "SELECT CASE
            WHEN $5 IS NOT NULL THEN EXISTS (
                SELECT FROM events AS e
                WHERE e.tenant_id = $1 AND e.create_time = $5 AND e.epoch = $2 AND e.xid = $3 AND e.n = $4)
            ELSE EXISTS (
                SELECT FROM events AS e WHERE e.tenant_id = $1 AND e.epoch = $2 AND (e.xid, e.n) >= ($3, $4))
              OR EXISTS (
                SELECT FROM app.position_epochs AS own, (
                    SELECT p.incarnation, p.begin_xid, 1 AS place FROM app.position_epochs AS p WHERE p.epoch = $2 + 1
                    UNION ALL
                    SELECT app.event_incarnation(), pg_snapshot_xmax(pg_current_snapshot()), 2
                    ORDER BY place, begin_xid LIMIT 1) AS next
                WHERE own.epoch = $2 AND next.begin_xid >= $3
                  AND split_part(next.incarnation, '-', 1) = split_part(own.incarnation, '-', 1)
                  AND split_part(next.incarnation, '-', 3) = split_part(own.incarnation, '-', 3))
         END AS is_known",
    )
    .bind::<SqlUuid, _>(tx.tenant())
    .bind::<Integer, _>(i32::from(position.epoch))
    .bind::<Xid8, _>(Xid(position.xid))
    .bind::<BigInt, _>(position_number(position))
    .bind::<Nullable<Timestamptz>, _>(event_time)
    .one(tx.connection()?)
    .await?;
    Ok(row.is_known)
}

/// Returns the last event that a reader of the version before epochs has seen. It has reached a position at a time.
/// Returns `None` if there is no such event, or if it was dropped by retention.
///
/// The position can be the bound of a snapshot. The ids below it can belong to transactions that were rolled back, and
/// a server that crashes before it has stored these ids assigns them again. Their events are later than the snapshot.
/// So are those of transactions that began while it was taken, which the reader may get again.
pub async fn find_last_seen(
    tx: &mut TenantTx,
    position: EventPosition,
    time: Timestamp,
) -> Result<Option<EventPlace>, DbError> {
    const OPERATION: &str = "find last seen event";
    // The bound is a row of the same table.
    let row: Option<PlaceRow> = statement(
        OPERATION,
        "WITH unseen AS MATERIALIZED (
             SELECT e.xid, e.n FROM events AS e
             WHERE e.tenant_id = $1 AND e.epoch = $2 AND (e.xid, e.n) < ($3, $4) AND e.create_time > $5
             ORDER BY e.xid, e.n LIMIT 1)
         SELECT e.epoch, e.xid, e.n, e.create_time FROM events AS e
         WHERE e.tenant_id = $1 AND e.epoch = $2 AND (e.xid, e.n) <= ($3, $4)
           AND NOT EXISTS (SELECT FROM unseen AS u WHERE (e.xid, e.n) >= (u.xid, u.n))
         ORDER BY e.xid DESC, e.n DESC LIMIT 1",
    )
    .bind::<SqlUuid, _>(tx.tenant())
    .bind::<Integer, _>(i32::from(position.epoch))
    .bind::<Xid8, _>(Xid(position.xid))
    .bind::<BigInt, _>(position_number(position))
    .bind::<Timestamptz, _>(time)
    .first(tx.connection()?)
    .await?;
    row.map(|row| row.into_place(OPERATION)).transpose()
}

/// Returns the position from which to continue after a reader has reached `time` in an incarnation without an epoch,
/// one that ended before the upgrade to this version.
///
/// It is the position before the first event that is not older than `time` minus the maximum skew. The reader
/// may see some events twice, but misses no retained event.
pub async fn find_position_at(
    tx: &mut TenantTx,
    time: Timestamp,
    snapshot: &StreamSnapshot,
) -> Result<EventPosition, DbError> {
    const OPERATION: &str = "find event by time";
    let oldest = time.checked_sub_signed(EVENT_SKEW_MAX).unwrap_or(Timestamp::MIN_UTC);
    let bound = (i32::from(snapshot.position.epoch), Xid(snapshot.position.xid));
    let event = events::table
        .of(tx.tenant())
        .filter(events::create_time.ge(oldest))
        .filter((events::epoch, events::xid).into_sql::<Record<(Integer, Xid8)>>().lt(bound))
        .order((events::epoch, events::xid, events::n))
        .limit(1)
        .select(PositionRow::as_select());
    let first: Option<PositionRow> = query(OPERATION, event).first(tx.connection()?).await?;
    let Some(first) = first else { return Ok(snapshot.position) };
    let first = first.into_position(OPERATION)?;
    // The numbers of events start at 1.
    Ok(EventPosition { n: first.n.saturating_sub(1), ..first })
}

impl SnapshotRow {
    fn read(&self, operation: &'static str) -> Result<StreamSnapshot, DbError> {
        Ok(StreamSnapshot {
            position: position_of(operation, self.bound_epoch, self.bound_xid, 0)?,
            time: self.time,
            incarnations: Arc::from(self.incarnations.as_slice()),
            // Without partitions, nothing has been dropped yet.
            horizon: self.horizon.unwrap_or(Timestamp::MIN_UTC),
        })
    }
}

impl EventRow {
    fn into_event(self, operation: &'static str) -> Result<StoredEvent, DbError> {
        Ok(StoredEvent {
            position: self.position.into_position(operation)?,
            kind: self.kind,
            subject: EventSubject::from_columns(self.kind, self.file_id, self.version),
            revision: self.revision,
            actor_id: self.actor_id,
            create_time: self.create_time,
        })
    }
}

impl PlaceRow {
    fn into_place(self, operation: &'static str) -> Result<EventPlace, DbError> {
        Ok(EventPlace { position: self.position.into_position(operation)?, time: self.create_time })
    }
}
