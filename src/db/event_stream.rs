//! Reads events in order, up to the xmin of the current snapshot. All transactions below xmin have ended, so
//! no later commit can add an event before a position that a reader has passed.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Integer, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, TenantTx,
    events::{EventKind, parse_position},
    sql::statement,
};
use crate::domain::{clock::Timestamp, event_position::EventPosition, ids::FileId};

/// A stored event.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    pub position: EventPosition,
    pub kind: EventKind,
    pub file: FileId,
    pub version: i32,
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
    /// The lower bound. Older events may have been dropped.
    pub horizon: Timestamp,
}

/// The maximum by which an event can be older than one with a lower position. A transaction gets its id at
/// its first write, but its time when it begins. No transaction lasts nearly this long.
const EVENT_SKEW_MAX: chrono::Duration = chrono::Duration::hours(1);

impl StreamSnapshot {
    /// Returns whether all events after a position are retained, if a reader reached it at `time` in this
    /// `incarnation`.
    pub fn retains_all_after(&self, time: Timestamp, incarnation: &str, retention: chrono::Duration) -> bool {
        incarnation == self.incarnation && self.retains_time(time, retention)
    }

    /// Returns whether all events since `time` are retained, in any incarnation.
    pub fn retains_time(&self, time: Timestamp, retention: chrono::Duration) -> bool {
        let start = self.horizon.max(self.time.checked_sub_signed(retention).unwrap_or(Timestamp::MIN_UTC));
        let oldest = time.checked_sub_signed(EVENT_SKEW_MAX);
        oldest.is_some_and(|oldest| oldest >= start)
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
    /// The numbers of the event kinds; empty means all. May contain kinds of a newer release.
    pub kinds: Vec<i16>,
    /// Selects events of this file only.
    pub file: Option<FileId>,
}

#[derive(QueryableByName)]
struct SnapshotRow {
    #[diesel(sql_type = Text)]
    xmin: String,
    #[diesel(sql_type = Timestamptz)]
    time: Timestamp,
    #[diesel(sql_type = Text)]
    incarnation: String,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    horizon: Option<Timestamp>,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(embed)]
    snapshot: SnapshotRow,
    #[diesel(sql_type = Nullable<Text>)]
    xid: Option<String>,
    #[diesel(sql_type = Nullable<BigInt>)]
    n: Option<i64>,
    #[diesel(sql_type = Nullable<SmallInt>)]
    kind: Option<i16>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    file_id: Option<Uuid>,
    #[diesel(sql_type = Nullable<Integer>)]
    version: Option<i32>,
    #[diesel(sql_type = Nullable<Text>)]
    actor_id: Option<String>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    create_time: Option<Timestamp>,
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
    let sql = format!(
        "{SNAPSHOT}
         SELECT m.xmin::text AS xmin, m.time, m.incarnation, m.horizon, e.xid::text AS xid, e.n, e.kind, e.file_id,
            e.version, e.actor_id, e.create_time
         FROM moment AS m LEFT JOIN LATERAL (
            SELECT * FROM events AS e
            WHERE e.tenant_id = $1 AND (e.xid, e.n) > ($2::xid8, $3) AND e.xid < m.xmin
              AND (cardinality($4) = 0 OR e.kind = ANY ($5)) AND ($6 IS NULL OR e.file_id = $7)
            ORDER BY e.xid, e.n LIMIT $8) AS e ON true
         ORDER BY e.xid, e.n"
    );
    let kinds = filter.kinds.clone();
    let file = filter.file.map(FileId::as_uuid);
    let rows: Vec<Row> = statement(OPERATION, sql)
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<Text, _>(after.xid.to_string())
        .bind::<BigInt, _>(i64::try_from(after.n).unwrap_or(i64::MAX))
        .bind::<Array<SmallInt>, _>(kinds.clone())
        .bind::<Array<SmallInt>, _>(kinds)
        .bind::<Nullable<SqlUuid>, _>(file)
        .bind::<Nullable<SqlUuid>, _>(file)
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await?;
    let first = rows.first().ok_or_else(|| DbError::corrupt(OPERATION, "missing snapshot"))?;
    let snapshot = first.snapshot.read(OPERATION)?;
    let events = rows.iter().filter_map(|row| row.event(OPERATION).transpose());
    Ok(EventBatch { events: events.collect::<Result<_, _>>()?, snapshot })
}

