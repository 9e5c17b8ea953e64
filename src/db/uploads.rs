//! Uploads that hold a reservation. Each end of an upload is a compare-and-set on (id, lease epoch, state
//! open), so a reservation is converted into usage or released exactly once.

use diesel::{
    QueryableByName,
    sql_types::{
        BigInt, Bool, Double, Integer, Jsonb, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid,
    },
};
use uuid::Uuid;

use super::{DbError, SystemTx, TenantTx, sql::statement};
use crate::domain::{
    clock::Timestamp,
    ids::{BlobId, TenantId, UploadId},
    object_key::ObjectKey,
    upload::UploadState,
    upload_destination::DestinationKind,
};

/// A new upload.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the fields are the columns of the same names")]
pub struct NewUpload {
    pub id: UploadId,
    pub blob_id: BlobId,
    pub provider: String,
    pub key: ObjectKey,
    pub multipart_id: Option<String>,
    pub reserved_bytes: i64,
    pub destination: DestinationKind,
    pub lease_seconds: u32,
    pub created_by: String,
    /// Whether the client sends the bytes directly to the store.
    pub is_direct: bool,
    /// The key of the staging object of a single-part direct upload, from which the object is copied.
    pub staging_key: Option<ObjectKey>,
    /// The data needed to resume it; `None` for uploads of a single stream.
    pub resumable: Option<ResumableFields>,
}

/// The columns of a resumable upload.
#[derive(Debug, Clone)]
pub struct ResumableFields {
    /// The checked specification of the file.
    pub spec: serde_json::Value,
    pub part_size_bytes: i64,
}

/// The lease of an upload. Its holder may commit, extend or abandon the upload until another writer fences
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadLease {
    pub id: UploadId,
    pub epoch: i32,
}

impl UploadLease {
    /// Returns the lease of a new upload.
    pub fn first(id: UploadId) -> Self {
        Self { id, epoch: 1 }
    }
}

/// Inserts an open upload with its first lease.
pub async fn insert(tx: &mut TenantTx, upload: &NewUpload) -> Result<(), DbError> {
    statement(
        "insert upload",
        "INSERT INTO uploads (tenant_id, id, state, lease_epoch, lease_expire_time, reserved_bytes, blob_id, provider,
            storage_key, multipart_id, created_by, create_time, is_version, spec, part_size_bytes,
            is_direct, staging_key)
         VALUES ($1, $2, $3, $4, app.now() + make_interval(secs => $5), $6, $7, $8, $9, $10, $11, app.now(), $12, $13, $14, $15, $16)",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(upload.id.as_uuid())
    .bind::<SmallInt, _>(UploadState::Open.number())
    .bind::<Integer, _>(UploadLease::first(upload.id).epoch)
    .bind::<Double, _>(f64::from(upload.lease_seconds))
    .bind::<BigInt, _>(upload.reserved_bytes)
    .bind::<SqlUuid, _>(upload.blob_id.as_uuid())
    .bind::<Text, _>(upload.provider.clone())
    .bind::<Text, _>(upload.key.as_str().to_owned())
    .bind::<Nullable<Text>, _>(upload.multipart_id.clone())
    .bind::<Text, _>(upload.created_by.clone())
    .bind::<Bool, _>(upload.destination.is_version())
    .bind::<Nullable<Jsonb>, _>(upload.resumable.as_ref().map(|resumable| resumable.spec.clone()))
    .bind::<Nullable<BigInt>, _>(upload.resumable.as_ref().map(|resumable| resumable.part_size_bytes))
    .bind::<Bool, _>(upload.is_direct)
    .bind::<Nullable<Text>, _>(upload.staging_key.as_ref().map(|key| key.as_str().to_owned()))
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Renews the lease. Returns `false` if the lease was lost or has expired.
pub async fn renew_lease(tx: &mut TenantTx, lease: UploadLease, lease_seconds: u32) -> Result<bool, DbError> {
    adjust_reservation(tx, lease, 0, lease_seconds).await
}

/// Changes the reserved bytes by `by_bytes`, which may be negative, and renews the lease. Returns false if
/// the lease was lost or has expired, because such an upload can no longer be committed.
pub async fn adjust_reservation(
    tx: &mut TenantTx,
    lease: UploadLease,
    by_bytes: i64,
    lease_seconds: u32,
) -> Result<bool, DbError> {
    let updated = statement(
        "adjust reservation",
        "UPDATE uploads SET reserved_bytes = reserved_bytes + $1,
            lease_expire_time = app.now() + make_interval(secs => $2)
         WHERE tenant_id = $3 AND id = $4 AND lease_epoch = $5 AND state = 1 AND lease_expire_time > app.now()",
    )
    .bind::<BigInt, _>(by_bytes)
    .bind::<Double, _>(f64::from(lease_seconds))
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(lease.id.as_uuid())
    .bind::<Integer, _>(lease.epoch)
    .execute(tx.connection()?)
    .await?;
    Ok(updated == 1)
}

#[derive(QueryableByName)]
struct AbandonedRow {
    #[diesel(sql_type = BigInt)]
    reserved_bytes: i64,
    #[diesel(sql_type = Bool)]
    is_version: bool,
}

/// The quota that an upload has reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    pub bytes: i64,
    /// 1, or 0 for a new version of an existing file.
    pub files: i64,
}

