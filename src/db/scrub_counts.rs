//! Counts the objects that a pass of scrubbing must still read. A count reads a part of the objects at a time, the
//! oldest verification first, and continues after a failure, so that it ends however many objects there are.

use chrono::Duration;
use diesel::{
    ExpressionMethods as _, NullableExpressionMethods as _, QueryDsl as _, Queryable, QueryableByName,
    sql_types::{BigInt, Nullable, Text, Timestamptz},
};

use super::{
    DbError, SystemTx,
    schema::scrubs,
    scrubs::find_oldest,
    sql::{now, query, sql, statement},
};
use crate::domain::{clock::Timestamp, file::ContentState, scrub::scrub_cost_bytes};

/// The interval between counts of the bytes that a pass must still read, in hours.
const COUNT_HOURS: i64 = 6;

/// The number of objects in a part of a count that is made at once.
const PART_ROWS: i64 = 20_000;

/// The objects that must be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftObjects {
    pub object_count: i64,
    /// The number of these objects, and of those whose versions are all marked missing or damaged.
    pub stored_count: i64,
    /// The bytes that they count in the rate.
    pub cost_bytes: i64,
}

impl LeftObjects {
    fn add(&mut self, part: &PartRow) {
        self.object_count = self.object_count.saturating_add(part.object_count);
        self.stored_count = self.stored_count.saturating_add(part.row_count);
        self.cost_bytes = self.cost_bytes.saturating_add(part.cost_bytes);
    }
}

