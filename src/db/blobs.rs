//! Stored objects: one object, one row.

use std::borrow::Cow;

use diesel::{
    QueryableByName,
    sql_types::{
        Array, BigInt, Binary, Bool, Integer, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid,
    },
};
use uuid::Uuid;

use super::{DbError, SystemTx, TenantTx, statement::statement};
use crate::domain::{
    checksum::Crc64,
    clock::Timestamp,
    digest::Digest,
    ids::{BlobId, TenantId},
    object_key::ObjectKey,
    storage_class::StorageClass,
};

/// A stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Its id.
    pub id: BlobId,
    /// The provider that holds it.
    pub provider: String,
    /// Its key there.
    pub key: ObjectKey,
    /// Its size.
    pub size_bytes: u64,
    /// Its digest.
    pub sha256: Digest,
    /// Its checksum, compared with every download of the whole.
    pub crc64nvme: Crc64,
    /// The class of storage that it was put in.
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
    pub(super) fn read(self) -> Result<Blob, DbError> {
        let bad = |what: &str| DbError::corrupt("read blob", what);
        Ok(Blob {
            id: BlobId::from_uuid(self.blob_id),
            provider: self.provider,
            key: ObjectKey::parse(&self.storage_key).map_err(|_| bad("storage key"))?,
            size_bytes: u64::try_from(self.blob_size_bytes).map_err(|_| bad("size"))?,
            sha256: Digest::from_slice(&self.blob_sha256).map_err(|_| bad("digest"))?,
            crc64nvme: Crc64::from_slice(&self.crc64nvme).ok_or_else(|| bad("checksum"))?,
            class: StorageClass::from_number(self.storage_class).ok_or_else(|| bad("storage class"))?,
        })
    }
}

