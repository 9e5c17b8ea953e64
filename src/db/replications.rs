//! The blobs without a copy at the replica provider, as of the last count. A count reads a part of the blobs at a time,
//! and continues after a failure, so that it ends however many blobs there are.

use chrono::Duration;
use diesel::{
    ExpressionMethods as _, QueryDsl as _, Queryable, QueryableByName, Selectable, SelectableHelper as _,
    sql_types::{BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, SystemTx,
    schema::{blobs, replications},
    sql::{AcrossTenants as _, now, query, sql, statement},
};
use crate::domain::{clock::Timestamp, file::ContentState, ids::TenantId};

/// The number of blobs above which they are counted less often.
const COUNTED_OFTEN_MAX: i64 = 10_000;

/// The blobs without a copy at a replica provider.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = replications, check_for_backend(diesel::pg::Pg))]
pub struct ReplicationLag {
    pub provider: String,
    #[diesel(deserialize_as = i64)]
    pub pending_blob_count: u64,
    #[diesel(deserialize_as = i64)]
    pub pending_bytes: u64,
    /// When the oldest of them that can be copied was created.
    pub oldest_pending_time: Option<Timestamp>,
}

/// A count in progress.
#[derive(Debug, Clone, Default, Queryable)]
struct Counted {
    blob_count: i64,
    bytes: i64,
    oldest_time: Option<Timestamp>,
    /// The provider whose blobs are counted; `None` without a count in progress.
    provider: Option<String>,
    /// The last blob that was counted; `None` before the first part of a provider.
    tenant: Option<TenantId>,
    create_time: Option<Timestamp>,
}

impl Counted {
    fn add(&mut self, part: &PartRow) {
        self.blob_count = self.blob_count.saturating_add(part.blob_count);
        self.bytes = self.bytes.saturating_add(part.bytes);
        self.oldest_time = self.oldest_time.into_iter().chain(part.oldest_time).min();
        (self.tenant, self.create_time) = (part.last_tenant_id, part.last_create_time);
    }

    fn start_provider(&mut self, provider: Option<String>) {
        (self.provider, self.tenant, self.create_time) = (provider, None, None);
    }
}

#[derive(QueryableByName)]
struct PartRow {
    #[diesel(sql_type = BigInt)]
    blob_count: i64,
    #[diesel(sql_type = BigInt)]
    bytes: i64,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    oldest_time: Option<Timestamp>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    last_tenant_id: Option<TenantId>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    last_create_time: Option<Timestamp>,
}

/// Counts the next part of the blobs without a copy that are stored elsewhere than with the replica provider, at least
/// `row_max` of them if there are as many. Begins a count if the last one is old: a minute, or a quarter of an hour if
/// there are many blobs. Returns true if the count is complete. The lock on its row makes processes count one after the
/// other.
pub async fn count_next_part(tx: &mut SystemTx, replica: &str, row_max: i64) -> Result<bool, DbError> {
    let state = replications::table
        .filter(replications::provider.eq(replica))
        .select((
            (
                replications::counted_blob_count,
                replications::counted_bytes,
                replications::counted_oldest_time,
                replications::counted_provider,
                replications::counted_tenant_id,
                replications::counted_create_time,
            ),
            replications::pending_blob_count,
            replications::measure_time,
            now(),
        ))
        .for_update();
    let state: Option<(Counted, i64, Timestamp, Timestamp)> =
        query("lock count of blobs to replicate", state).first(tx.connection()?).await?;
    let mut counted = match state {
        Some((counted, ..)) if counted.provider.is_some() => counted,
        Some((_, pending, measured, now)) if now - measured < count_interval(pending) => return Ok(true),
        _ => {
            let provider = find_next_source(tx, "", replica).await?;
            Counted { provider, ..Counted::default() }
        }
    };
    while let Some(source) = counted.provider.clone() {
        let part = count_part(tx, &source, &counted, row_max).await?;
        counted.add(&part);
        if part.blob_count >= row_max {
            save_count(tx, replica, &counted).await?;
            return Ok(false);
        }
        counted.start_provider(find_next_source(tx, &source, replica).await?);
    }
    record_count(tx, replica, &counted).await?;
    Ok(true)
}

fn count_interval(pending_blob_count: i64) -> Duration {
    Duration::minutes(if pending_blob_count > COUNTED_OFTEN_MAX { 15 } else { 1 })
}

/// Returns the next provider with blobs without a copy, in the order of names.
async fn find_next_source(tx: &mut SystemTx, after: &str, replica: &str) -> Result<Option<String>, DbError> {
    let mut after = after.to_owned();
    loop {
        let next = blobs::table
            .across_tenants()
            .filter(blobs::replica_key.is_null())
            .filter(blobs::sha256.is_not_null())
            .filter(blobs::delete_after.is_null())
            .filter(blobs::provider.gt(&after))
            .order((blobs::provider, blobs::tenant_id, blobs::create_time))
            .limit(1)
            .select(blobs::provider);
        let next: Option<String> =
            query("find next provider to replicate", next).first(tx.connection()?).await?;
        // A copy beside its original protects from nothing.
        match next {
            Some(next) if next == replica => after = next,
            next => return Ok(next),
        }
    }
}

/// Counts the blobs of a provider after the last one that was counted. Blobs of one tenant and time are counted
/// together.
async fn count_part(
    tx: &mut SystemTx,
    source: &str,
    counted: &Counted,
    row_max: i64,
) -> Result<PartRow, DbError> {
    // Aggregates over one range of the index. Only blobs that an available version references can be copied.
    let text = sql!(
        "WITH part AS MATERIALIZED (
             SELECT b.tenant_id, b.id, b.create_time, b.size_bytes FROM blobs AS b
             WHERE b.replica_key IS NULL AND b.sha256 IS NOT NULL AND b.delete_after IS NULL AND b.provider = $1
               AND (b.tenant_id, b.create_time) > ($2, $3)
             ORDER BY b.tenant_id, b.create_time FETCH FIRST $4 ROWS WITH TIES
         ), last AS (
             SELECT tenant_id, create_time FROM part ORDER BY tenant_id DESC, create_time DESC LIMIT 1
         )
         SELECT count(*) AS blob_count, coalesce(sum(size_bytes), 0)::bigint AS bytes,
             min(create_time) FILTER (WHERE EXISTS (
                 SELECT FROM versions AS v WHERE v.tenant_id = part.tenant_id AND v.blob_id = part.id
                   AND v.content_state = {available})) AS oldest_time,
             (SELECT tenant_id FROM last) AS last_tenant_id, (SELECT create_time FROM last) AS last_create_time
         FROM part",
        available = ContentState::Available,
    );
    statement("count blobs to replicate", text)
        .bind::<Text, _>(source.to_owned())
        .bind::<SqlUuid, _>(counted.tenant.unwrap_or(TenantId::from_uuid(Uuid::nil())))
        .bind::<Timestamptz, _>(counted.create_time.unwrap_or(Timestamp::UNIX_EPOCH))
        .bind::<BigInt, _>(row_max)
        .one(tx.connection()?)
        .await
}

