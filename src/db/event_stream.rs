//! Reads the outbox in order, and never beyond what is safe: below the snapshot's xmin every transaction has ended, so that
//! no later commit can write an event behind a reader's back.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Integer, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, TenantTx,
    events::{EventKind, position},
    statement::statement,
};
use crate::domain::{clock::Timestamp, event_position::EventPosition, ids::FileId};

/// An event that was read.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    /// Where it stands.
    pub position: EventPosition,
    /// What happened.
    pub kind: EventKind,
    /// To which file.
    pub file: FileId,
    /// At which version.
    pub version: i32,
    /// By whom.
    pub actor_id: String,
    /// When its transaction began.
    pub create_time: Timestamp,
}

/// How far a reader may go at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Safe {
    /// Everything before is there to be read.
    pub position: EventPosition,
    /// The time of that moment.
    pub time: Timestamp,
    /// The history that positions belong to; another one after the database was restored or has failed over.
    pub incarnation: String,
    /// What is older may have been dropped.
    pub horizon: Timestamp,
}

/// By how much the time of an event may lie before that of one in front of it: a transaction is numbered when it first writes,
/// and timed when it begins. None lasts nearly as long.
const DISORDER: chrono::Duration = chrono::Duration::hours(1);

impl Safe {
    /// Whether everything is still there behind a place that was reached at this time in that history, where events are kept
    /// for so long.
    pub fn has_all_behind(&self, time: Timestamp, incarnation: &str, kept: chrono::Duration) -> bool {
        incarnation == self.incarnation && self.keeps_all_behind(time, kept)
    }

    /// The same, in whichever history.
    pub fn keeps_all_behind(&self, time: Timestamp, kept: chrono::Duration) -> bool {
        let begins = self.horizon.max(self.time.checked_sub_signed(kept).unwrap_or(Timestamp::MIN_UTC));
        let oldest = time.checked_sub_signed(DISORDER);
        oldest.is_some_and(|oldest| oldest >= begins)
    }
}

/// Events in order, and how far one could have gone.
#[derive(Debug)]
pub struct Batch {
    /// Those that the viewer could see when they happened.
    pub events: Vec<StoredEvent>,
    /// The moment that they were read in.
    pub safe: Safe,
}

/// Which events to read.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Of these kinds, by their numbers, which a newer release may have more of; empty means all.
    pub kinds: Vec<i16>,
    /// Of this file.
    pub file: Option<FileId>,
}

#[derive(QueryableByName)]
struct SafeRow {
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
    safe: SafeRow,
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

/// The moment, once: everything of a statement is read in the same snapshot.
const MOMENT: &str = "WITH moment AS MATERIALIZED (
    SELECT pg_snapshot_xmin(pg_current_snapshot()) AS xmin, app.now() AS time, app.event_incarnation() AS incarnation,
        app.event_horizon() AS horizon)";

/// Reads the events behind a position that the viewer could see when they happened, the oldest first.
pub async fn read(
    tx: &mut TenantTx,
    after: EventPosition,
    selection: &Selection,
    limit: i64,
) -> Result<Batch, DbError> {
    const OPERATION: &str = "read events";
    let sql = format!(
        "{MOMENT}
         SELECT m.xmin::text AS xmin, m.time, m.incarnation, m.horizon, e.xid::text AS xid, e.n, e.kind, e.file_id,
            e.version, e.actor_id, e.create_time
         FROM moment AS m LEFT JOIN LATERAL (
            SELECT * FROM events AS e
            WHERE e.tenant_id = {{}} AND (e.xid, e.n) > ({{}}::xid8, {{}}) AND e.xid < m.xmin
              AND (cardinality({{}}) = 0 OR e.kind = ANY ({{}})) AND ({{}} IS NULL OR e.file_id = {{}})
            ORDER BY e.xid, e.n LIMIT {{}}) AS e ON true
         ORDER BY e.xid, e.n"
    );
    let kinds = selection.kinds.clone();
    let file = selection.file.map(FileId::as_uuid);
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
    let first = rows.first().ok_or_else(|| DbError::corrupt(OPERATION, "absence of a moment"))?;
    let safe = first.safe.read(OPERATION)?;
    let events = rows.iter().filter_map(|row| row.event(OPERATION).transpose());
    Ok(Batch { events: events.collect::<Result<_, _>>()?, safe })
}