/// Lets go of blobs that no version refers to any more: their bytes go after so many hours, so that a database restored
/// to an hour ago still finds them.
///
/// Their rows are locked first, in one order, and asked about in a statement of their own: of two transactions that take the
/// last two versions away from a blob, the second sees what the first did.
pub async fn release(tx: &mut TenantTx, ids: &[BlobId], undelete_window_hours: u32) -> Result<(), DbError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
    statement(
        "lock blobs",
        "SELECT FROM blobs WHERE tenant_id = {} AND id = ANY ({}) ORDER BY id FOR NO KEY UPDATE",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Array<SqlUuid>, _>(ids.clone())
    .execute(tx.connection()?)
    .await?;
    statement(
        "release blobs",
        "UPDATE blobs AS b SET delete_after = app.now() + make_interval(hours => {})
         WHERE b.tenant_id = {} AND b.id = ANY ({})
           AND NOT EXISTS (SELECT FROM versions AS v WHERE v.tenant_id = b.tenant_id AND v.blob_id = b.id)",
    )
    .bind::<Integer, _>(i32::try_from(undelete_window_hours).unwrap_or(i32::MAX))
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Array<SqlUuid>, _>(ids)
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// A blob and whose it is.
#[derive(Debug, Clone)]
pub struct TenantBlob {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub blob: Blob,
}

/// A blob whose time has come.
#[derive(Debug, Clone)]
pub struct DueBlob {
    /// Which, and whose.
    pub owned: TenantBlob,
    /// Since when.
    pub delete_after: Timestamp,
}

/// The place of a due blob in the list of all.
pub type DuePlace = (Timestamp, TenantId, BlobId);

impl DueBlob {
    /// Its place in the list.
    pub fn place(&self) -> DuePlace {
        (self.delete_after, self.owned.tenant, self.owned.blob.id)
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
    fn read(self) -> Result<TenantBlob, DbError> {
        Ok(TenantBlob { tenant: TenantId::from_uuid(self.tenant_id), blob: self.blob.read()? })
    }
}

#[derive(QueryableByName)]
struct DueRow {
    #[diesel(sql_type = Timestamptz)]
    delete_after: Timestamp,
    #[diesel(embed)]
    owned: TenantRow,
}

/// Blobs of one provider that nothing refers to and whose undelete window has passed; longest first, behind a place.
pub async fn list_due(
    tx: &mut SystemTx,
    provider: &str,
    after: Option<DuePlace>,
    limit: i64,
) -> Result<Vec<DueBlob>, DbError> {
    let (time, tenant, id) = after.map_or((Timestamp::UNIX_EPOCH, Uuid::nil(), Uuid::nil()), |after| {
        (after.0, after.1.as_uuid(), after.2.as_uuid())
    });
    let sql = format!(
        "SELECT b.tenant_id, b.delete_after, {COLUMNS} FROM blobs AS b
         WHERE b.delete_after <= app.now() AND b.provider = {{}}
           AND NOT EXISTS (SELECT FROM versions AS v WHERE v.tenant_id = b.tenant_id AND v.blob_id = b.id)
           AND (b.delete_after, b.tenant_id, b.id) > ({{}}, {{}}, {{}})
         ORDER BY b.delete_after, b.tenant_id, b.id LIMIT {{}}"
    );
    let rows: Vec<DueRow> = statement("find due blobs", sql)
        .bind::<Text, _>(provider.to_owned())
        .bind::<Timestamptz, _>(time)
        .bind::<SqlUuid, _>(tenant)
        .bind::<SqlUuid, _>(id)
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await?;
    rows.into_iter()
        .map(|row| Ok(DueBlob { owned: row.owned.read()?, delete_after: row.delete_after }))
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

/// Whether a blob refers to the object of this key.
pub async fn has_key(tx: &mut TenantTx, key: &ObjectKey) -> Result<bool, DbError> {
    let row: HasKeyRow = statement(
        "look for blob",
        "SELECT EXISTS (SELECT FROM blobs WHERE tenant_id = {} AND storage_key = {}) AS has_key",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Text, _>(key.as_str().to_owned())
    .one(tx.connection()?)
    .await?;
    Ok(row.has_key)
}

/// Whether there is a blob with this id, which is made once.
pub async fn exists(tx: &mut SystemTx, tenant: TenantId, id: BlobId) -> Result<bool, DbError> {
    let row: HasKeyRow = statement(
        "look for the blob of an upload",
        "SELECT EXISTS (SELECT FROM blobs WHERE tenant_id = {} AND id = {}) AS has_key",
    )
    .bind::<SqlUuid, _>(tenant.as_uuid())
    .bind::<SqlUuid, _>(id.as_uuid())
    .one(tx.connection()?)
    .await?;
    Ok(row.has_key)
}

/// The providers that blobs name. Walks the index from one (tenant, provider) to the next, because there may be many more
/// blobs than of those.
pub async fn providers(tx: &mut SystemTx) -> Result<Vec<String>, DbError> {
    let rows: Vec<ProviderRow> = statement(
        "find providers",
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
    /// Which, and whose.
    pub owned: TenantBlob,
    /// Who brought its bytes, as its first version says.
    pub created_by: Option<String>,
}

#[derive(QueryableByName)]
pub(super) struct MovableRow {
    #[diesel(sql_type = Nullable<Text>)]
    created_by: Option<String>,
    #[diesel(embed)]
    owned: TenantRow,
}

/// The columns of a [`MovableRow`], of blobs that are called b.
pub(super) fn movable_columns() -> String {
    format!(
        "b.tenant_id, {COLUMNS}, (
             SELECT v.created_by FROM versions AS v WHERE v.tenant_id = b.tenant_id AND v.blob_id = b.id
             ORDER BY v.create_time, v.file_id LIMIT 1) AS created_by"
    )
}

/// Which blobs can be moved: they have not been released, and their digest is known.
pub(super) const IS_MOVABLE: &str = "b.delete_after IS NULL AND b.sha256 <> decode(repeat('00', 32), 'hex')";

impl MovableRow {
    pub(super) fn read(self) -> Result<MovableBlob, DbError> {
        Ok(MovableBlob { owned: self.owned.read()?, created_by: self.created_by })
    }
}

/// Blobs of one provider that have not been released and whose digest is known, in the order of (tenant, id), behind a position.
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
         WHERE (b.tenant_id, b.id) > ({{}}, {{}}) AND b.provider = {{}} AND {IS_MOVABLE}
         ORDER BY b.tenant_id, b.id LIMIT {{}}",
        movable_columns()
    );
    let rows: Vec<MovableRow> = statement("find blobs to move", sql)
        .bind::<SqlUuid, _>(tenant)
        .bind::<SqlUuid, _>(id)
        .bind::<Text, _>(provider.to_owned())
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await?;
    rows.into_iter().map(MovableRow::read).collect()
}

#[derive(QueryableByName)]
struct CountRow {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// How many blobs of a provider have been released and wait for their time.
pub async fn count_released(tx: &mut SystemTx, provider: &str) -> Result<u64, DbError> {
    let sql = "SELECT count(*) AS count FROM blobs WHERE delete_after IS NOT NULL AND provider = {}";
    count(tx, "count released blobs", sql, provider).await
}

/// How many blobs [`list_movable`] would find in all.
pub async fn count_movable(tx: &mut SystemTx, provider: &str) -> Result<u64, DbError> {
    let sql = format!("SELECT count(*) AS count FROM blobs AS b WHERE b.provider = {{}} AND {IS_MOVABLE}");
    count(tx, "count blobs to move", sql, provider).await
}

/// Blobs whose digest is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undigested {
    /// Those that somebody is about to read.
    pub unverified: u64,
    /// Those that were read and refused.
    pub refused: u64,
}

#[derive(QueryableByName)]
struct UndigestedRow {
    #[diesel(sql_type = BigInt)]
    unverified: i64,
    #[diesel(sql_type = BigInt)]
    refused: i64,
}

/// How many blobs of a provider [`list_movable`] leaves out, because their digest is not known.
pub async fn count_undigested(tx: &mut SystemTx, provider: &str) -> Result<Undigested, DbError> {
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
             WHERE b.provider = {} AND b.delete_after IS NULL AND b.sha256 = decode(repeat('00', 32), 'hex')
         ) AS undigested",
    )
    .bind::<Text, _>(provider.to_owned())
    .one(tx.connection()?)
    .await?;
    Ok(Undigested {
        unverified: u64::try_from(row.unverified).unwrap_or_default(),
        refused: u64::try_from(row.refused).unwrap_or_default(),
    })
}