/// Abandons an upload whose lease has expired. Returns its reservation, or `None` if the lease was renewed or
/// the upload ended in the meantime.
pub async fn abandon_expired(tx: &mut TenantTx, lease: UploadLease) -> Result<Option<Reservation>, DbError> {
    abandon_where(tx, lease, "AND lease_expire_time <= app.now()").await
}

/// Abandons an upload. Returns its reservation, or `None` if it was not open or the lease was lost.
///
/// Uploads that become files are ended by their commit, in `app.commit_uploads`.
pub async fn abandon(tx: &mut TenantTx, lease: UploadLease) -> Result<Option<Reservation>, DbError> {
    abandon_where(tx, lease, "").await
}

async fn abandon_where(
    tx: &mut TenantTx,
    lease: UploadLease,
    condition: &'static str,
) -> Result<Option<Reservation>, DbError> {
    let sql = format!(
        "UPDATE uploads SET state = $1
         WHERE tenant_id = $2 AND id = $3 AND lease_epoch = $4 AND state = 1 {condition}
         RETURNING reserved_bytes, is_version"
    );
    let row: Option<AbandonedRow> = statement("abandon upload", sql)
        .bind::<SmallInt, _>(UploadState::Abandoned.number())
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(lease.id.as_uuid())
        .bind::<Integer, _>(lease.epoch)
        .first(tx.connection()?)
        .await?;
    Ok(row.map(|row| Reservation {
        bytes: row.reserved_bytes,
        files: DestinationKind::from_is_version(row.is_version).file_count(),
    }))
}

#[derive(QueryableByName)]
struct StateRow {
    #[diesel(sql_type = SmallInt)]
    state: i16,
}

/// Returns the state of an upload, if it exists.
pub async fn get_state(tx: &mut TenantTx, id: UploadId) -> Result<Option<UploadState>, DbError> {
    const OPERATION: &str = "read state of upload";
    let row: Option<StateRow> =
        statement(OPERATION, "SELECT state FROM uploads WHERE tenant_id = $1 AND id = $2")
            .bind::<SqlUuid, _>(tx.tenant().as_uuid())
            .bind::<SqlUuid, _>(id.as_uuid())
            .first(tx.connection()?)
            .await?;
    row.map(|row| UploadState::from_number(row.state).ok_or_else(|| DbError::corrupt(OPERATION, "state")))
        .transpose()
}

/// An upload that was not committed and whose lease has expired, with the objects that it left in the store.
#[derive(Debug, Clone)]
pub struct ExpiredUpload {
    pub tenant: TenantId,
    pub lease: UploadLease,
    /// The key of the object.
    pub key: ObjectKey,
    /// The key of the staging object, if there is one.
    pub staging_key: Option<ObjectKey>,
    /// The id of the multipart upload, if there is one.
    pub multipart_id: Option<String>,
    pub lease_expire_time: Timestamp,
}

/// The position of an upload in the list of expired uploads.
pub type ExpiredUploadCursor = (Timestamp, TenantId, UploadId);

impl ExpiredUpload {
    /// Returns the position of this upload in the list of expired uploads.
    pub fn cursor(&self) -> ExpiredUploadCursor {
        (self.lease_expire_time, self.tenant, self.lease.id)
    }
}

#[derive(QueryableByName)]
struct ExpiredRow {
    #[diesel(sql_type = Timestamptz)]
    lease_expire_time: Timestamp,
    #[diesel(sql_type = SqlUuid)]
    tenant_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Integer)]
    lease_epoch: i32,
    #[diesel(sql_type = Text)]
    storage_key: String,
    #[diesel(sql_type = Nullable<Text>)]
    staging_key: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    multipart_id: Option<String>,
}

impl ExpiredRow {
    fn into_upload(self) -> Result<ExpiredUpload, DbError> {
        let key = ObjectKey::parse(&self.storage_key)
            .map_err(|error| DbError::corrupt("read expired upload", error))?;
        let staging_key = self.staging_key.as_deref().map(ObjectKey::parse).transpose();
        let staging_key = staging_key.map_err(|error| DbError::corrupt("read expired upload", error))?;
        Ok(ExpiredUpload {
            staging_key,
            tenant: TenantId::from_uuid(self.tenant_id),
            lease: UploadLease { id: UploadId::from_uuid(self.id), epoch: self.lease_epoch },
            key,
            multipart_id: self.multipart_id,
            lease_expire_time: self.lease_expire_time,
        })
    }
}

