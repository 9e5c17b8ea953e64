//! What the sweeper has found in a store without a row that owns it, and waits to remove.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Bool, Double, Text, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{DbError, SystemTx, statement::statement, sweeps::seconds};
use crate::domain::object_key::ObjectKey;

/// An object in a store, or an upload to it that was never finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its key.
    pub key: ObjectKey,
    /// The store's id of the unfinished upload; none for an object.
    pub multipart_id: Option<String>,
    /// How large the object is; 0 for an unfinished upload.
    pub size_bytes: u64,
}

/// What the database says about something in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A blob or an upload owns it.
    Owned,
    /// No row owns it.
    Nobodys,
    /// No row owns it, and it was found before.
    Waiting,
    /// Its tenant is not in this database, so it cannot be ours.
    Foreign,
}

/// Whether a row owns `k`, whatever it calls the provider. A key is made once, and a move makes a fresh one, so a row with
/// this key means this object: under the provider's former name too, and where two names mean one place. An upload's row
/// owns whatever has its key, in every state (what a direct upload is copied from: until it is committed), and so does a stray object's: whoever ends them cleans up.
const IS_OWNED: &str = "(k.multipart_id = '' AND EXISTS (
        SELECT FROM blobs AS b WHERE b.tenant_id = k.tenant_id AND b.storage_key = k.storage_key)
     OR EXISTS (SELECT FROM uploads AS u WHERE u.tenant_id = k.tenant_id AND u.storage_key = k.storage_key)
     OR EXISTS (SELECT FROM uploads AS u WHERE u.tenant_id = k.tenant_id AND u.staging_key = k.storage_key
          AND u.state <> 2)
     OR EXISTS (SELECT FROM stray_objects AS s WHERE s.tenant_id = k.tenant_id AND s.storage_key = k.storage_key))";

#[derive(QueryableByName)]
struct VerdictRow {
    #[diesel(sql_type = BigInt)]
    n: i64,
    #[diesel(sql_type = Bool)]
    has_tenant: bool,
    #[diesel(sql_type = Bool)]
    is_owned: bool,
    #[diesel(sql_type = Bool)]
    is_waiting: bool,
}

/// What is known of each of these, in order. One statement, so one snapshot: what passes from an upload to a blob
/// meanwhile is owned in either.
pub async fn judge(
    tx: &mut SystemTx,
    provider: &str,
    candidates: &[Candidate],
) -> Result<Vec<Verdict>, DbError> {
    let sql = format!(
        "SELECT k.n, EXISTS (SELECT FROM tenants AS t WHERE t.id = k.tenant_id) AS has_tenant, {IS_OWNED} AS is_owned,
                EXISTS (SELECT FROM sweep_candidates AS c
                        WHERE c.tenant_id = k.tenant_id AND c.provider = {{}} AND c.storage_key = k.storage_key
                          AND c.multipart_id = k.multipart_id) AS is_waiting
         FROM unnest({{}}, {{}}, {{}}) WITH ORDINALITY AS k (tenant_id, storage_key, multipart_id, n) ORDER BY k.n"
    );
    let rows: Vec<VerdictRow> = statement("look for owners", sql)
        .bind::<Text, _>(provider.to_owned())
        .bind::<Array<SqlUuid>, _>(tenants(candidates))
        .bind::<Array<Text>, _>(keys(candidates))
        .bind::<Array<Text>, _>(multipart_ids(candidates))
        .load(tx.connection()?)
        .await?;
    if rows.len() != candidates.len() {
        return Err(DbError::corrupt("look for owners", "number of rows"));
    }
    let verdict = |row: VerdictRow| match row {
        VerdictRow { is_owned: true, .. } => Verdict::Owned,
        VerdictRow { has_tenant: false, .. } => Verdict::Foreign,
        VerdictRow { is_waiting: true, .. } => Verdict::Waiting,
        VerdictRow { .. } => Verdict::Nobodys,
    };
    debug_assert!(rows.iter().zip(1..).all(|(row, n)| row.n == n));
    Ok(rows.into_iter().map(verdict).collect())
}

