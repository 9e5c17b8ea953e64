//! The checksums of the blocks of blobs. A value may be large, so only slices of it are read. The commit of an upload
//! inserts them (`commit.rs`); the functions here are for blobs that were committed without them, or whose checksums are
//! wrong.

use diesel::{ExpressionMethods as _, NullableExpressionMethods as _, QueryDsl as _};

use super::{
    DbError, TenantTx,
    schema::{blob_checksums, blobs},
    sql::{OfTenant as _, query, slice_bytes},
};
use crate::domain::{
    block_checksums::{BlockChecksums, BlockSlice, Crc32c},
    ids::BlobId,
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
pub async fn get_all(tx: &mut TenantTx, blob: BlobId) -> Result<Option<BlockChecksums>, DbError> {
    let checksums = blob_checksums::table
        .of(tx.tenant())
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

/// Locks the row of a blob against deletion, and against other changes of its checksums. Returns false if the blob does
/// not exist.
pub async fn lock_blob(tx: &mut TenantTx, blob: BlobId) -> Result<bool, DbError> {
    let lock = blobs::table.of(tx.tenant()).filter(blobs::id.eq(blob)).select(blobs::id).for_no_key_update();
    Ok(query("lock blob of checksums", lock).execute(tx.connection()?).await? == 1)
}

/// Deletes the checksums of a blob.
pub async fn delete(tx: &mut TenantTx, blob: BlobId) -> Result<(), DbError> {
    let delete =
        diesel::delete(blob_checksums::table.of(tx.tenant()).filter(blob_checksums::blob_id.eq(blob)));
    query("delete block checksums", delete).execute(tx.connection()?).await.map(|_| ())
}