/// Returns uploads of a provider whose lease has expired and that are open or abandoned with bytes left in
/// the store. Starts after a position; ordered by expiry time.
pub async fn list_expired(
    tx: &mut SystemTx,
    provider: &str,
    after: Option<ExpiredUploadCursor>,
    limit: i64,
) -> Result<Vec<ExpiredUpload>, DbError> {
    let (time, tenant, id) = after.map_or((Timestamp::UNIX_EPOCH, Uuid::nil(), Uuid::nil()), |after| {
        (after.0, after.1.as_uuid(), after.2.as_uuid())
    });
    let rows: Vec<ExpiredRow> = statement(
        "list expired uploads",
        "SELECT tenant_id, id, lease_epoch, storage_key, staging_key, multipart_id, lease_expire_time FROM uploads
         WHERE state IN (1, 3) AND provider = $1 AND lease_expire_time <= app.now()
           AND (lease_expire_time, tenant_id, id) > ($2, $3, $4)
         ORDER BY lease_expire_time, tenant_id, id LIMIT $5",
    )
    .bind::<Text, _>(provider.to_owned())
    .bind::<Timestamptz, _>(time)
    .bind::<SqlUuid, _>(tenant)
    .bind::<SqlUuid, _>(id)
    .bind::<BigInt, _>(limit)
    .load(tx.connection()?)
    .await?;
    rows.into_iter().map(ExpiredRow::into_upload).collect()
}

#[derive(QueryableByName)]
struct TenantUploadRow {
    #[diesel(sql_type = Text)]
    provider: String,
    #[diesel(embed)]
    upload: ExpiredRow,
}

/// Returns uploads of one tenant that are open or abandoned with bytes left in the store, regardless of their
/// lease, each with its provider.
pub async fn list_for_tenant(
    tx: &mut SystemTx,
    tenant: TenantId,
    limit: i64,
) -> Result<Vec<(String, ExpiredUpload)>, DbError> {
    let rows: Vec<TenantUploadRow> = statement(
        "list uploads of tenant",
        "SELECT provider, tenant_id, id, lease_epoch, storage_key, staging_key, multipart_id,
            lease_expire_time FROM uploads
         WHERE tenant_id = $1 AND state IN (1, 3) ORDER BY id LIMIT $2",
    )
    .bind::<SqlUuid, _>(tenant.as_uuid())
    .bind::<BigInt, _>(limit)
    .load(tx.connection()?)
    .await?;
    rows.into_iter().map(|row| Ok((row.provider, row.upload.into_upload()?))).collect()
}

#[derive(QueryableByName)]
struct CountRow {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Counts all uploads that [`list_expired`] selects.
pub async fn count_expired(tx: &mut SystemTx, provider: &str) -> Result<u64, DbError> {
    let row: CountRow = statement(
        "count expired uploads",
        "SELECT count(*) AS count FROM uploads
         WHERE state IN (1, 3) AND provider = $1 AND lease_expire_time <= app.now()",
    )
    .bind::<Text, _>(provider.to_owned())
    .one(tx.connection()?)
    .await?;
    Ok(u64::try_from(row.count).unwrap_or_default())
}

/// Counts the uploads of a provider that are open or abandoned with bytes left in the store.
pub async fn count_open(tx: &mut SystemTx, provider: &str) -> Result<u64, DbError> {
    let row: CountRow = statement(
        "count open uploads",
        "SELECT count(*) AS count FROM uploads WHERE state IN (1, 3) AND provider = $1",
    )
    .bind::<Text, _>(provider.to_owned())
    .one(tx.connection()?)
    .await?;
    Ok(u64::try_from(row.count).unwrap_or_default())
}

/// Deletes an abandoned upload whose bytes have been deleted from the store.
pub async fn delete_abandoned(tx: &mut SystemTx, tenant: TenantId, id: UploadId) -> Result<(), DbError> {
    statement("delete abandoned upload", "DELETE FROM uploads WHERE tenant_id = $1 AND id = $2 AND state = 3")
        .bind::<SqlUuid, _>(tenant.as_uuid())
        .bind::<SqlUuid, _>(id.as_uuid())
        .execute(tx.connection()?)
        .await
        .map(|_| ())
}

/// Deletes committed uploads whose lease has expired.
pub async fn delete_committed(tx: &mut SystemTx) -> Result<usize, DbError> {
    statement(
        "delete committed uploads",
        "DELETE FROM uploads WHERE state = 2 AND lease_expire_time <= app.now()",
    )
    .execute(tx.connection()?)
    .await
}
