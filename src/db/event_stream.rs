//! Reads events in order, up to the xmin of the current snapshot. All transactions below xmin have ended, so
//! no later commit can add an event before a position that a reader has passed.

use diesel::{
    ExpressionMethods as _, QueryDsl as _, QueryableByName, SelectableHelper as _,
    sql_types::{Array, BigInt, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
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
    /// The revision of the file after the change. 0 if the event is about a webhook.
    pub revision: i64,
    pub actor_id: String,
    /// The start time of its transaction.
    pub create_time: Timestamp,
}

/// The readable range of the event stream in one database snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSnapshot {
    /// The upper bound. All events before it are committed and readable.
    pub position: EventPosition,
    /// The time of the snapshot.
    pub time: Timestamp,
    /// The incarnation of the database that positions belong to. It changes when the database is restored or
    /// fails over.
    pub incarnation: String,
    /// The lower bound. Retention may have dropped older events; all later ones are stored.
    pub horizon: Timestamp,
}

/// The maximum by which an event can be older than one with a lower position. A transaction gets its id at
/// its first write, but its time when it begins. No transaction lasts nearly this long.
const EVENT_SKEW_MAX: chrono::Duration = chrono::Duration::hours(1);

impl StreamSnapshot {
    /// Returns whether all events after a position are retained, if a reader reached it at `time` in this
    /// `incarnation`.
    pub fn retains_all_after(&self, time: Timestamp, incarnation: &str) -> bool {
        incarnation == self.incarnation && self.retains_time(time)
    }

    /// Returns whether all events since `time` are retained, in any incarnation.
    pub fn retains_time(&self, time: Timestamp) -> bool {
        let oldest = time.checked_sub_signed(EVENT_SKEW_MAX);
        oldest.is_some_and(|oldest| oldest >= self.horizon)
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
    #[diesel(sql_type = Xid8)]
    xmin: Xid,
    #[diesel(sql_type = Timestamptz)]
    time: Timestamp,
    #[diesel(sql_type = Text)]
    incarnation: String,
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

/// The snapshot, and the position of the newest event in it.
#[derive(QueryableByName)]
struct NewestRow {
    #[diesel(embed)]
    snapshot: SnapshotRow,
    #[diesel(embed)]
    newest: Option<PositionRow>,
}

/// Reads the snapshot once per statement.
const SNAPSHOT: &str = "WITH moment AS MATERIALIZED (
    SELECT pg_snapshot_xmin(pg_current_snapshot()) AS xmin, app.now() AS time, app.event_incarnation() AS incarnation,
        app.event_horizon() AS horizon)";

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
         SELECT m.xmin, m.time, m.incarnation, m.horizon, e.xid, e.n, e.kind, e.file_id, e.version, e.revision,
            e.actor_id, e.create_time
         FROM moment AS m LEFT JOIN LATERAL (
            SELECT * FROM events AS e
            WHERE e.tenant_id = $1 AND (e.xid, e.n) > ($2, $3) AND e.xid < m.xmin
              AND (cardinality($4) = 0 AND e.kind <> {webhook_disabled} OR e.kind = ANY ($4))
              AND ($5 IS NULL OR e.file_id = $5)
            ORDER BY e.xid, e.n LIMIT $6) AS e ON true
         ORDER BY e.xid, e.n",
        snapshot = SNAPSHOT,
        webhook_disabled = EventKind::WebhookDisabled,
    );
    let rows: Vec<BatchRow> = statement(OPERATION, text)
        .bind::<SqlUuid, _>(tx.tenant())
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

/// Returns the current snapshot, and the position of the newest event in it.
pub async fn get_newest(tx: &mut TenantTx) -> Result<(StreamSnapshot, Option<EventPosition>), DbError> {
    const OPERATION: &str = "find newest event";
    // A lateral join, so that the event is from the snapshot.
    let text = sql!(
        "{snapshot}
         SELECT m.xmin, m.time, m.incarnation, m.horizon, e.xid, e.n
         FROM moment AS m LEFT JOIN LATERAL (
            SELECT e.xid, e.n FROM events AS e WHERE e.tenant_id = $1 AND e.xid < m.xmin
            ORDER BY e.xid DESC, e.n DESC LIMIT 1) AS e ON true",
        snapshot = SNAPSHOT,
    );
    let row: NewestRow =
        statement(OPERATION, text).bind::<SqlUuid, _>(tx.tenant()).one(tx.connection()?).await?;
    let newest = row.newest.map(|newest| newest.into_position(OPERATION)).transpose()?;
    Ok((row.snapshot.read(OPERATION)?, newest))
}

/// Returns the position from which to continue after a reader has reached `time` in another incarnation.
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
    let event = events::table
        .of(tx.tenant())
        .filter(events::create_time.ge(oldest))
        .filter(events::xid.lt(Xid(snapshot.position.xid)))
        .order((events::xid, events::n))
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
            position: position_of(operation, self.xmin, 0)?,
            time: self.time,
            incarnation: self.incarnation.clone(),
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