/// Saves a count in progress. The first count of all is visible while it grows.
async fn save_count(tx: &mut SystemTx, replica: &str, counted: &Counted) -> Result<(), DbError> {
    let progress = (
        replications::counted_blob_count.eq(counted.blob_count),
        replications::counted_bytes.eq(counted.bytes),
        replications::counted_oldest_time.eq(counted.oldest_time),
        replications::counted_provider.eq(counted.provider.as_deref()),
        replications::counted_tenant_id.eq(counted.tenant),
        replications::counted_create_time.eq(counted.create_time),
    );
    let upsert = diesel::insert_into(replications::table)
        .values((
            replications::provider.eq(replica),
            replications::pending_blob_count.eq(counted.blob_count),
            replications::pending_bytes.eq(counted.bytes),
            replications::oldest_pending_time.eq(counted.oldest_time),
            replications::measure_time.eq(now()),
            progress,
        ))
        .on_conflict(replications::provider)
        .do_update()
        .set(progress);
    query("save count of blobs to replicate", upsert).execute(tx.connection()?).await.map(|_| ())
}

/// Records a complete count.
async fn record_count(tx: &mut SystemTx, replica: &str, counted: &Counted) -> Result<(), DbError> {
    let count = (
        replications::pending_blob_count.eq(counted.blob_count),
        replications::pending_bytes.eq(counted.bytes),
        replications::oldest_pending_time.eq(counted.oldest_time),
        replications::measure_time.eq(now()),
        replications::counted_provider.eq(None::<String>),
    );
    let upsert = diesel::insert_into(replications::table)
        .values((replications::provider.eq(replica), count.clone()))
        .on_conflict(replications::provider)
        .do_update()
        .set(count);
    query("record lag of replication", upsert).execute(tx.connection()?).await.map(|_| ())
}

/// Returns the blobs without a copy at a replica provider, and the time of the transaction.
pub async fn find_lag(
    tx: &mut SystemTx,
    provider: &str,
) -> Result<Option<(ReplicationLag, Timestamp)>, DbError> {
    let lag = replications::table
        .filter(replications::provider.eq(provider))
        .select((ReplicationLag::as_select(), now()));
    query("find lag of replication", lag).first(tx.connection()?).await
}
