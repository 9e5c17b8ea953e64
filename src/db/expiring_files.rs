//! Files that are deleted automatically: at their `expire_time` or their `deletion_time`, whichever is
//! earlier.

use diesel::{
    BoolExpressionMethods as _, ExpressionMethods as _, IntoSql as _, NullableExpressionMethods as _,
    QueryDsl as _, Queryable, QueryableByName,
    sql_types::{BigInt, Bool, Nullable, Record, Timestamptz, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, SystemTx, TenantTx,
    schema::files,
    sql::{OfTenant as _, least, now, query, sql, statement},
};
use crate::domain::{
    clock::Timestamp,
    ids::{FileId, TenantId},
};

/// A tenant with files that will be deleted automatically.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
#[diesel(table_name = files)]
pub struct ExpiringTenant {
    #[diesel(column_name = tenant_id)]
    pub tenant: TenantId,
    /// Whether one of them is due.
    #[diesel(sql_type = Bool)]
    pub is_due: bool,
}

/// Returns up to `tenants_max` tenants with such files after a tenant, ordered by id.
///
/// Skips from tenant to tenant through the partial index `files_to_delete`. A protected file (under a legal
/// hold or in retention) is due only if the tenant has a trash to move it to.
pub async fn list_tenants(
    tx: &mut SystemTx,
    after: Option<TenantId>,
    tenants_max: i64,
) -> Result<Vec<ExpiringTenant>, DbError> {
    // Recursive skip scan.
    let text = sql!(
        "WITH RECURSIVE visited (tenant_id, n) AS (
             SELECT (SELECT f.tenant_id FROM files AS f WHERE f.delete_time IS NULL AND {due_time} IS NOT NULL
                       AND f.tenant_id > $1 ORDER BY f.tenant_id, {due_time}, f.id LIMIT 1), 1
             UNION ALL
             SELECT (SELECT f.tenant_id FROM files AS f WHERE f.delete_time IS NULL AND {due_time} IS NOT NULL
                       AND f.tenant_id > visited.tenant_id ORDER BY f.tenant_id, {due_time}, f.id LIMIT 1), n + 1
             FROM visited WHERE visited.tenant_id IS NOT NULL AND n < $2
         )
         SELECT v.tenant_id, coalesce((
             SELECT true FROM files AS f WHERE f.tenant_id = v.tenant_id AND f.delete_time IS NULL
               AND {due_time} <= app.now() AND (
                 (f.hold_time IS NULL AND (f.retain_until_time IS NULL OR f.retain_until_time <= app.now()))
                 OR (SELECT (t.policy -> 'trash' ->> 'days')::integer > 0 FROM tenants AS t WHERE t.id = v.tenant_id))
             ORDER BY {due_time}, f.id LIMIT 1
         ), false) AS is_due
         FROM visited AS v WHERE v.tenant_id IS NOT NULL ORDER BY v.n",
        due_time = "least(f.expire_time, f.deletion_time)",
    );
    statement("find tenants with files to delete", text)
        .bind::<SqlUuid, _>(after.unwrap_or(TenantId::from_uuid(Uuid::nil())))
        .bind::<BigInt, _>(tenants_max)
        .load(tx.connection()?)
        .await
}

/// A file that is due for deletion; also its position in the tenant's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Queryable)]
pub struct ExpiredFile {
    pub due_time: Timestamp,
    pub file: FileId,
}

/// Returns files of the transaction's tenant that are due and not in the trash, after a position, ordered by
/// due time.
///
/// Without a trash, protected files are excluded, because deleting them would purge them.
pub async fn list_due(
    tx: &mut TenantTx,
    has_trash: bool,
    after: Option<ExpiredFile>,
    limit: i64,
) -> Result<Vec<ExpiredFile>, DbError> {
    type Position = Record<(Nullable<Timestamptz>, SqlUuid)>;
    let after = after.map_or((Timestamp::UNIX_EPOCH, FileId::from_uuid(Uuid::nil())), |after| {
        (after.due_time, after.file)
    });
    let due_time = least(files::expire_time, files::deletion_time);
    let position = (due_time, files::id);
    let is_retention_expired =
        files::retain_until_time.is_null().or(files::retain_until_time.le(now().nullable()));
    let is_unprotected = files::hold_time.is_null().and(is_retention_expired);
    let due = files::table
        .of(tx.tenant())
        .filter(files::delete_time.is_null())
        .filter(due_time.le(now().nullable()))
        .filter(has_trash.into_sql::<Bool>().or(is_unprotected))
        .filter(position.into_sql::<Position>().gt(after))
        .order(position)
        .limit(limit)
        .select((due_time.assume_not_null(), files::id));
    query("find files to delete", due).load(tx.connection()?).await
}
