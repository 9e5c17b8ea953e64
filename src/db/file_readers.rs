//! Principals that may read a file in addition to its owner and its audience: by the policy of its category, or by
//! grants. Each row repeats the sort keys of the file, and the times at which the permissions end.

use diesel::{
    ExpressionMethods as _, QueryDsl as _,
    sql_types::{Array, Text, Uuid as SqlUuid},
};

use super::{
    DbError, TenantTx,
    schema::file_readers,
    sql::{OfTenant as _, query, sql, statement},
};
use crate::domain::{ids::FileId, permission::Permission};

/// Updates whether the file is in the trash, in the rows of its readers.
pub async fn set_deleted(tx: &mut TenantTx, file: FileId, is_deleted: bool) -> Result<(), DbError> {
    let update = diesel::update(file_readers::table.of(tx.tenant()).filter(file_readers::file_id.eq(file)))
        .set(file_readers::is_deleted.eq(is_deleted));
    query("update trash flag of readers", update).execute(tx.connection()?).await.map(|_| ())
}

/// Updates the file's name in the rows of its readers.
pub async fn set_name(tx: &mut TenantTx, file: FileId, name: &str) -> Result<(), DbError> {
    let update = diesel::update(file_readers::table.of(tx.tenant()).filter(file_readers::file_id.eq(file)))
        .set(file_readers::name.eq(name));
    query("update name of readers", update).execute(tx.connection()?).await.map(|_| ())
}

/// Updates the file's size in the rows of its readers.
pub async fn set_size(tx: &mut TenantTx, file: FileId, size_bytes: u64) -> Result<(), DbError> {
    let size_bytes = i64::try_from(size_bytes).unwrap_or(i64::MAX);
    let update = diesel::update(file_readers::table.of(tx.tenant()).filter(file_readers::file_id.eq(file)))
        .set(file_readers::size_bytes.eq(size_bytes));
    query("update size of readers", update).execute(tx.connection()?).await.map(|_| ())
}

/// Returns the principals that read a file by the policy of its category.
pub async fn list_by_policy(tx: &mut TenantTx, file: FileId) -> Result<Vec<String>, DbError> {
    let readers = file_readers::table
        .of(tx.tenant())
        .filter(file_readers::file_id.eq(file))
        .filter(file_readers::is_by_policy)
        .order(file_readers::principal)
        .select(file_readers::principal);
    query("list readers", readers).load(tx.connection()?).await
}

/// Adds readers by policy to a file that is not in the trash. Their grants stay.
pub async fn insert_by_policy(tx: &mut TenantTx, file: FileId, principals: &[String]) -> Result<(), DbError> {
    // `unnest` batch.
    statement(
        "insert readers",
        "INSERT INTO file_readers (tenant_id, principal, file_id, create_time, name, size_bytes)
         SELECT f.tenant_id, principal, f.id, f.create_time, f.name, f.size_bytes
         FROM files AS f, unnest($1) AS principal WHERE f.tenant_id = $2 AND f.id = $3
         ON CONFLICT (tenant_id, file_id, principal) DO UPDATE
         SET is_by_policy = true, view_end_time = 'infinity', download_end_time = 'infinity'",
    )
    .bind::<Array<Text>, _>(principals.to_vec())
    .bind::<SqlUuid, _>(tx.tenant())
    .bind::<SqlUuid, _>(file)
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Removes readers by policy from a file that the transaction has locked. Their grants stay.
pub async fn delete_by_policy(tx: &mut TenantTx, file: FileId, principals: &[String]) -> Result<(), DbError> {
    let readers = file_readers::table
        .of(tx.tenant())
        .filter(file_readers::file_id.eq(file))
        .filter(file_readers::principal.eq_any(principals));
    let update = diesel::update(readers).set(file_readers::is_by_policy.eq(false));
    query("remove readers by policy", update).execute(tx.connection()?).await?;
    refresh(tx, file, principals).await
}

/// Computes the readers of a file with these principals again, after a change of their grants. The transaction has
/// locked the file.
pub(super) async fn refresh(tx: &mut TenantTx, file: FileId, principals: &[String]) -> Result<(), DbError> {
    // A batch with the latest expiry per permission. A reader without one is deleted.
    let text = sql!(
        "WITH computed AS (
             SELECT p.principal, coalesce(r.is_by_policy, false) AS is_by_policy,
                CASE WHEN r.is_by_policy THEN 'infinity'
                    ELSE max(coalesce(g.expire_time, 'infinity')) FILTER (WHERE g.id IS NOT NULL) END AS view_end_time,
                CASE WHEN r.is_by_policy THEN 'infinity'
                    ELSE coalesce(max(coalesce(g.expire_time, 'infinity')) FILTER (WHERE g.permission >= {download}),
                        '-infinity') END AS download_end_time,
                coalesce(max(coalesce(g.expire_time, 'infinity')) FILTER (WHERE g.permission >= {delete}),
                    '-infinity') AS delete_end_time
             FROM (SELECT DISTINCT unnest($1) AS principal) AS p
             LEFT JOIN file_readers AS r ON r.tenant_id = $2 AND r.file_id = $3 AND r.principal = p.principal
             LEFT JOIN file_grants AS g ON g.tenant_id = $2 AND g.file_id = $3 AND g.principal = p.principal
             GROUP BY p.principal, r.is_by_policy
         ), deleted AS (
             DELETE FROM file_readers AS r USING computed AS c
             WHERE r.tenant_id = $2 AND r.file_id = $3 AND r.principal = c.principal AND c.view_end_time IS NULL
         )
         INSERT INTO file_readers AS r (tenant_id, principal, file_id, create_time, name, size_bytes, is_deleted,
            is_by_policy, view_end_time, download_end_time, delete_end_time)
         SELECT f.tenant_id, c.principal, f.id, f.create_time, f.name, f.size_bytes, f.delete_time IS NOT NULL,
            c.is_by_policy, c.view_end_time, c.download_end_time, c.delete_end_time
         FROM computed AS c JOIN files AS f ON f.tenant_id = $2 AND f.id = $3
         WHERE c.view_end_time IS NOT NULL
         ON CONFLICT (tenant_id, file_id, principal) DO UPDATE
         SET view_end_time = excluded.view_end_time, download_end_time = excluded.download_end_time,
            delete_end_time = excluded.delete_end_time",
        download = Permission::Download,
        delete = Permission::Delete,
    );
    statement("refresh readers", text)
        .bind::<Array<Text>, _>(principals.to_vec())
        .bind::<SqlUuid, _>(tx.tenant())
        .bind::<SqlUuid, _>(file)
        .execute(tx.connection()?)
        .await
        .map(|_| ())
}
