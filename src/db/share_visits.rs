//! What a visitor of a share needs to know about it.

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Binary, Bool, Integer, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};

use super::{DbError, TenantTx, sql::statement};
use crate::domain::{
    caller::TenantState,
    clock::Timestamp,
    digest::Digest,
    file::ContentState,
    ids::{FileId, ShareId},
};

/// What names a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareKey {
    /// The digest of its token.
    Token(Digest),
    /// Its id, from a grant that this service has sealed.
    Id(ShareId),
}

/// A tenant and one of its shares, if they exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct VisitedShare {
    #[diesel(sql_type = Timestamptz)]
    pub now: Timestamp,
    /// `None` if the tenant does not exist.
    #[diesel(sql_type = Nullable<SmallInt>)]
    pub tenant_state: Option<TenantState>,
    /// The price of a download; 0 if it is free.
    #[diesel(sql_type = BigInt)]
    pub download_credits: i64,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub share: Option<ShareId>,
}

/// Finds a share of the transaction's tenant, which may be closed.
pub async fn find(tx: &mut TenantTx, key: ShareKey) -> Result<VisitedShare, DbError> {
    let (token_hash, id) = match key {
        ShareKey::Token(digest) => (Some(digest), None),
        ShareKey::Id(id) => (None, Some(id)),
    };
    // Scalar subqueries, so that there is a row although the tenant or the share does not exist.
    statement(
        "find visited share",
        "SELECT app.now() AS now, (SELECT state FROM tenants WHERE id = $1) AS tenant_state,
            coalesce((SELECT download_credits FROM tenants WHERE id = $1), 0) AS download_credits,
            (SELECT id FROM shares WHERE tenant_id = $1 AND (token_hash = $2 OR id = $3)) AS share",
    )
    .bind::<SqlUuid, _>(tx.tenant())
    .bind::<Nullable<Binary>, _>(token_hash)
    .bind::<Nullable<SqlUuid>, _>(id)
    .one(tx.connection()?)
    .await
}

/// A download of a visitor that is in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningVisit {
    pub share: ShareId,
    pub secret_revision: i64,
    pub file: FileId,
    pub version: i32,
    /// The category of the file when the download was allowed.
    pub category: String,
    /// The revision of the policy that allowed the download.
    pub policy_revision: i64,
}

#[derive(QueryableByName)]
struct Unchanged {
    #[diesel(sql_type = Bool)]
    is_unchanged: bool,
}

/// Returns whether nothing has changed that could end a download: its share is open and has the same secret, its file
/// and version are still available, and the policy and the category are those that allowed it.
pub async fn is_unchanged(tx: &mut TenantTx, visit: &RunningVisit) -> Result<bool, DbError> {
    // A join of four tables; it runs several times a second for each download.
    let unchanged: Unchanged = statement(
        "check visit of share",
        "SELECT EXISTS (
            SELECT FROM shares AS s
            JOIN files AS f ON f.tenant_id = s.tenant_id AND f.id = s.file_id
            JOIN versions AS v ON v.tenant_id = f.tenant_id AND v.file_id = f.id AND v.version = $5
            JOIN tenants AS t ON t.id = s.tenant_id
            WHERE s.tenant_id = $1 AND s.id = $2 AND s.secret_revision = $3 AND s.file_id = $4
              AND s.revoke_time IS NULL AND (s.expire_time IS NULL OR s.expire_time > app.now())
              AND f.delete_time IS NULL AND f.archive_time IS NULL AND f.hold_time IS NULL
              AND f.content_state = $6 AND v.content_state = $6 AND f.category = $8
              AND t.state = $7 AND t.policy_revision = $9) AS is_unchanged",
    )
    .bind::<SqlUuid, _>(tx.tenant())
    .bind::<SqlUuid, _>(visit.share)
    .bind::<BigInt, _>(visit.secret_revision)
    .bind::<SqlUuid, _>(visit.file)
    .bind::<Integer, _>(visit.version)
    .bind::<SmallInt, _>(ContentState::Available)
    .bind::<SmallInt, _>(TenantState::Active)
    .bind::<Text, _>(visit.category.clone())
    .bind::<BigInt, _>(visit.policy_revision)
    .one(tx.connection()?)
    .await?;
    Ok(unchanged.is_unchanged)
}
