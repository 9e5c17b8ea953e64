//! Blobs: one row per stored object.

use std::borrow::Cow;

use diesel::{
    Queryable, QueryableByName, Selectable,
    sql_types::{
        Array, BigInt, Binary, Bool, Integer, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid,
    },
};
use uuid::Uuid;

use super::{DbError, SystemTx, TenantTx, schema::blobs, sql::statement};
use crate::domain::{
    checksum::Crc64,
    clock::Timestamp,
    digest::Digest,
    ids::{BlobId, TenantId},
    object_key::ObjectKey,
    storage_class::StorageClass,
};

/// A stored object.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = blobs, check_for_backend(diesel::pg::Pg))]
pub struct Blob {
    pub id: BlobId,
    /// The provider that stores the object.
    pub provider: String,
    /// The object's key at the provider.
    #[diesel(column_name = storage_key)]
    pub key: ObjectKey,
    #[diesel(deserialize_as = i64)]
    pub size_bytes: u64,
    pub sha256: Digest,
    /// The checksum, verified by every download of the whole object.
    pub crc64nvme: Crc64,
    #[diesel(column_name = storage_class)]
    pub class: StorageClass,
}

#[derive(QueryableByName)]
pub(super) struct BlobRow {
    #[diesel(sql_type = SqlUuid)]
    blob_id: Uuid,
    #[diesel(sql_type = Text)]
    provider: String,
    #[diesel(sql_type = Text)]
    storage_key: String,
    #[diesel(sql_type = BigInt)]
    blob_size_bytes: i64,
    #[diesel(sql_type = Binary)]
    blob_sha256: Vec<u8>,
    #[diesel(sql_type = Binary)]
    crc64nvme: Vec<u8>,
    #[diesel(sql_type = SmallInt)]
    storage_class: i16,
}

pub(super) const COLUMNS: &str = "b.id AS blob_id, b.provider, b.storage_key, b.size_bytes AS blob_size_bytes, \
     b.sha256 AS blob_sha256, b.crc64nvme, b.storage_class";

impl BlobRow {
    pub(super) fn into_blob(self) -> Result<Blob, DbError> {
        let corrupt = |what: &str| DbError::corrupt("read blob", what);
        Ok(Blob {
            id: BlobId::from_uuid(self.blob_id),
            provider: self.provider,
            key: ObjectKey::parse(&self.storage_key).map_err(|_| corrupt("storage key"))?,
            size_bytes: u64::try_from(self.blob_size_bytes).map_err(|_| corrupt("size"))?,
            sha256: Digest::from_slice(&self.blob_sha256).map_err(|_| corrupt("digest"))?,
            crc64nvme: Crc64::from_slice(&self.crc64nvme).ok_or_else(|| corrupt("checksum"))?,
            class: StorageClass::from_number(self.storage_class).ok_or_else(|| corrupt("storage class"))?,
        })
    }
}

