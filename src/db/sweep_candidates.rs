//! Sweep candidates: objects and multipart uploads without an owner that the sweeper has found in a store.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Bool, Double, Text, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{DbError, SystemTx, sql::statement, sweeps::to_interval_seconds};
use crate::domain::object_key::ObjectKey;

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
const IS_OWNED: &str = "(k.multipart_id = '' AND EXISTS (
        SELECT FROM blobs AS b WHERE b.tenant_id = k.tenant_id AND b.storage_key = k.storage_key)
     OR EXISTS (SELECT FROM uploads AS u WHERE u.tenant_id = k.tenant_id AND u.storage_key = k.storage_key)
     OR EXISTS (SELECT FROM uploads AS u WHERE u.tenant_id = k.tenant_id AND u.staging_key = k.storage_key
          AND u.state <> 2)
     OR EXISTS (SELECT FROM stray_objects AS s WHERE s.tenant_id = k.tenant_id AND s.storage_key = k.storage_key))";

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
    let sql = format!(
        "SELECT k.n, EXISTS (SELECT FROM tenants AS t WHERE t.id = k.tenant_id) AS has_tenant, {IS_OWNED} AS is_owned,
                EXISTS (SELECT FROM sweep_candidates AS c
                        WHERE c.tenant_id = k.tenant_id AND c.provider = $1 AND c.storage_key = k.storage_key
                          AND c.multipart_id = k.multipart_id) AS is_candidate
         FROM unnest($2, $3, $4) WITH ORDINALITY AS k (tenant_id, storage_key, multipart_id, n) ORDER BY k.n"
    );
    let rows: Vec<OwnershipRow> = statement("find owners of candidates", sql)
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
    let sql = format!("DELETE FROM sweep_candidates AS k WHERE {IS_OWNED} AND k.provider = $1");
    statement("delete owned sweep candidates", sql)
        .bind::<Text, _>(provider.to_owned())
        .execute(tx.connection()?)
        .await
}

#[derive(QueryableByName)]
struct CandidateRow {
    #[diesel(sql_type = Text)]
    storage_key: String,
    #[diesel(sql_type = Text)]
    multipart_id: String,
    #[diesel(sql_type = BigInt)]
    size_bytes: i64,
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
    const OPERATION: &str = "list due sweep candidates";
    let tenant = after.map_or(Uuid::nil(), |after| after.key.tenant().as_uuid());
    let (key, multipart_id) =
        after.map_or_else(Default::default, |after| (after.key.to_string(), multipart_id(after)));
    let rows: Vec<CandidateRow> = statement(
        OPERATION,
        "SELECT storage_key, multipart_id, size_bytes FROM sweep_candidates
         WHERE provider = $1 AND first_seen_time <= app.now() - make_interval(secs => $2)
           AND (tenant_id, storage_key, multipart_id) > ($3, $4, $5)
         ORDER BY tenant_id, storage_key, multipart_id LIMIT $6",
    )
    .bind::<Text, _>(provider.to_owned())
    .bind::<Double, _>(to_interval_seconds(grace_seconds))
    .bind::<SqlUuid, _>(tenant)
    .bind::<Text, _>(key)
    .bind::<Text, _>(multipart_id)
    .bind::<BigInt, _>(limit)
    .load(tx.connection()?)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(SweepCandidate {
                key: ObjectKey::parse(&row.storage_key)
                    .map_err(|error| DbError::corrupt(OPERATION, error))?,
                multipart_id: Some(row.multipart_id).filter(|id| !id.is_empty()),
                size_bytes: u64::try_from(row.size_bytes).unwrap_or_default(),
            })
        })
        .collect()
}

/// Deletes a candidate that was deleted from the store, or that a row owns.
pub async fn delete(tx: &mut SystemTx, provider: &str, candidate: &SweepCandidate) -> Result<(), DbError> {
    statement(
        "delete sweep candidate",
        "DELETE FROM sweep_candidates
         WHERE tenant_id = $1 AND provider = $2 AND storage_key = $3 AND multipart_id = $4",
    )
    .bind::<SqlUuid, _>(candidate.key.tenant().as_uuid())
    .bind::<Text, _>(provider.to_owned())
    .bind::<Text, _>(candidate.key.to_string())
    .bind::<Text, _>(multipart_id(candidate))
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// The number and size of candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct SweepCandidateTotals {
    /// The number of objects and multipart uploads.
    #[diesel(sql_type = BigInt)]
    pub count: i64,
    /// The total size of the objects.
    #[diesel(sql_type = BigInt)]
    pub bytes: i64,
}

/// Counts the candidates of a provider.
pub async fn count_all(tx: &mut SystemTx, provider: &str) -> Result<SweepCandidateTotals, DbError> {
    statement(
        "count sweep candidates",
        "SELECT count(*) AS count, coalesce(sum(size_bytes), 0)::bigint AS bytes
         FROM sweep_candidates WHERE provider = $1",
    )
    .bind::<Text, _>(provider.to_owned())
    .one(tx.connection()?)
    .await
}

fn tenants(candidates: &[SweepCandidate]) -> Vec<Uuid> {
    candidates.iter().map(|one| one.key.tenant().as_uuid()).collect()
}

fn keys(candidates: &[SweepCandidate]) -> Vec<String> {
    candidates.iter().map(|one| one.key.to_string()).collect()
}

fn multipart_ids(candidates: &[SweepCandidate]) -> Vec<String> {
    candidates.iter().map(multipart_id).collect()
}

fn multipart_id(candidate: &SweepCandidate) -> String {
    candidate.multipart_id.clone().unwrap_or_default()
}
