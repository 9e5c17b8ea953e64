//! Uploads that hold a reservation. Whatever ends one is a compare-and-set on (id, lease epoch, open), so a reservation
//! is settled or released exactly once.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Bool, Double, Integer, Nullable, SmallInt, Text, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{DbError, SystemTx, TenantTx, statement::statement};
use crate::domain::{
    ids::{BlobId, TenantId, UploadId},
    object_key::ObjectKey,
    sql_enum::sql_enum,
};

sql_enum! {
    /// The state of an upload.
    UploadState {
        /// It holds its reservation.
        Open = 1 => "open",
        /// It became a file.
        Committed = 2 => "committed",
        /// It was given up.
        Aborted = 3 => "aborted",
    }
}

/// A new upload.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the fields are the columns of their names")]
pub struct NewUpload {
    pub id: UploadId,
    pub blob_id: BlobId,
    pub provider: String,
    pub key: ObjectKey,
    pub multipart_id: Option<String>,
    pub reserved_bytes: i64,
    pub lease_seconds: u32,
    pub created_by: String,
}

/// Whoever holds this may settle, grow or release the upload, as long as nobody fenced it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadLease {
    /// The upload.
    pub id: UploadId,
    /// The epoch of the lease.
    pub epoch: i32,
}

impl UploadLease {
    /// The lease of a new upload.
    pub fn first(id: UploadId) -> Self {
        Self { id, epoch: 1 }
    }
}

/// Opens an upload under its first lease.
pub async fn insert(tx: &mut TenantTx, upload: &NewUpload) -> Result<(), DbError> {
    statement(
        "open upload",
        "INSERT INTO uploads (tenant_id, id, state, lease_epoch, lease_expire_time, reserved_bytes, blob_id, provider,
            storage_key, multipart_id, created_by, create_time)
         VALUES ({}, {}, {}, {}, app.now() + make_interval(secs => {}), {}, {}, {}, {}, {}, {}, app.now())",
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
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Records more (or fewer) reserved bytes and renews the lease; false when the upload is no longer ours.
pub async fn grow(
    tx: &mut TenantTx,
    lease: UploadLease,
    by_bytes: i64,
    lease_seconds: u32,
) -> Result<bool, DbError> {
    let touched = statement(
        "grow reservation",
        "UPDATE uploads SET reserved_bytes = reserved_bytes + {},
            lease_expire_time = app.now() + make_interval(secs => {})
         WHERE tenant_id = {} AND id = {} AND lease_epoch = {} AND state = 1",
    )
    .bind::<BigInt, _>(by_bytes)
    .bind::<Double, _>(f64::from(lease_seconds))
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(lease.id.as_uuid())
    .bind::<Integer, _>(lease.epoch)
    .execute(tx.connection()?)
    .await?;
    Ok(touched == 1)
}

#[derive(QueryableByName)]
struct Ended {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = BigInt)]
    reserved_bytes: i64,
}

/// Ends uploads and answers what each had reserved. Those that were not open, or not ours any more, are missing from
/// the answer.
pub async fn end(
    tx: &mut TenantTx,
    leases: &[UploadLease],
    state: UploadState,
) -> Result<Vec<(UploadId, i64)>, DbError> {
    if leases.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<Ended> = statement(
        "end uploads",
        "UPDATE uploads AS u SET state = {}
         FROM unnest({}, {}) AS lease (id, epoch)
         WHERE u.tenant_id = {} AND u.id = lease.id AND u.lease_epoch = lease.epoch AND u.state = 1
         RETURNING u.id, u.reserved_bytes",
    )
    .bind::<SmallInt, _>(state.number())
    .bind::<Array<SqlUuid>, _>(leases.iter().map(|lease| lease.id.as_uuid()).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(leases.iter().map(|lease| lease.epoch).collect::<Vec<_>>())
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .load(tx.connection()?)
    .await?;
    Ok(rows.into_iter().map(|row| (UploadId::from_uuid(row.id), row.reserved_bytes)).collect())
}

#[derive(QueryableByName)]
struct Exists {
    #[diesel(sql_type = Bool)]
    exists: bool,
}

/// Whether there is an upload with this id that was not given up: it is open, or it became a file.
pub async fn is_live(tx: &mut TenantTx, id: UploadId) -> Result<bool, DbError> {
    let row: Exists = statement(
        "look for upload",
        "SELECT EXISTS (SELECT FROM uploads WHERE tenant_id = {} AND id = {} AND state <> 3) AS exists",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(id.as_uuid())
    .one(tx.connection()?)
    .await?;
    Ok(row.exists)
}

/// An upload that became no file and whose lease ran out, and what it may have left in the store.
#[derive(Debug, Clone)]
pub struct ExpiredUpload {
    /// Whose.
    pub tenant: TenantId,
    /// Which, and under which lease.
    pub lease: UploadLease,
    /// Where its bytes went.
    pub key: ObjectKey,
    /// The unfinished object.
    pub multipart_id: Option<String>,
}

#[derive(QueryableByName)]
struct ExpiredRow {
    #[diesel(sql_type = SqlUuid)]
    tenant_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Integer)]
    lease_epoch: i32,
    #[diesel(sql_type = Text)]
    storage_key: String,
    #[diesel(sql_type = Nullable<Text>)]
    multipart_id: Option<String>,
}

/// Uploads of one provider that became no file and whose lease ran out, longest first: those that are still open, and
/// those that were given up, because the store may have refused to take their bytes back.
pub async fn list_expired(
    tx: &mut SystemTx,
    provider: &str,
    limit: i64,
) -> Result<Vec<ExpiredUpload>, DbError> {
    const OPERATION: &str = "find expired uploads";
    let rows: Vec<ExpiredRow> = statement(
        OPERATION,
        "SELECT tenant_id, id, lease_epoch, storage_key, multipart_id FROM uploads
         WHERE state <> 2 AND provider = {} AND lease_expire_time <= app.now() ORDER BY lease_expire_time LIMIT {}",
    )
    .bind::<Text, _>(provider.to_owned())
    .bind::<BigInt, _>(limit)
    .load(tx.connection()?)
    .await?;
    rows.into_iter()
        .map(|row| {
            let key =
                ObjectKey::parse(&row.storage_key).map_err(|error| DbError::corrupt(OPERATION, error))?;
            Ok(ExpiredUpload {
                tenant: TenantId::from_uuid(row.tenant_id),
                lease: UploadLease { id: UploadId::from_uuid(row.id), epoch: row.lease_epoch },
                key,
                multipart_id: row.multipart_id,
            })
        })
        .collect()
}

/// Forgets an upload of which nothing is left.
pub async fn delete(tx: &mut SystemTx, tenant: TenantId, id: UploadId) -> Result<(), DbError> {
    statement("delete upload", "DELETE FROM uploads WHERE tenant_id = {} AND id = {} AND state = 3")
        .bind::<SqlUuid, _>(tenant.as_uuid())
        .bind::<SqlUuid, _>(id.as_uuid())
        .execute(tx.connection()?)
        .await
        .map(|_| ())
}

/// Forgets uploads that became files, once their lease would have run out.
pub async fn delete_committed(tx: &mut SystemTx) -> Result<usize, DbError> {
    statement(
        "delete committed uploads",
        "DELETE FROM uploads WHERE state = 2 AND lease_expire_time <= app.now()",
    )
    .execute(tx.connection()?)
    .await
}