/// Schedules the deletion of those blobs that no version references.
///
/// The bytes are deleted after a delay in hours, so that a database restored from a recent backup still finds
/// them.
///
/// Locks the rows first, in id order, and checks for references in a second statement. When two transactions
/// delete the last two versions of a blob concurrently, the second one therefore sees the first one's
/// changes.
pub async fn schedule_deletion(
    tx: &mut TenantTx,
    ids: &[BlobId],
    blob_deletion_delay_hours: u32,
) -> Result<(), DbError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
    statement(
        "lock blobs",
        "SELECT FROM blobs WHERE tenant_id = $1 AND id = ANY ($2) ORDER BY id FOR NO KEY UPDATE",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Array<SqlUuid>, _>(ids.clone())
    .execute(tx.connection()?)
    .await?;
    statement(
        "schedule deletion of blobs",
        "UPDATE blobs AS b SET delete_after = app.now() + make_interval(hours => $1)
         WHERE b.tenant_id = $2 AND b.id = ANY ($3)
           AND NOT EXISTS (SELECT FROM versions AS v WHERE v.tenant_id = b.tenant_id AND v.blob_id = b.id)",
    )
    .bind::<Integer, _>(i32::try_from(blob_deletion_delay_hours).unwrap_or(i32::MAX))
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Array<SqlUuid>, _>(ids)
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// A blob and the tenant it belongs to.
#[derive(Debug, Clone)]
pub struct TenantBlob {
    pub tenant: TenantId,
    pub blob: Blob,
}

/// A blob that is due for deletion.
#[derive(Debug, Clone)]
pub struct DueBlob {
    pub tenant_blob: TenantBlob,
    /// The time from which it is due.
    pub delete_after: Timestamp,
}

/// The position of a blob in the list of due blobs.
pub type DueBlobCursor = (Timestamp, TenantId, BlobId);

impl DueBlob {
    /// Returns the position of this blob in the list of due blobs.
    pub fn cursor(&self) -> DueBlobCursor {
        (self.delete_after, self.tenant_blob.tenant, self.tenant_blob.blob.id)
    }
}

#[derive(QueryableByName)]
struct TenantRow {
    #[diesel(sql_type = SqlUuid)]
    tenant_id: Uuid,
    #[diesel(embed)]
    blob: BlobRow,
}

impl TenantRow {
    fn into_blob(self) -> Result<TenantBlob, DbError> {
        Ok(TenantBlob { tenant: TenantId::from_uuid(self.tenant_id), blob: self.blob.into_blob()? })
    }
}

#[derive(QueryableByName)]
struct DueRow {
    #[diesel(sql_type = Timestamptz)]
    delete_after: Timestamp,
    #[diesel(embed)]
    tenant_blob: TenantRow,
}

/// Returns unreferenced blobs of a provider whose deletion delay has passed, after a position, ordered by due
/// time.
pub async fn list_due(
    tx: &mut SystemTx,
    provider: &str,
    after: Option<DueBlobCursor>,
    limit: i64,
) -> Result<Vec<DueBlob>, DbError> {
    let (time, tenant, id) = after.map_or((Timestamp::UNIX_EPOCH, Uuid::nil(), Uuid::nil()), |after| {
        (after.0, after.1.as_uuid(), after.2.as_uuid())
    });
    let sql = format!(
        "SELECT b.tenant_id, b.delete_after, {COLUMNS} FROM blobs AS b
         WHERE b.delete_after <= app.now() AND b.provider = $1
           AND NOT EXISTS (SELECT FROM versions AS v WHERE v.tenant_id = b.tenant_id AND v.blob_id = b.id)
           AND (b.delete_after, b.tenant_id, b.id) > ($2, $3, $4)
         ORDER BY b.delete_after, b.tenant_id, b.id LIMIT $5"
    );
    let rows: Vec<DueRow> = statement("list due blobs", sql)
        .bind::<Text, _>(provider.to_owned())
        .bind::<Timestamptz, _>(time)
        .bind::<SqlUuid, _>(tenant)
        .bind::<SqlUuid, _>(id)
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await?;
    rows.into_iter()
        .map(|row| Ok(DueBlob { tenant_blob: row.tenant_blob.into_blob()?, delete_after: row.delete_after }))
        .collect()
}

#[derive(QueryableByName)]
struct ProviderRow {
    #[diesel(sql_type = Text)]
    provider: String,
}

#[derive(QueryableByName)]
struct HasKeyRow {
    #[diesel(sql_type = Bool)]
    has_key: bool,
}

/// Returns whether a blob references the object with this key.
pub async fn has_key(tx: &mut TenantTx, key: &ObjectKey) -> Result<bool, DbError> {
    let row: HasKeyRow = statement(
        "find blob by key",
        "SELECT EXISTS (SELECT FROM blobs WHERE tenant_id = $1 AND storage_key = $2) AS has_key",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Text, _>(key.as_str().to_owned())
    .one(tx.connection()?)
    .await?;
    Ok(row.has_key)
}

/// Returns whether a blob with this id exists. Ids are never reused.
pub async fn exists(tx: &mut SystemTx, tenant: TenantId, id: BlobId) -> Result<bool, DbError> {
    let row: HasKeyRow = statement(
        "find blob by id",
        "SELECT EXISTS (SELECT FROM blobs WHERE tenant_id = $1 AND id = $2) AS has_key",
    )
    .bind::<SqlUuid, _>(tenant.as_uuid())
    .bind::<SqlUuid, _>(id.as_uuid())
    .one(tx.connection()?)
    .await?;
    Ok(row.has_key)
}

/// Returns the providers that blobs reference. Skips through the index from one (tenant, provider) pair to
/// the next, because there are far fewer pairs than blobs.
pub async fn list_providers(tx: &mut SystemTx) -> Result<Vec<String>, DbError> {
    let rows: Vec<ProviderRow> = statement(
        "list providers of blobs",
        "WITH RECURSIVE walk AS (
             (SELECT tenant_id, provider FROM blobs ORDER BY tenant_id, provider LIMIT 1)
             UNION ALL
             SELECT next.tenant_id, next.provider FROM walk CROSS JOIN LATERAL (
                 SELECT b.tenant_id, b.provider FROM blobs AS b
                 WHERE (b.tenant_id, b.provider) > (walk.tenant_id, walk.provider)
                 ORDER BY b.tenant_id, b.provider LIMIT 1) AS next
         )
         SELECT DISTINCT provider FROM walk ORDER BY provider",
    )
    .load(tx.connection()?)
    .await?;
    Ok(rows.into_iter().map(|row| row.provider).collect())
}

/// A blob that can be moved to another provider.
#[derive(Debug, Clone)]
pub struct MovableBlob {
    pub tenant_blob: TenantBlob,
    /// The uploader, from the blob's first version.
    pub created_by: Option<String>,
}

#[derive(QueryableByName)]
pub(super) struct MovableRow {
    #[diesel(sql_type = Nullable<Text>)]
    created_by: Option<String>,
    #[diesel(embed)]
    tenant_blob: TenantRow,
}

/// The columns of a [`MovableRow`]. The blobs table has the alias `b`.
pub(super) fn movable_columns() -> String {
    format!(
        "b.tenant_id, {COLUMNS}, (
             SELECT v.created_by FROM versions AS v WHERE v.tenant_id = b.tenant_id AND v.blob_id = b.id
             ORDER BY v.create_time, v.file_id LIMIT 1) AS created_by"
    )
}

