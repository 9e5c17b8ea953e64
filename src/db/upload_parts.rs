//! The stored parts of uploads. The store's own list of parts is not used, because it contains neither
//! checksums nor the epoch of the writer.

use diesel::{
    ExpressionMethods as _, QueryDsl as _, Queryable, Selectable, SelectableHelper as _,
    sql_types::{BigInt, Binary, Integer, Interval, Nullable, Text, Uuid as SqlUuid},
};

use super::{
    DbError, TenantTx,
    schema::upload_parts,
    sql::{OfTenant as _, query, seconds, sql, statement},
    uploads::UploadLease,
};
use crate::domain::{
    block_checksums::{BlockCheckpoint, BlockChecksums, Crc32c},
    checksum::Crc64,
    ids::UploadId,
    upload::UploadState,
};

/// A stored part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPart {
    /// The number, from 1.
    pub number: u32,
    pub size_bytes: u64,
    /// The etag that the store returned for the part.
    pub etag: String,
    pub crc64nvme: Crc64,
    /// The state of the SHA-256 after the last byte of the part.
    pub sha256_state: Vec<u8>,
    /// The checksum of the bytes after the last whole block. `None` if the previous version recorded the part.
    pub partial_block: Option<Crc32c>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = upload_parts, check_for_backend(diesel::pg::Pg))]
struct Row {
    number: i32,
    size_bytes: i64,
    etag: String,
    crc64nvme: Crc64,
    sha256_state: Vec<u8>,
    partial_block_checksum: Option<Crc32c>,
}

impl Row {
    fn into_part(self) -> Result<StoredPart, DbError> {
        let corrupt = |what: &str| DbError::corrupt("read part", what);
        Ok(StoredPart {
            number: u32::try_from(self.number).map_err(|_| corrupt("number"))?,
            size_bytes: u64::try_from(self.size_bytes).map_err(|_| corrupt("size"))?,
            etag: self.etag,
            crc64nvme: self.crc64nvme,
            sha256_state: self.sha256_state,
            partial_block: self.partial_block_checksum,
        })
    }
}

/// Returns all parts of an upload, ordered by number.
pub async fn list(tx: &mut TenantTx, upload: UploadId) -> Result<Vec<StoredPart>, DbError> {
    let parts = upload_parts::table
        .of(tx.tenant())
        .filter(upload_parts::upload_id.eq(upload))
        .order(upload_parts::number)
        .select(Row::as_select());
    let rows: Vec<Row> = query("list parts of upload", parts).load(tx.connection()?).await?;
    rows.into_iter().map(Row::into_part).collect()
}

/// Returns the checksums of the whole blocks of all parts before a number, or `None` if a part has none.
pub async fn list_block_checksums(
    tx: &mut TenantTx,
    upload: UploadId,
    before_number: u32,
) -> Result<Option<BlockChecksums>, DbError> {
    let of_parts = upload_parts::table
        .of(tx.tenant())
        .filter(upload_parts::upload_id.eq(upload))
        .filter(upload_parts::number.lt(to_i32(before_number)))
        .order(upload_parts::number)
        .select(upload_parts::block_checksums);
    let of_parts: Vec<Option<Vec<u8>>> =
        query("list block checksums of parts", of_parts).load(tx.connection()?).await?;
    let of_parts: Option<Vec<Vec<u8>>> = of_parts.into_iter().collect();
    Ok(of_parts.map(|of_parts| BlockChecksums::from_bytes(of_parts.concat())))
}

/// Records a part of the multipart upload with this id, in one statement. Returns false if the lease was lost or has
/// expired, or if the upload has another multipart upload now. Renews the lease if the
/// upload had fewer parts before: a part that is written again is no progress.
///
/// Replaces a part with the same number that an earlier writer left after a gap. `sniffed_mime_type` is used
/// only with the first part. `blocks` is the checkpoint after the part, if it is known.
pub async fn record(
    tx: &mut TenantTx,
    lease: UploadLease,
    multipart_id: &str,
    part: &StoredPart,
    blocks: Option<&BlockCheckpoint>,
    sniffed_mime_type: Option<&str>,
    lease_seconds: u32,
) -> Result<bool, DbError> {
    // An insert from an update.
    let text = sql!(
        "WITH renewed AS (
             UPDATE uploads SET
                 lease_expire_time = CASE WHEN renewed_part_count < $6 THEN app.now() + $1 ELSE lease_expire_time END,
                 renewed_part_count = greatest(renewed_part_count, $6),
                 sniffed_mime_type = CASE $6 WHEN 1 THEN $2 ELSE sniffed_mime_type END
             WHERE tenant_id = $3 AND id = $4 AND lease_epoch = $5 AND state = {open}
               AND lease_expire_time > app.now() AND multipart_id = $11
             RETURNING tenant_id, id)
         INSERT INTO upload_parts (tenant_id, upload_id, number, size_bytes, etag, crc64nvme, sha256_state,
             block_checksums, partial_block_checksum)
         SELECT tenant_id, id, $6, $7, $8, $9, $10, $12, $13 FROM renewed
         ON CONFLICT (tenant_id, upload_id, number) DO UPDATE
         SET size_bytes = excluded.size_bytes, etag = excluded.etag, crc64nvme = excluded.crc64nvme,
             sha256_state = excluded.sha256_state, block_checksums = excluded.block_checksums,
             partial_block_checksum = excluded.partial_block_checksum",
        open = UploadState::Open,
    );
    let recorded = statement("record part of upload", text)
        .bind::<Interval, _>(seconds(lease_seconds))
        .bind::<Nullable<Text>, _>(sniffed_mime_type.map(str::to_owned))
        .bind::<SqlUuid, _>(tx.tenant())
        .bind::<SqlUuid, _>(lease.id)
        .bind::<Integer, _>(lease.epoch)
        .bind::<Integer, _>(to_i32(part.number))
        .bind::<BigInt, _>(i64::try_from(part.size_bytes).unwrap_or(i64::MAX))
        .bind::<Text, _>(part.etag.clone())
        .bind::<Binary, _>(part.crc64nvme)
        .bind::<Binary, _>(part.sha256_state.clone())
        .bind::<Text, _>(multipart_id.to_owned())
        .bind::<Nullable<Binary>, _>(blocks.map(|blocks| blocks.whole.clone()))
        .bind::<Nullable<Binary>, _>(blocks.map(|blocks| blocks.partial))
        .execute(tx.connection()?)
        .await?;
    Ok(recorded == 1)
}

/// Deletes the parts from a number on, so that their bytes are sent again. Does nothing if the lease was
/// lost. Returns the number of deleted parts.
pub async fn delete_from(tx: &mut TenantTx, lease: UploadLease, number: u32) -> Result<usize, DbError> {
    // The query builder has no DELETE … USING.
    let text = sql!(
        "DELETE FROM upload_parts AS p USING uploads AS u
         WHERE u.tenant_id = $1 AND u.id = $2 AND u.lease_epoch = $3 AND u.state = {open}
           AND p.tenant_id = u.tenant_id AND p.upload_id = u.id AND p.number >= $4",
        open = UploadState::Open,
    );
    statement("delete parts of upload", text)
        .bind::<SqlUuid, _>(tx.tenant())
        .bind::<SqlUuid, _>(lease.id)
        .bind::<Integer, _>(lease.epoch)
        .bind::<Integer, _>(to_i32(number))
        .execute(tx.connection()?)
        .await
}

fn to_i32(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