async fn count(
    tx: &mut SystemTx,
    what: &'static str,
    sql: impl Into<Cow<'static, str>>,
    provider: &str,
) -> Result<u64, DbError> {
    let row: CountRow =
        statement(what, sql).bind::<Text, _>(provider.to_owned()).one(tx.connection()?).await?;
    Ok(u64::try_from(row.count).unwrap_or_default())
}

/// Points a blob to another object of the same bytes; false when it is not where it was, or was released.
pub async fn relocate(
    tx: &mut SystemTx,
    from: &TenantBlob,
    (provider, key): (&str, &ObjectKey),
    class: StorageClass,
) -> Result<bool, DbError> {
    let touched = statement(
        "relocate blob",
        "UPDATE blobs SET provider = {}, storage_key = {}, storage_class = {}
         WHERE tenant_id = {} AND id = {} AND provider = {} AND storage_key = {} AND delete_after IS NULL",
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
    Ok(touched == 1)
}

/// What rows say that a provider holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The provider.
    pub provider: String,
    /// How many objects.
    pub objects: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// How many of these bytes are in the archive class.
    pub archived_bytes: u64,
}

#[derive(QueryableByName)]
struct HoldingRow {
    #[diesel(sql_type = Text)]
    provider: String,
    #[diesel(sql_type = BigInt)]
    objects: i64,
    #[diesel(sql_type = BigInt)]
    bytes: i64,
    #[diesel(sql_type = BigInt)]
    archived_bytes: i64,
}

/// What every provider holds. Reads all blobs: for operators, not for requests.
pub async fn holdings(tx: &mut SystemTx) -> Result<Vec<Holding>, DbError> {
    let rows: Vec<HoldingRow> = statement(
        "sum up blobs",
        // 2: archive
        "SELECT provider, count(*) AS objects, sum(size_bytes)::bigint AS bytes,
            coalesce(sum(size_bytes) FILTER (WHERE storage_class = 2), 0)::bigint AS archived_bytes
         FROM blobs GROUP BY provider",
    )
    .load(tx.connection()?)
    .await?;
    let holding = |row: HoldingRow| Holding {
        provider: row.provider,
        objects: u64::try_from(row.objects).unwrap_or_default(),
        bytes: u64::try_from(row.bytes).unwrap_or_default(),
        archived_bytes: u64::try_from(row.archived_bytes).unwrap_or_default(),
    };
    Ok(rows.into_iter().map(holding).collect())
}

/// Forgets a blob whose bytes are gone.
pub async fn delete(tx: &mut SystemTx, tenant: TenantId, id: BlobId) -> Result<(), DbError> {
    statement("delete blob", "DELETE FROM blobs WHERE tenant_id = {} AND id = {}")
        .bind::<SqlUuid, _>(tenant.as_uuid())
        .bind::<SqlUuid, _>(id.as_uuid())
        .execute(tx.connection()?)
        .await
        .map(|_| ())
}

/// Blobs of one tenant, whatever refers to them; for one whose rows are being erased.
pub async fn list_of_tenant(
    tx: &mut SystemTx,
    tenant: TenantId,
    limit: i64,
) -> Result<Vec<TenantBlob>, DbError> {
    let sql = format!(
        "SELECT b.tenant_id, {COLUMNS} FROM blobs AS b WHERE b.tenant_id = {{}} ORDER BY b.id LIMIT {{}}"
    );
    let rows: Vec<TenantRow> = statement("list blobs of tenant", sql)
        .bind::<SqlUuid, _>(tenant.as_uuid())
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await?;
    rows.into_iter().map(TenantRow::read).collect()
}

#[derive(QueryableByName)]
struct GoneRow {
    #[diesel(sql_type = BigInt)]
    objects: i64,
    #[diesel(sql_type = BigInt)]
    bytes: i64,
}

/// Forgets blobs whose bytes are gone; answers how many there were, and of how many bytes.
pub async fn delete_all(tx: &mut SystemTx, tenant: TenantId, ids: &[BlobId]) -> Result<(i64, i64), DbError> {
    let row: GoneRow = statement(
        "delete blobs",
        "WITH gone AS (DELETE FROM blobs WHERE tenant_id = {} AND id = ANY ({}) RETURNING size_bytes)
         SELECT count(*) AS objects, coalesce(sum(size_bytes), 0)::bigint AS bytes FROM gone",
    )
    .bind::<SqlUuid, _>(tenant.as_uuid())
    .bind::<Array<SqlUuid>, _>(ids.iter().map(|id| id.as_uuid()).collect::<Vec<_>>())
    .one(tx.connection()?)
    .await?;
    Ok((row.objects, row.bytes))
}