/// Selects movable blobs: those whose deletion is not scheduled and whose digest is known.
pub(super) const IS_MOVABLE: &str = "b.delete_after IS NULL AND b.sha256 <> decode(repeat('00', 32), 'hex')";

impl MovableRow {
    pub(super) fn into_blob(self) -> Result<MovableBlob, DbError> {
        Ok(MovableBlob { tenant_blob: self.tenant_blob.into_blob()?, created_by: self.created_by })
    }
}

/// Returns movable blobs of a provider after a position, ordered by (tenant, id). A blob is movable if its
/// deletion is not scheduled and its digest is known.
pub async fn list_movable(
    tx: &mut SystemTx,
    provider: &str,
    after: Option<(TenantId, BlobId)>,
    limit: i64,
) -> Result<Vec<MovableBlob>, DbError> {
    let (tenant, id) =
        after.map_or((Uuid::nil(), Uuid::nil()), |(tenant, id)| (tenant.as_uuid(), id.as_uuid()));
    let sql = format!(
        "SELECT {} FROM blobs AS b
         WHERE (b.tenant_id, b.id) > ($1, $2) AND b.provider = $3 AND {IS_MOVABLE}
         ORDER BY b.tenant_id, b.id LIMIT $4",
        movable_columns()
    );
    let rows: Vec<MovableRow> = statement("list movable blobs", sql)
        .bind::<SqlUuid, _>(tenant)
        .bind::<SqlUuid, _>(id)
        .bind::<Text, _>(provider.to_owned())
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await?;
    rows.into_iter().map(MovableRow::into_blob).collect()
}

