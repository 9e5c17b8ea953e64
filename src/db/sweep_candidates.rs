//! Sweep candidates: objects and multipart uploads without an owner that the sweeper has found in a store.

use diesel::{
    ExpressionMethods as _, IntoSql as _, QueryDsl as _, Queryable, QueryableByName,
    dsl::count_star,
    sql_types::{Array, BigInt, Bool, Record, Text, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, SystemTx,
    schema::sweep_candidates,
    sql::{
        AcrossTenants as _, OfTenant as _, coalesce, now_minus, query, seconds_u64, sql, statement, sum_of,
    },
};
use crate::domain::{ids::TenantId, object_key::ObjectKey, upload::UploadState};

/// An object, or an incomplete multipart upload, in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepCandidate {
    pub key: ObjectKey,
    /// The store's id of the multipart upload; `None` for an object.
    pub multipart_id: Option<String>,
    /// The size of the object; 0 for a multipart upload.
    pub size_bytes: u64,
}

/// Whether a row of the database owns an object or multipart upload in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// A blob, an upload or a stray object row owns it.
    Owned,
    /// No row owns it.
    Unowned,
    /// No row owns it, and it is already a candidate.
    StillUnowned,
    /// Its tenant is not in this database, so it belongs to another installation.
    Foreign,
}

/// Whether a row owns `k`, regardless of the provider.
///
/// Keys are never reused, and a move creates a new key. A row with this key therefore refers to this object,
/// even if the provider was renamed or two names refer to the same store. An upload owns the objects under
/// its key in every state (a staging object only until the upload is committed), and so does a stray object
/// row: the code that ends them cleans up.
fn is_owned() -> &'static str {
    sql!(
        "(k.multipart_id = '' AND EXISTS (
            SELECT FROM blobs AS b WHERE b.tenant_id = k.tenant_id AND b.storage_key = k.storage_key)
         OR k.multipart_id = '' AND EXISTS (
            SELECT FROM blobs AS b WHERE b.tenant_id = k.tenant_id AND b.replica_key = k.storage_key)
         OR EXISTS (SELECT FROM uploads AS u WHERE u.tenant_id = k.tenant_id AND u.storage_key = k.storage_key)
         OR EXISTS (SELECT FROM uploads AS u WHERE u.tenant_id = k.tenant_id AND u.staging_key = k.storage_key
              AND u.state <> {committed})
         OR EXISTS (SELECT FROM stray_objects AS s WHERE s.tenant_id = k.tenant_id AND s.storage_key = k.storage_key))",
        committed = UploadState::Committed,
    )
}

#[derive(QueryableByName)]
struct OwnershipRow {
    #[diesel(sql_type = BigInt)]
    n: i64,
    #[diesel(sql_type = Bool)]
    has_tenant: bool,
    #[diesel(sql_type = Bool)]
    is_owned: bool,
    #[diesel(sql_type = Bool)]
    is_candidate: bool,
}

/// Returns the ownership of each candidate, in order.
///
/// It is one statement, hence one snapshot: an object that passes from an upload to a blob in the meantime is
/// owned by one of them.
pub async fn check_ownership(
    tx: &mut SystemTx,
    provider: &str,
    candidates: &[SweepCandidate],
) -> Result<Vec<Ownership>, DbError> {
    // `unnest` batch.
    let text = sql!(
        "SELECT k.n, EXISTS (SELECT FROM tenants AS t WHERE t.id = k.tenant_id) AS has_tenant, {is_owned} AS is_owned,
                EXISTS (SELECT FROM sweep_candidates AS c
                        WHERE c.tenant_id = k.tenant_id AND c.provider = $1 AND c.storage_key = k.storage_key
                          AND c.multipart_id = k.multipart_id) AS is_candidate
         FROM unnest($2, $3, $4) WITH ORDINALITY AS k (tenant_id, storage_key, multipart_id, n) ORDER BY k.n",
        is_owned = is_owned(),
    );
    let rows: Vec<OwnershipRow> = statement("find owners of candidates", text)
        .bind::<Text, _>(provider.to_owned())
        .bind::<Array<SqlUuid>, _>(tenants(candidates))
        .bind::<Array<Text>, _>(keys(candidates))
        .bind::<Array<Text>, _>(multipart_ids(candidates))
        .load(tx.connection()?)
        .await?;
    if rows.len() != candidates.len() {
        return Err(DbError::corrupt("find owners of candidates", "number of rows"));
    }
    let ownership = |row: OwnershipRow| match row {
        OwnershipRow { is_owned: true, .. } => Ownership::Owned,
        OwnershipRow { has_tenant: false, .. } => Ownership::Foreign,
        OwnershipRow { is_candidate: true, .. } => Ownership::StillUnowned,
        OwnershipRow { .. } => Ownership::Unowned,
    };
    debug_assert!(rows.iter().zip(1..).all(|(row, n)| row.n == n));
    Ok(rows.into_iter().map(ownership).collect())
}