/// Remembers what was found, as seen now. What is remembered already keeps its time.
pub async fn insert(tx: &mut SystemTx, provider: &str, candidates: &[Candidate]) -> Result<(), DbError> {
    if candidates.is_empty() {
        return Ok(());
    }
    statement(
        "insert sweep candidates",
        "INSERT INTO sweep_candidates (tenant_id, provider, storage_key, multipart_id, size_bytes, first_seen_time)
         SELECT k.tenant_id, {}, k.storage_key, k.multipart_id, k.size_bytes, app.now()
         FROM unnest({}, {}, {}, {}) AS k (tenant_id, storage_key, multipart_id, size_bytes)
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

/// Forgets what a row owns by now; answers how many.
pub async fn delete_owned(tx: &mut SystemTx, provider: &str) -> Result<usize, DbError> {
    let sql = format!("DELETE FROM sweep_candidates AS k WHERE {IS_OWNED} AND k.provider = {{}}");
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

/// What was first seen so many seconds ago or earlier, in the order of tenant, key and multipart id, behind a position.
pub async fn list_due(
    tx: &mut SystemTx,
    provider: &str,
    grace_seconds: u64,
    after: Option<&Candidate>,
    limit: i64,
) -> Result<Vec<Candidate>, DbError> {
    const OPERATION: &str = "find due sweep candidates";
    let tenant = after.map_or(Uuid::nil(), |after| after.key.tenant().as_uuid());
    let (key, multipart_id) =
        after.map_or_else(Default::default, |after| (after.key.to_string(), multipart_id(after)));
    let rows: Vec<CandidateRow> = statement(
        OPERATION,
        "SELECT storage_key, multipart_id, size_bytes FROM sweep_candidates
         WHERE provider = {} AND first_seen_time <= app.now() - make_interval(secs => {})
           AND (tenant_id, storage_key, multipart_id) > ({}, {}, {})
         ORDER BY tenant_id, storage_key, multipart_id LIMIT {}",
    )
    .bind::<Text, _>(provider.to_owned())
    .bind::<Double, _>(seconds(grace_seconds))
    .bind::<SqlUuid, _>(tenant)
    .bind::<Text, _>(key)
    .bind::<Text, _>(multipart_id)
    .bind::<BigInt, _>(limit)
    .load(tx.connection()?)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Candidate {
                key: ObjectKey::parse(&row.storage_key)
                    .map_err(|error| DbError::corrupt(OPERATION, error))?,
                multipart_id: Some(row.multipart_id).filter(|id| !id.is_empty()),
                size_bytes: u64::try_from(row.size_bytes).unwrap_or_default(),
            })
        })
        .collect()
}

/// Forgets one that is gone from the store, or that a row owns.
pub async fn delete(tx: &mut SystemTx, provider: &str, candidate: &Candidate) -> Result<(), DbError> {
    statement(
        "delete sweep candidate",
        "DELETE FROM sweep_candidates
         WHERE tenant_id = {} AND provider = {} AND storage_key = {} AND multipart_id = {}",
    )
    .bind::<SqlUuid, _>(candidate.key.tenant().as_uuid())
    .bind::<Text, _>(provider.to_owned())
    .bind::<Text, _>(candidate.key.to_string())
    .bind::<Text, _>(multipart_id(candidate))
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// How much waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct Waiting {
    /// How many objects and unfinished uploads.
    #[diesel(sql_type = BigInt)]
    pub count: i64,
    /// How many bytes the objects have.
    #[diesel(sql_type = BigInt)]
    pub bytes: i64,
}

/// How much of a store waits to be removed.
pub async fn waiting(tx: &mut SystemTx, provider: &str) -> Result<Waiting, DbError> {
    statement(
        "count sweep candidates",
        "SELECT count(*) AS count, coalesce(sum(size_bytes), 0)::bigint AS bytes
         FROM sweep_candidates WHERE provider = {}",
    )
    .bind::<Text, _>(provider.to_owned())
    .one(tx.connection()?)
    .await
}

fn tenants(candidates: &[Candidate]) -> Vec<Uuid> {
    candidates.iter().map(|one| one.key.tenant().as_uuid()).collect()
}

fn keys(candidates: &[Candidate]) -> Vec<String> {
    candidates.iter().map(|one| one.key.to_string()).collect()
}

fn multipart_ids(candidates: &[Candidate]) -> Vec<String> {
    candidates.iter().map(multipart_id).collect()
}

fn multipart_id(candidate: &Candidate) -> String {
    candidate.multipart_id.clone().unwrap_or_default()
}