#[derive(QueryableByName)]
struct CountRow {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Counts the blobs of a provider whose deletion is scheduled.
pub async fn count_scheduled(tx: &mut SystemTx, provider: &str) -> Result<u64, DbError> {
    let sql = "SELECT count(*) AS count FROM blobs WHERE delete_after IS NOT NULL AND provider = $1";
    count(tx, "count blobs scheduled for deletion", sql, provider).await
}

/// Counts all blobs that [`list_movable`] selects.
pub async fn count_movable(tx: &mut SystemTx, provider: &str) -> Result<u64, DbError> {
    let sql = format!("SELECT count(*) AS count FROM blobs AS b WHERE b.provider = $1 AND {IS_MOVABLE}");
    count(tx, "count movable blobs", sql, provider).await
}

/// The number of blobs whose digest is unknown, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UndigestedCounts {
    /// Blobs of direct uploads that are not verified yet.
    pub unverified: u64,
    /// Blobs of direct uploads that failed verification.
    pub refused: u64,
}

#[derive(QueryableByName)]
struct UndigestedRow {
    #[diesel(sql_type = BigInt)]
    unverified: i64,
    #[diesel(sql_type = BigInt)]
    refused: i64,
}

/// Counts the blobs of a provider that [`list_movable`] skips because their digest is unknown.
pub async fn count_undigested(tx: &mut SystemTx, provider: &str) -> Result<UndigestedCounts, DbError> {
    let row: UndigestedRow = statement(
        "count blobs without digest",
        // 1: processing
        "SELECT count(*) FILTER (WHERE is_processing) AS unverified,
            count(*) FILTER (WHERE NOT is_processing) AS refused
         FROM (
             SELECT EXISTS (
                 SELECT FROM versions AS v
                 WHERE v.tenant_id = b.tenant_id AND v.blob_id = b.id AND v.content_state = 1) AS is_processing
             FROM blobs AS b
             WHERE b.provider = $1 AND b.delete_after IS NULL AND b.sha256 = decode(repeat('00', 32), 'hex')
         ) AS undigested",
    )
    .bind::<Text, _>(provider.to_owned())
    .one(tx.connection()?)
    .await?;
    Ok(UndigestedCounts {
        unverified: u64::try_from(row.unverified).unwrap_or_default(),
        refused: u64::try_from(row.refused).unwrap_or_default(),
    })
}

async fn count(
    tx: &mut SystemTx,
    operation: &'static str,
    sql: impl Into<Cow<'static, str>>,
    provider: &str,
) -> Result<u64, DbError> {
    let row: CountRow =
        statement(operation, sql).bind::<Text, _>(provider.to_owned()).one(tx.connection()?).await?;
    Ok(u64::try_from(row.count).unwrap_or_default())
}

/// Points a blob to another object with the same bytes.
///
/// Returns false if the blob has been moved in the meantime or its deletion is scheduled.
pub async fn relocate(
    tx: &mut SystemTx,
    from: &TenantBlob,
    provider: &str,
    key: &ObjectKey,
    class: StorageClass,
) -> Result<bool, DbError> {
    let updated = statement(
        "relocate blob",
        "UPDATE blobs SET provider = $1, storage_key = $2, storage_class = $3
         WHERE tenant_id = $4 AND id = $5 AND provider = $6 AND storage_key = $7 AND delete_after IS NULL",
    )
    .bind::<Text, _>(provider.to_owned())
    .bind::<Text, _>(key.as_str().to_owned())
    .bind::<SmallInt, _>(class.number())
    .bind::<SqlUuid, _>(from.tenant.as_uuid())
    .bind::<SqlUuid, _>(from.blob.id.as_uuid())
    .bind::<Text, _>(from.blob.provider.clone())
    .bind::<Text, _>(from.blob.key.as_str().to_owned())
    .execute(tx.connection()?)
    .await?;
    Ok(updated == 1)
}

