//! Locks on files. Every change of a file takes its locks here, before the transaction writes anything, because the
//! order of a file's events is the order in which it was locked; see `docs/decisions/0010-order-of-changes.md`.
//!
//! PostgreSQL assigns the id of a transaction when it gets its first row lock, and may wait afterwards. The database
//! function `app.lock_files` therefore takes the locks, and gives the transaction's events a later id if necessary. The
//! trigger `change_order` rejects changes by a transaction that took its id earlier.

use diesel::{
    ExpressionMethods as _, IntoSql as _, QueryDsl as _, QueryableByName, SelectableHelper as _,
    dsl::exists,
    sql_types::{Array, BigInt, Jsonb, Text, Uuid as SqlUuid},
};
use diesel_async::AsyncPgConnection;

use super::{
    DbError, TenantTx,
    file_owners::OwnedFile,
    file_rows::{FileRow, basic_row},
    files::{VisibleFile, VisibleRow, viewer_permissions, visible_basic_files, visible_file, visible_files},
    schema::{files, versions},
    sql::{IsOfViewer, OfTenant as _, query, statement},
};
use crate::domain::ids::{BlobId, FileId, TenantId};

/// Returns the file with this id, if it is visible, and locks it until the transaction ends.
pub async fn get_for_update(tx: &mut TenantTx, id: FileId) -> Result<Option<VisibleFile>, DbError> {
    let tenant = tx.tenant();
    lock_all(tx.connection()?, tenant, &[id]).await?;
    let file = visible_files!(tx).filter(files::id.eq(id));
    let row: Option<VisibleRow> = query("get locked file", file).first(tx.connection()?).await?;
    Ok(row.map(visible_file))
}

/// Returns the visible files with these ids without description and metadata, and locks them in id order until
/// the transaction ends.
pub async fn get_all_for_update(tx: &mut TenantTx, ids: &[FileId]) -> Result<Vec<VisibleFile>, DbError> {
    let tenant = tx.tenant();
    lock_all(tx.connection()?, tenant, ids).await?;
    let files = visible_basic_files!(tx).filter(files::id.eq_any(ids));
    let rows: Vec<VisibleRow> = query("get locked files", files).load(tx.connection()?).await?;
    Ok(rows.into_iter().map(visible_file).collect())
}

/// Returns the file with this id, if it is visible. Prevents changes to it until the transaction ends. The transaction
/// itself must not change it.
pub async fn get_for_share(tx: &mut TenantTx, id: FileId) -> Result<Option<VisibleFile>, DbError> {
    let file = visible_files!(tx).filter(files::id.eq(id)).for_share();
    let row: Option<VisibleRow> = query("lock file for share", file).first(tx.connection()?).await?;
    Ok(row.map(visible_file))
}

/// Locks the file with this id until the transaction ends.
pub(super) async fn lock(tx: &mut TenantTx, id: FileId) -> Result<(), DbError> {
    let tenant = tx.tenant();
    lock_all(tx.connection()?, tenant, &[id]).await
}

/// Locks up to `limit` files of an owner, including those in the trash, in id order, and returns them.
pub async fn lock_of_owner(tx: &mut TenantTx, owner_id: &str, limit: i64) -> Result<Vec<OwnedFile>, DbError> {
    let tenant = tx.tenant();
    // Two limited scans. They have no order, so that each can use the index of its half.
    let found: Vec<IdRow> = statement(
        "lock files of owner",
        "(SELECT id FROM files WHERE tenant_id = $1 AND owner_id = $2 AND delete_time IS NULL LIMIT $3)
         UNION ALL
         (SELECT id FROM files WHERE tenant_id = $1 AND owner_id = $2 AND delete_time IS NOT NULL LIMIT $3)
         LIMIT $3",
    )
    .bind::<SqlUuid, _>(tenant)
    .bind::<Text, _>(owner_id.to_owned())
    .bind::<BigInt, _>(limit)
    .load(tx.connection()?)
    .await?;
    let ids: Vec<FileId> = found.into_iter().map(|row| row.id).collect();
    lock_all(tx.connection()?, tenant, &ids).await?;
    let locked = files::table
        .of(tenant)
        .filter(files::id.eq_any(ids))
        .filter(files::owner_id.eq(owner_id))
        .order(files::id)
        .select(OwnedFile::as_select());
    query("get locked files of owner", locked).load(tx.connection()?).await
}

/// Locks the files whose versions reference a blob, in id order, until the transaction ends.
pub(super) async fn lock_of_blob(
    connection: &mut AsyncPgConnection,
    tenant: TenantId,
    blob: BlobId,
) -> Result<(), DbError> {
    let referencing =
        versions::table.of(tenant).filter(versions::blob_id.eq(blob)).select(versions::file_id).distinct();
    let ids: Vec<FileId> = query("find files of blob", referencing).load(connection).await?;
    lock_all(connection, tenant, &ids).await
}

/// The id of a file to lock.
#[derive(QueryableByName)]
#[diesel(table_name = files)]
struct IdRow {
    id: FileId,
}

/// Locks files. Their later events then have later positions than their former ones.
async fn lock_all(
    connection: &mut AsyncPgConnection,
    tenant: TenantId,
    ids: &[FileId],
) -> Result<(), DbError> {
    if ids.is_empty() {
        return Ok(());
    }
    // A function of the database.
    statement("lock files", "SELECT app.lock_files($1, $2)")
        .bind::<SqlUuid, _>(tenant)
        .bind::<Array<SqlUuid>, _>(ids.to_vec())
        .execute(connection)
        .await
        .map(|_| ())
}
