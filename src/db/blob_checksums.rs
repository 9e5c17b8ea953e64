//! The checksums of the blocks of blobs. A value may be large, so only slices of it are read. The commit of an upload
//! inserts them (`commit.rs`); the functions here are for blobs that were committed without them.

use diesel::{
    ExpressionMethods as _, NullableExpressionMethods as _, QueryDsl as _,
    sql_types::{Binary, Uuid as SqlUuid},
};

use super::{
    DbError, SystemTx, TenantTx,
    schema::blob_checksums,
    sql::{OfTenant as _, query, slice_bytes, statement},
};
use crate::domain::{
    block_checksums::{BlockChecksums, BlockSlice, Crc32c},
    ids::{BlobId, TenantId},
};

/// A slice as arguments of [`slice_bytes`].
pub(super) struct SliceArguments {
    pub(super) from: i32,
    pub(super) length: i32,
}

impl From<BlockSlice> for SliceArguments {
    /// Saturates at a length that no value has.
    fn from(slice: BlockSlice) -> Self {
        let len_bytes = |blocks: u64| {
            i32::try_from(blocks.saturating_mul(Crc32c::LENGTH_BYTES as u64)).unwrap_or(i32::MAX)
        };
        Self { from: len_bytes(slice.first).saturating_add(1), length: len_bytes(slice.count) }
    }
}

/// Returns the checksums of some blocks of a blob: fewer if the blob has fewer blocks, and `None` if it has no
/// checksums.
pub async fn get(
    tx: &mut TenantTx,
    blob: BlobId,
    slice: BlockSlice,
) -> Result<Option<BlockChecksums>, DbError> {
    let SliceArguments { from, length } = slice.into();
    let checksums = blob_checksums::table
        .of(tx.tenant())
        .filter(blob_checksums::blob_id.eq(blob))
        .select(slice_bytes(blob_checksums::block_checksums.nullable(), from, length));
    let found: Option<Option<BlockChecksums>> =
        query("get block checksums", checksums).first(tx.connection()?).await?;
    Ok(found.flatten())
}

/// Returns all checksums of a blob, up to 20 MiB; `None` if it has none.
pub async fn get_all(
    tx: &mut SystemTx,
    tenant: TenantId,
    blob: BlobId,
) -> Result<Option<BlockChecksums>, DbError> {
    let checksums = blob_checksums::table
        .of(tenant)
        .filter(blob_checksums::blob_id.eq(blob))
        .select(blob_checksums::block_checksums);
    query("get all block checksums", checksums).first(tx.connection()?).await
}

/// Inserts the checksums of a blob that exists. Does nothing if it has some.
pub async fn insert(tx: &mut TenantTx, blob: BlobId, checksums: &BlockChecksums) -> Result<(), DbError> {
    let insert = diesel::insert_into(blob_checksums::table)
        .values((
            blob_checksums::tenant_id.eq(tx.tenant()),
            blob_checksums::blob_id.eq(blob),
            blob_checksums::block_checksums.eq(checksums),
        ))
        .on_conflict_do_nothing();
    query("insert block checksums", insert).execute(tx.connection()?).await.map(|_| ())
}

/// Inserts the checksums of a blob whose object was read completely and is intact. Does nothing if the blob has some,
/// or was deleted in the meantime.
pub async fn insert_missing(
    tx: &mut SystemTx,
    tenant: TenantId,
    blob: BlobId,
    checksums: &BlockChecksums,
) -> Result<(), DbError> {
    // An insert from a query that may conflict.
    statement(
        "insert missing block checksums",
        "INSERT INTO blob_checksums (tenant_id, blob_id, block_checksums)
         SELECT tenant_id, id, $1 FROM blobs WHERE tenant_id = $2 AND id = $3
         ON CONFLICT DO NOTHING",
    )
    .bind::<Binary, _>(checksums.clone())
    .bind::<SqlUuid, _>(tenant)
    .bind::<SqlUuid, _>(blob)
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Deletes the checksums of a blob, so that its downloads are verified as if it never had any. Returns whether it had
/// some.
pub async fn delete(tx: &mut TenantTx, blob: BlobId) -> Result<bool, DbError> {
    let delete =
        diesel::delete(blob_checksums::table.of(tx.tenant()).filter(blob_checksums::blob_id.eq(blob)));
    Ok(query("delete block checksums", delete).execute(tx.connection()?).await? == 1)
}
