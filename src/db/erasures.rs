//! Erasures of files and tenants. They override a retention once they are approved; see the guard
//! `app.guard_protected_file`.

use diesel::{
    BoolExpressionMethods as _, ExpressionMethods as _, NullableExpressionMethods as _,
    PgExpressionMethods as _, QueryDsl as _, Queryable, Selectable, SelectableHelper as _,
};

use super::{
    DbError, TenantTx,
    schema::erasures,
    sql::{OfTenant as _, days, now, now_plus, query},
};
use crate::domain::{
    clock::Timestamp,
    erasure::{Approval, Erasure, OperatorName},
    ids::{ErasureId, FileId, TenantId},
};

#[derive(Queryable, Selectable)]
#[diesel(table_name = erasures, check_for_backend(diesel::pg::Pg))]
struct Row {
    tenant_id: TenantId,
    id: ErasureId,
    file_id: Option<FileId>,
    reason: String,
    requested_by: String,
    requested_by_issuer: String,
    request_time: Timestamp,
    approved_by: Option<String>,
    approved_by_issuer: Option<String>,
    approve_time: Option<Timestamp>,
    expire_time: Timestamp,
    use_time: Option<Timestamp>,
}

impl From<Row> for Erasure {
    fn from(row: Row) -> Self {
        let approved_by = row.approved_by_issuer.zip(row.approved_by);
        let approval = approved_by
            .zip(row.approve_time)
            .map(|((issuer, subject), time)| Approval { by: OperatorName { issuer, subject }, time });
        Self {
            id: row.id,
            tenant: row.tenant_id,
            file: row.file_id,
            reason: row.reason,
            requested_by: OperatorName { issuer: row.requested_by_issuer, subject: row.requested_by },
            request_time: row.request_time,
            approval,
            expire_time: row.expire_time,
            use_time: row.use_time,
        }
    }
}

/// A new request for an erasure.
#[derive(Debug, Clone, Copy)]
pub struct NewErasure<'a> {
    pub id: ErasureId,
    /// The file; `None` means the whole tenant.
    pub file: Option<FileId>,
    pub reason: &'a str,
    pub requested_by: &'a OperatorName,
    /// The time until it expires, in days.
    pub days: u32,
}

/// Inserts an erasure of the transaction's tenant.
pub async fn insert(tx: &mut TenantTx, new: NewErasure<'_>) -> Result<Erasure, DbError> {
    let insert = diesel::insert_into(erasures::table)
        .values((
            erasures::tenant_id.eq(tx.tenant()),
            erasures::id.eq(new.id),
            erasures::file_id.eq(new.file),
            erasures::reason.eq(new.reason),
            erasures::requested_by.eq(&new.requested_by.subject),
            erasures::requested_by_issuer.eq(&new.requested_by.issuer),
            erasures::request_time.eq(now()),
            erasures::expire_time.eq(now_plus(days(new.days))),
        ))
        .returning(Row::as_returning());
    let row: Row = query("insert erasure", insert).one(tx.connection()?).await?;
    Ok(row.into())
}

/// Returns an erasure that has not expired, and locks it until the transaction ends.
pub async fn get_for_update(tx: &mut TenantTx, id: ErasureId) -> Result<Option<Erasure>, DbError> {
    let current = erasures::table
        .of(tx.tenant())
        .filter(erasures::id.eq(id))
        .filter(erasures::expire_time.gt(now()))
        .select(Row::as_select())
        .for_update();
    let row: Option<Row> = query("lock erasure", current).first(tx.connection()?).await?;
    Ok(row.map(Erasure::from))
}

/// Records the approval of an erasure that was read with [`get_for_update`]. It can be used for `expire_days`.
pub async fn approve(
    tx: &mut TenantTx,
    id: ErasureId,
    approved_by: &OperatorName,
    expire_days: u32,
) -> Result<Erasure, DbError> {
    let update = diesel::update(erasures::table.of(tx.tenant()).filter(erasures::id.eq(id)))
        .set((
            erasures::approved_by.eq(&approved_by.subject),
            erasures::approved_by_issuer.eq(&approved_by.issuer),
            erasures::approve_time.eq(now().nullable()),
            erasures::expire_time.eq(now_plus(days(expire_days))),
        ))
        .returning(Row::as_returning());
    let row: Row = query("approve erasure", update).one(tx.connection()?).await?;
    Ok(row.into())
}

/// Returns the newest erasures of the transaction's tenant.
pub async fn list(tx: &mut TenantTx, limit: i64) -> Result<Vec<Erasure>, DbError> {
    let newest = erasures::table
        .of(tx.tenant())
        .order((erasures::request_time.desc(), erasures::id.desc()))
        .limit(limit)
        .select(Row::as_select());
    let rows: Vec<Row> = query("list erasures", newest).load(tx.connection()?).await?;
    Ok(rows.into_iter().map(Erasure::from).collect())
}

/// Marks the approved erasures of a file, or of the whole tenant (`None`), as used. Returns one of them, or `None` if there is none that has not expired. From then on the database permits the deletion of files that
/// only a retention protects.
pub async fn mark_used(tx: &mut TenantTx, file: Option<FileId>) -> Result<Option<Erasure>, DbError> {
    let approved = erasures::table
        .of(tx.tenant())
        .filter(erasures::file_id.is_not_distinct_from(file))
        .filter(erasures::approve_time.is_not_null())
        .filter(erasures::expire_time.gt(now()));
    let update =
        diesel::update(approved).set(erasures::use_time.eq(now().nullable())).returning(Row::as_returning());
    let row: Option<Row> = query("use erasure", update).first(tx.connection()?).await?;
    Ok(row.map(Erasure::from))
}

/// Returns whether an erasure of the whole tenant is in use.
pub async fn is_tenant_erasure_used(tx: &mut TenantTx) -> Result<bool, DbError> {
    let used = erasures::table
        .of(tx.tenant())
        .filter(erasures::file_id.is_null().and(erasures::use_time.is_not_null()));
    query("find used erasure", diesel::select(diesel::dsl::exists(used))).one(tx.connection()?).await
}