/// Inserts candidates as first seen now. Existing candidates are left unchanged.
pub async fn insert(tx: &mut SystemTx, provider: &str, candidates: &[SweepCandidate]) -> Result<(), DbError> {
    if candidates.is_empty() {
        return Ok(());
    }
    // `unnest` batch.
    statement(
        "insert sweep candidates",
        "INSERT INTO sweep_candidates (tenant_id, provider, storage_key, multipart_id, size_bytes, first_seen_time)
         SELECT k.tenant_id, $1, k.storage_key, k.multipart_id, k.size_bytes, app.now()
         FROM unnest($2, $3, $4, $5) AS k (tenant_id, storage_key, multipart_id, size_bytes)
         ON CONFLICT DO NOTHING",
    )
    .bind::<Text, _>(provider.to_owned())
    .bind::<Array<SqlUuid>, _>(tenants(candidates))
    .bind::<Array<Text>, _>(keys(candidates))
    .bind::<Array<Text>, _>(multipart_ids(candidates))
    .bind::<Array<BigInt>, _>(
        candidates.iter().map(|one| i64::try_from(one.size_bytes).unwrap_or(i64::MAX)).collect::<Vec<_>>(),
    )
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Deletes candidates that a row owns. Returns their number.
pub async fn delete_owned(tx: &mut SystemTx, provider: &str) -> Result<usize, DbError> {
    // Shares the condition with the batch above, so that both agree on owners.
    let text = sql!(
        "DELETE FROM sweep_candidates AS k WHERE {is_owned} AND k.provider = $1",
        is_owned = is_owned(),
    );
    statement("delete owned sweep candidates", text)
        .bind::<Text, _>(provider.to_owned())
        .execute(tx.connection()?)
        .await
}

/// Returns candidates that were first seen at least `grace_seconds` ago, after a position, ordered by tenant,
/// key and multipart id.
pub async fn list_due(
    tx: &mut SystemTx,
    provider: &str,
    grace_seconds: u64,
    after: Option<&SweepCandidate>,
    limit: i64,
) -> Result<Vec<SweepCandidate>, DbError> {
    type Position = Record<(SqlUuid, Text, Text)>;
    let start = (TenantId::from_uuid(Uuid::nil()), "", "");
    let after =
        after.map_or(start, |after| (after.key.tenant(), after.key.as_str(), multipart_column(after)));
    let position =
        (sweep_candidates::tenant_id, sweep_candidates::storage_key, sweep_candidates::multipart_id);
    let page = sweep_candidates::table
        .across_tenants()
        .filter(sweep_candidates::provider.eq(provider))
        .filter(sweep_candidates::first_seen_time.le(now_minus(seconds_u64(grace_seconds))))
        .filter(position.into_sql::<Position>().gt(after))
        .order(position)
        .limit(limit)
        .select((
            sweep_candidates::storage_key,
            sweep_candidates::multipart_id,
            sweep_candidates::size_bytes,
        ));
    let rows: Vec<(ObjectKey, String, i64)> =
        query("list due sweep candidates", page).load(tx.connection()?).await?;
    let candidate = |(key, multipart_id, size_bytes): (ObjectKey, String, i64)| SweepCandidate {
        key,
        multipart_id: Some(multipart_id).filter(|id| !id.is_empty()),
        size_bytes: u64::try_from(size_bytes).unwrap_or_default(),
    };
    Ok(rows.into_iter().map(candidate).collect())
}

/// Deletes a candidate that was deleted from the store, or that a row owns.
pub async fn delete(tx: &mut SystemTx, provider: &str, candidate: &SweepCandidate) -> Result<(), DbError> {
    let row = sweep_candidates::table
        .of(candidate.key.tenant())
        .filter(sweep_candidates::provider.eq(provider))
        .filter(sweep_candidates::storage_key.eq(&candidate.key))
        .filter(sweep_candidates::multipart_id.eq(multipart_column(candidate)));
    query("delete sweep candidate", diesel::delete(row)).execute(tx.connection()?).await.map(|_| ())
}

/// The number and size of candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Queryable)]
pub struct SweepCandidateTotals {
    /// The number of objects and multipart uploads.
    pub count: i64,
    /// The total size of the objects.
    pub bytes: i64,
}

/// Counts the candidates of a provider.
pub async fn count_all(tx: &mut SystemTx, provider: &str) -> Result<SweepCandidateTotals, DbError> {
    let bytes = coalesce(sum_of(sweep_candidates::size_bytes), 0.into_sql::<BigInt>());
    let totals = sweep_candidates::table
        .across_tenants()
        .filter(sweep_candidates::provider.eq(provider))
        .select((count_star(), bytes));
    query("count sweep candidates", totals).one(tx.connection()?).await
}

fn tenants(candidates: &[SweepCandidate]) -> Vec<TenantId> {
    candidates.iter().map(|one| one.key.tenant()).collect()
}

fn keys(candidates: &[SweepCandidate]) -> Vec<ObjectKey> {
    candidates.iter().map(|one| one.key.clone()).collect()
}

fn multipart_ids(candidates: &[SweepCandidate]) -> Vec<String> {
    candidates.iter().map(|one| multipart_column(one).to_owned()).collect()
}

/// Returns the column `multipart_id` of a candidate. It is part of the primary key, so it cannot be NULL.
fn multipart_column(candidate: &SweepCandidate) -> &str {
    candidate.multipart_id.as_deref().unwrap_or_default()
}