/// The pass of a provider, and the count in progress.
#[derive(Debug, Queryable)]
struct CountedPass {
    start_time: Timestamp,
    count_time: Option<Timestamp>,
    now: Timestamp,
    bytes: i64,
    /// The blobs that were verified up to this time are counted. `None` without a count in progress.
    blob_time: Option<Timestamp>,
    /// The copies that were verified up to this time are counted. `None` before all blobs are counted.
    replica_time: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScrubbedKind {
    Blobs,
    Replicas,
}

/// Objects that were verified after a time and before another one.
#[derive(Debug, Clone, Copy)]
struct CountedRange {
    kind: ScrubbedKind,
    after: Timestamp,
    before: Timestamp,
}

#[derive(QueryableByName)]
struct PartRow {
    /// The number of rows that were read. Not all of them must be scrubbed.
    #[diesel(sql_type = BigInt)]
    row_count: i64,
    #[diesel(sql_type = BigInt)]
    object_count: i64,
    #[diesel(sql_type = BigInt)]
    cost_bytes: i64,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    last_time: Option<Timestamp>,
}

/// Counts the next part of the objects that the pass of a provider must still read, at least `row_max` of them if there
/// are as many. Begins a count in a new pass, and every few hours. Returns true if the count is complete. The lock on
/// the pass makes processes count one after the other.
pub async fn count_next_part(tx: &mut SystemTx, provider: &str, row_max: i64) -> Result<bool, DbError> {
    let pass = scrubs::table
        .filter(scrubs::provider.eq(provider))
        .select((
            scrubs::pass_start_time,
            scrubs::measure_time,
            now(),
            scrubs::counted_bytes,
            scrubs::counted_blob_time,
            scrubs::counted_replica_time,
        ))
        .for_update();
    let pass: Option<CountedPass> =
        query("lock count of objects to scrub", pass).first(tx.connection()?).await?;
    let Some(mut pass) = pass else { return Ok(true) };
    if pass.blob_time.is_none() {
        let is_recent = |counted: Timestamp| pass.now - counted < Duration::hours(COUNT_HOURS);
        if pass.count_time.is_some_and(is_recent) {
            return Ok(true);
        }
        (pass.bytes, pass.blob_time, pass.replica_time) = (0, Some(Timestamp::UNIX_EPOCH), None);
    }
    let before = pass.start_time;
    if let (Some(after), None) = (pass.blob_time, pass.replica_time) {
        let range = CountedRange { kind: ScrubbedKind::Blobs, after, before };
        let part = count_part(tx, provider, range, row_max).await?;
        pass.bytes = pass.bytes.saturating_add(part.cost_bytes);
        if part.row_count >= row_max {
            pass.blob_time = part.last_time;
            save_count(tx, provider, &pass).await?;
            return Ok(false);
        }
    }
    let after = pass.replica_time.unwrap_or(Timestamp::UNIX_EPOCH);
    let range = CountedRange { kind: ScrubbedKind::Replicas, after, before };
    let part = count_part(tx, provider, range, row_max).await?;
    pass.bytes = pass.bytes.saturating_add(part.cost_bytes);
    if part.row_count >= row_max {
        pass.replica_time = part.last_time;
        save_count(tx, provider, &pass).await?;
        return Ok(false);
    }
    record_count(tx, provider, pass.bytes).await?;
    Ok(true)
}

/// Counts the objects of a provider that were verified before a time. Reads them part by part.
pub async fn count_left(
    tx: &mut SystemTx,
    provider: &str,
    before: Timestamp,
) -> Result<LeftObjects, DbError> {
    count_all(tx, provider, Timestamp::UNIX_EPOCH, before).await
}

/// Returns the part of the objects of a provider that were verified within a period, in percent. Reads all objects,
/// part by part.
pub async fn get_verified_percent(
    tx: &mut SystemTx,
    provider: &str,
    period: Duration,
    now: Timestamp,
) -> Result<f64, DbError> {
    let end = now + Duration::days(1);
    let stored = count_all(tx, provider, Timestamp::UNIX_EPOCH, end).await?.stored_count;
    let verified = count_all(tx, provider, now - period, end).await?.stored_count;
    Ok(if stored == 0 { 100.0 } else { 100.0 * verified as f64 / stored as f64 })
}

/// Counts the objects of a provider that were verified after a time and before another one, part by part.
async fn count_all(
    tx: &mut SystemTx,
    provider: &str,
    after: Timestamp,
    before: Timestamp,
) -> Result<LeftObjects, DbError> {
    let mut counted = LeftObjects::default();
    for kind in [ScrubbedKind::Blobs, ScrubbedKind::Replicas] {
        let mut range = CountedRange { kind, after, before };
        loop {
            let part = count_part(tx, provider, range, PART_ROWS).await?;
            counted.add(&part);
            match part.last_time {
                Some(last) if part.row_count >= PART_ROWS => range.after = last,
                _ => break,
            }
        }
    }
    Ok(counted)
}

/// Counts the oldest objects in a range. Those of one time are counted together.
async fn count_part(
    tx: &mut SystemTx,
    provider: &str,
    range: CountedRange,
    row_max: i64,
) -> Result<PartRow, DbError> {
    // Aggregates over one range of an index.
    let text = match range.kind {
        ScrubbedKind::Blobs => sql!(
            "SELECT count(*) AS row_count, count(*) FILTER (WHERE is_due) AS object_count,
                coalesce(sum(cost_bytes) FILTER (WHERE is_due), 0)::bigint AS cost_bytes,
                max(verified_time) AS last_time
             FROM (
                 SELECT verified_time, greatest(size_bytes, $1) AS cost_bytes, EXISTS (
                     SELECT FROM versions AS v WHERE v.tenant_id = part.tenant_id AND v.blob_id = part.id
                       AND v.content_state = {available}) AS is_due
                 FROM (
                     SELECT tenant_id, id, size_bytes, coalesce(last_verified_time, create_time) AS verified_time
                     FROM blobs
                     WHERE provider = $2 AND sha256 IS NOT NULL AND delete_after IS NULL
                       AND coalesce(last_verified_time, create_time) > $3
                       AND coalesce(last_verified_time, create_time) < $4
                     ORDER BY coalesce(last_verified_time, create_time) FETCH FIRST $5 ROWS WITH TIES
                 ) AS part
             ) AS counted",
            available = ContentState::Available,
        ),
        ScrubbedKind::Replicas => {
            "SELECT count(*) AS row_count, count(*) AS object_count,
                coalesce(sum(greatest(size_bytes, $1)), 0)::bigint AS cost_bytes,
                max(replica_verified_time) AS last_time
             FROM (
                 SELECT size_bytes, replica_verified_time FROM blobs
                 WHERE replica_provider = $2 AND delete_after IS NULL
                   AND replica_verified_time > $3 AND replica_verified_time < $4
                 ORDER BY replica_verified_time FETCH FIRST $5 ROWS WITH TIES
             ) AS part"
        }
    };
    let cost_min = i64::try_from(scrub_cost_bytes(0)).unwrap_or(i64::MAX);
    statement("count objects to scrub", text)
        .bind::<BigInt, _>(cost_min)
        .bind::<Text, _>(provider.to_owned())
        .bind::<Timestamptz, _>(range.after)
        .bind::<Timestamptz, _>(range.before)
        .bind::<BigInt, _>(row_max)
        .one(tx.connection()?)
        .await
}

async fn save_count(tx: &mut SystemTx, provider: &str, pass: &CountedPass) -> Result<(), DbError> {
    let update = diesel::update(scrubs::table.filter(scrubs::provider.eq(provider))).set((
        scrubs::counted_bytes.eq(pass.bytes),
        scrubs::counted_blob_time.eq(pass.blob_time),
        scrubs::counted_replica_time.eq(pass.replica_time),
    ));
    query("save count of objects to scrub", update).execute(tx.connection()?).await.map(|_| ())
}

/// Records a complete count, and the verification that is longest ago.
async fn record_count(tx: &mut SystemTx, provider: &str, left_bytes: i64) -> Result<(), DbError> {
    let oldest = find_oldest(tx, provider).await?;
    let update = diesel::update(scrubs::table.filter(scrubs::provider.eq(provider))).set((
        scrubs::left_bytes.eq(left_bytes),
        scrubs::measure_time.eq(now().nullable()),
        scrubs::oldest_verified_time.eq(oldest),
        scrubs::counted_blob_time.eq(None::<Timestamp>),
    ));
    query("record count of objects to scrub", update).execute(tx.connection()?).await.map(|_| ())
}