/// Returns the current snapshot, and the position of the newest event in it.
pub async fn get_newest(tx: &mut TenantTx) -> Result<(StreamSnapshot, Option<EventPosition>), DbError> {
    const OPERATION: &str = "find newest event";
    let sql = format!(
        "{SNAPSHOT}
         SELECT m.xmin::text AS xmin, m.time, m.incarnation, m.horizon, e.xid::text AS xid, e.n, NULL::smallint AS kind,
            NULL::uuid AS file_id, NULL::integer AS version, NULL::text AS actor_id, NULL::timestamptz AS create_time
         FROM moment AS m LEFT JOIN LATERAL (
            SELECT e.xid, e.n FROM events AS e WHERE e.tenant_id = $1 AND e.xid < m.xmin
            ORDER BY e.xid DESC, e.n DESC LIMIT 1) AS e ON true"
    );
    let row: Row =
        statement(OPERATION, sql).bind::<SqlUuid, _>(tx.tenant().as_uuid()).one(tx.connection()?).await?;
    Ok((row.snapshot.read(OPERATION)?, row.parse_position(OPERATION)?))
}

#[derive(QueryableByName)]
struct PositionRow {
    #[diesel(sql_type = Text)]
    xid: String,
    #[diesel(sql_type = BigInt)]
    n: i64,
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
    let row: Option<PositionRow> = statement(
        OPERATION,
        "SELECT xid::text AS xid, n FROM events WHERE tenant_id = $1 AND create_time >= $2 AND xid < $3::xid8
         ORDER BY events.xid, n LIMIT 1",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Timestamptz, _>(time.checked_sub_signed(EVENT_SKEW_MAX).unwrap_or(Timestamp::MIN_UTC))
    .bind::<Text, _>(snapshot.position.xid.to_string())
    .first(tx.connection()?)
    .await?;
    let Some(row) = row else { return Ok(snapshot.position) };
    let first = parse_position(OPERATION, &row.xid, row.n)?;
    // The numbers of events start at 1.
    Ok(EventPosition { n: first.n.saturating_sub(1), ..first })
}

impl SnapshotRow {
    fn read(&self, operation: &'static str) -> Result<StreamSnapshot, DbError> {
        Ok(StreamSnapshot {
            position: parse_position(operation, &self.xmin, 0)?,
            time: self.time,
            incarnation: self.incarnation.clone(),
            // Without partitions, nothing has been dropped yet.
            horizon: self.horizon.unwrap_or(Timestamp::MIN_UTC),
        })
    }
}

impl Row {
    fn parse_position(&self, operation: &'static str) -> Result<Option<EventPosition>, DbError> {
        self.xid.as_deref().zip(self.n).map(|(xid, n)| parse_position(operation, xid, n)).transpose()
    }

    fn event(&self, operation: &'static str) -> Result<Option<StoredEvent>, DbError> {
        let Some(position) = self.parse_position(operation)? else { return Ok(None) };
        let corrupt = |what| DbError::corrupt(operation, what);
        Ok(Some(StoredEvent {
            position,
            kind: self.kind.map(EventKind::from_stored).ok_or_else(|| corrupt("kind"))?,
            file: self.file_id.map(FileId::from_uuid).ok_or_else(|| corrupt("file"))?,
            version: self.version.ok_or_else(|| corrupt("version"))?,
            actor_id: self.actor_id.clone().ok_or_else(|| corrupt("actor"))?,
            create_time: self.create_time.ok_or_else(|| corrupt("time"))?,
        }))
    }
}