/// The recorded storage usage of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderUsage {
    pub provider: String,
    pub objects: u64,
    pub bytes: u64,
    /// The part of `bytes` that is in the archive storage class.
    pub archived_bytes: u64,
}

#[derive(QueryableByName)]
struct ProviderUsageRow {
    #[diesel(sql_type = Text)]
    provider: String,
    #[diesel(sql_type = BigInt)]
    objects: i64,
    #[diesel(sql_type = BigInt)]
    bytes: i64,
    #[diesel(sql_type = BigInt)]
    archived_bytes: i64,
}

/// Returns the storage usage of every provider. Reads all blobs: for operators, not for requests.
pub async fn list_provider_usage(tx: &mut SystemTx) -> Result<Vec<ProviderUsage>, DbError> {
    let rows: Vec<ProviderUsageRow> = statement(
        "sum up blobs",
        // 2: archive
        "SELECT provider, count(*) AS objects, sum(size_bytes)::bigint AS bytes,
            coalesce(sum(size_bytes) FILTER (WHERE storage_class = 2), 0)::bigint AS archived_bytes
         FROM blobs GROUP BY provider",
    )
    .load(tx.connection()?)
    .await?;
    let usage = |row: ProviderUsageRow| ProviderUsage {
        provider: row.provider,
        objects: u64::try_from(row.objects).unwrap_or_default(),
        bytes: u64::try_from(row.bytes).unwrap_or_default(),
        archived_bytes: u64::try_from(row.archived_bytes).unwrap_or_default(),
    };
    Ok(rows.into_iter().map(usage).collect())
}

/// Deletes the row of a blob whose object has been deleted.
pub async fn delete(tx: &mut SystemTx, tenant: TenantId, id: BlobId) -> Result<(), DbError> {
    statement("delete blob", "DELETE FROM blobs WHERE tenant_id = $1 AND id = $2")
        .bind::<SqlUuid, _>(tenant.as_uuid())
        .bind::<SqlUuid, _>(id.as_uuid())
        .execute(tx.connection()?)
        .await
        .map(|_| ())
}

/// Returns blobs of one tenant, whether referenced or not. For tenants that are being erased.
pub async fn list_for_tenant(
    tx: &mut SystemTx,
    tenant: TenantId,
    limit: i64,
) -> Result<Vec<TenantBlob>, DbError> {
    let sql = format!(
        "SELECT b.tenant_id, {COLUMNS} FROM blobs AS b WHERE b.tenant_id = $1 ORDER BY b.id LIMIT $2"
    );
    let rows: Vec<TenantRow> = statement("list blobs of tenant", sql)
        .bind::<SqlUuid, _>(tenant.as_uuid())
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await?;
    rows.into_iter().map(TenantRow::into_blob).collect()
}

#[derive(QueryableByName)]
struct DeletedRow {
    #[diesel(sql_type = BigInt)]
    objects: i64,
    #[diesel(sql_type = BigInt)]
    bytes: i64,
}

/// Deletes the rows of blobs whose objects have been deleted. Returns their number and total size in bytes.
pub async fn delete_all(tx: &mut SystemTx, tenant: TenantId, ids: &[BlobId]) -> Result<(i64, i64), DbError> {
    let row: DeletedRow = statement(
        "delete blobs",
        "WITH deleted AS (DELETE FROM blobs WHERE tenant_id = $1 AND id = ANY ($2) RETURNING size_bytes)
         SELECT count(*) AS objects, coalesce(sum(size_bytes), 0)::bigint AS bytes FROM deleted",
    )
    .bind::<SqlUuid, _>(tenant.as_uuid())
    .bind::<Array<SqlUuid>, _>(ids.iter().map(|id| id.as_uuid()).collect::<Vec<_>>())
    .one(tx.connection()?)
    .await?;
    Ok((row.objects, row.bytes))
}