/// How far one may read, and where the newest event below stands.
pub async fn newest(tx: &mut TenantTx) -> Result<(Safe, Option<EventPosition>), DbError> {
    const OPERATION: &str = "find newest event";
    let sql = format!(
        "{MOMENT}
         SELECT m.xmin::text AS xmin, m.time, m.incarnation, m.horizon, e.xid::text AS xid, e.n, NULL::smallint AS kind,
            NULL::uuid AS file_id, NULL::integer AS version, NULL::text AS actor_id, NULL::timestamptz AS create_time
         FROM moment AS m LEFT JOIN LATERAL (
            SELECT e.xid, e.n FROM events AS e WHERE e.tenant_id = {{}} AND e.xid < m.xmin
            ORDER BY e.xid DESC, e.n DESC LIMIT 1) AS e ON true"
    );
    let row: Row =
        statement(OPERATION, sql).bind::<SqlUuid, _>(tx.tenant().as_uuid()).one(tx.connection()?).await?;
    Ok((row.safe.read(OPERATION)?, row.position(OPERATION)?))
}

#[derive(QueryableByName)]
struct PlaceRow {
    #[diesel(sql_type = Text)]
    xid: String,
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// Where a reader goes on who had reached this time in another history: in front of the first event that is not older, less
/// the disorder of their times. Some events are read again, and none is left out that was kept.
pub async fn place_at(tx: &mut TenantTx, time: Timestamp, safe: &Safe) -> Result<EventPosition, DbError> {
    const OPERATION: &str = "find event by time";
    let row: Option<PlaceRow> = statement(
        OPERATION,
        "SELECT xid::text AS xid, n FROM events WHERE tenant_id = {} AND create_time >= {} AND xid < {}::xid8
         ORDER BY events.xid, n LIMIT 1",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Timestamptz, _>(time.checked_sub_signed(DISORDER).unwrap_or(Timestamp::MIN_UTC))
    .bind::<Text, _>(safe.position.xid.to_string())
    .first(tx.connection()?)
    .await?;
    let Some(row) = row else { return Ok(safe.position) };
    let first = position(OPERATION, &row.xid, row.n)?;
    // Numbers begin at 1.
    Ok(EventPosition { n: first.n.saturating_sub(1), ..first })
}

impl SafeRow {
    fn read(&self, operation: &'static str) -> Result<Safe, DbError> {
        Ok(Safe {
            position: position(operation, &self.xmin, 0)?,
            time: self.time,
            incarnation: self.incarnation.clone(),
            // Without any partition nothing was ever dropped.
            horizon: self.horizon.unwrap_or(Timestamp::MIN_UTC),
        })
    }
}

impl Row {
    fn position(&self, operation: &'static str) -> Result<Option<EventPosition>, DbError> {
        self.xid.as_deref().zip(self.n).map(|(xid, n)| position(operation, xid, n)).transpose()
    }

    fn event(&self, operation: &'static str) -> Result<Option<StoredEvent>, DbError> {
        let Some(position) = self.position(operation)? else { return Ok(None) };
        let bad = |what| DbError::corrupt(operation, what);
        Ok(Some(StoredEvent {
            position,
            kind: self.kind.map(EventKind::of_row).ok_or_else(|| bad("kind"))?,
            file: self.file_id.map(FileId::from_uuid).ok_or_else(|| bad("file"))?,
            version: self.version.ok_or_else(|| bad("version"))?,
            actor_id: self.actor_id.clone().ok_or_else(|| bad("actor"))?,
            create_time: self.create_time.ok_or_else(|| bad("time"))?,
        }))
    }
}
