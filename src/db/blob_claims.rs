//! Claims of blobs by processes of background work, so that no two processes do the same work on a blob. A claim
//! expires if its process does not renew it. After a failure it delays the next attempt.
//!
//! Each claim has an id. A process that was paused until another one claimed the blob can therefore neither renew nor
//! finish the claim of the other one. A transaction that records a result finishes the claim, and is rolled back if
//! the claim is lost. A claim that has expired is lost only when another process claims the blob.

use diesel::{
    ExpressionMethods as _, QueryDsl as _, QueryableByName,
    dsl::exists,
    sql_types::{Array, Interval, Text, Uuid as SqlUuid},
};

use super::{
    DbError, SystemTx, TenantTx,
    schema::blob_claims,
    sql::{OfTenant as _, now_plus, query, seconds_u64, statement},
};
use crate::domain::ids::{BlobId, ClaimId, TenantId};

/// A kind of work on a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobWork {
    /// Reading and verifying the object.
    Scrub,
    /// Reading and verifying the copy.
    ScrubReplica,
    /// Copying the object to the replica provider.
    Replicate,
    /// Replacing the object with its copy.
    Repair,
}

impl BlobWork {
    /// Returns the name in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scrub => "scrub",
            Self::ScrubReplica => "scrub_replica",
            Self::Replicate => "replicate",
            Self::Repair => "repair",
        }
    }
}

/// The right of one process to a kind of work on a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobClaim {
    pub tenant: TenantId,
    pub blob: BlobId,
    pub work: BlobWork,
    pub id: ClaimId,
}

/// Selects the row of a claim, unless another process has claimed the blob since.
macro_rules! row_of {
    ($claim:expr) => {
        blob_claims::table
            .of($claim.tenant)
            .filter(blob_claims::blob_id.eq($claim.blob))
            .filter(blob_claims::work.eq($claim.work.name()))
            .filter(blob_claims::claim_id.eq($claim.id))
    };
}

/// A subquery for the claims of a kind of work on a blob that have not expired, in queries for blobs across tenants.
macro_rules! claims_of_blob {
    ($work:expr) => {{
        use $crate::db::schema::{blob_claims, blobs};

        blob_claims::table
            .across_tenants()
            .filter(blob_claims::tenant_id.eq(blobs::tenant_id))
            .filter(blob_claims::blob_id.eq(blobs::id))
            .filter(blob_claims::work.eq($work.name()))
            .filter(blob_claims::expire_time.gt($crate::db::sql::now()))
    }};
}

pub(super) use claims_of_blob;

#[derive(QueryableByName)]
#[diesel(table_name = blob_claims)]
struct ClaimedRow {
    tenant_id: TenantId,
    blob_id: BlobId,
}

/// Claims those of the blobs that no other process has claimed, for a time in seconds. `id` is an unused id. Returns
/// the claims. A blob that is deleted or gets another object at the same time is not claimed.
pub async fn claim(
    tx: &mut SystemTx,
    work: BlobWork,
    blobs: &[(TenantId, BlobId)],
    id: ClaimId,
    claim_seconds: u64,
) -> Result<Vec<BlobClaim>, DbError> {
    // All processes must lock in the same order.
    let mut blobs = blobs.to_vec();
    blobs.sort_unstable();
    let (tenants, ids): (Vec<TenantId>, Vec<BlobId>) = blobs.into_iter().unzip();
    // An `unnest` batch. The rows of blobs are locked before those of their claims, as a deletion does.
    let rows: Vec<ClaimedRow> = statement(
        "claim blobs",
        "WITH stored AS MATERIALIZED (
            SELECT b.tenant_id, b.id FROM blobs AS b
            JOIN unnest($3, $4) AS n (tenant_id, blob_id) ON b.tenant_id = n.tenant_id AND b.id = n.blob_id
            ORDER BY b.tenant_id, b.id FOR KEY SHARE OF b SKIP LOCKED)
         INSERT INTO blob_claims (tenant_id, blob_id, work, expire_time, claim_id)
         SELECT tenant_id, id, $1, app.now() + $2, $5 FROM stored
         ON CONFLICT (tenant_id, blob_id, work) DO UPDATE SET
            expire_time = excluded.expire_time, claim_id = excluded.claim_id
            WHERE blob_claims.expire_time <= app.now()
         RETURNING tenant_id, blob_id",
    )
    .bind::<Text, _>(work.name().to_owned())
    .bind::<Interval, _>(seconds_u64(claim_seconds))
    .bind::<Array<SqlUuid>, _>(tenants)
    .bind::<Array<SqlUuid>, _>(ids)
    .bind::<SqlUuid, _>(id)
    .load(tx.connection()?)
    .await?;
    let claim = |row: ClaimedRow| BlobClaim { tenant: row.tenant_id, blob: row.blob_id, work, id };
    Ok(rows.into_iter().map(claim).collect())
}

/// Renews a claim for a time in seconds. Returns false if it is lost.
pub async fn renew(tx: &mut SystemTx, claim: BlobClaim, claim_seconds: u64) -> Result<bool, DbError> {
    let update =
        diesel::update(row_of!(claim)).set(blob_claims::expire_time.eq(now_plus(seconds_u64(claim_seconds))));
    Ok(query("renew claim of blob", update).execute(tx.connection()?).await? == 1)
}

/// Ends a claim whose work is done. Returns false if it is lost: the transaction must then record no result.
pub async fn finish(tx: &mut SystemTx, claim: BlobClaim) -> Result<bool, DbError> {
    Ok(query("finish claim of blob", diesel::delete(row_of!(claim))).execute(tx.connection()?).await? == 1)
}

/// Returns whether a claim is not lost, in a transaction of its tenant.
pub async fn is_held(tx: &mut TenantTx, claim: BlobClaim) -> Result<bool, DbError> {
    query("find claim of blob", diesel::select(exists(row_of!(claim)))).one(tx.connection()?).await
}

/// The pause before the next attempt at work that failed, in seconds. It doubles with each failure.
#[derive(Debug, Clone, Copy)]
pub struct ClaimPause {
    pub base_seconds: u64,
    pub max_seconds: u64,
}

/// Lets a claim expire after a pause, because its work failed. Does nothing if it is lost.
pub async fn fail(tx: &mut SystemTx, claim: BlobClaim, pause: ClaimPause) -> Result<(), DbError> {
    // Arithmetic with an interval.
    statement(
        "fail claim of blob",
        "UPDATE blob_claims SET failure_count = failure_count + 1,
            expire_time = app.now() + least($1 * power(2, least(failure_count, 30)), $2)
         WHERE tenant_id = $3 AND blob_id = $4 AND work = $5 AND claim_id = $6",
    )
    .bind::<Interval, _>(seconds_u64(pause.base_seconds))
    .bind::<Interval, _>(seconds_u64(pause.max_seconds))
    .bind::<SqlUuid, _>(claim.tenant)
    .bind::<SqlUuid, _>(claim.blob)
    .bind::<Text, _>(claim.work.name().to_owned())
    .bind::<SqlUuid, _>(claim.id)
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}
