//! Uploads that hold a reservation. Whatever ends one is a compare-and-set on (id, lease epoch, open), so a reservation
//! is settled or released exactly once.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Integer, Nullable, SmallInt, Text, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{DbError, TenantTx, statement::statement};
use crate::domain::{
    ids::{BlobId, UploadId},
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
    .bind::<diesel::sql_types::Double, _>(f64::from(upload.lease_seconds))
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

/// Records more (or fewer) reserved bytes; false when the upload is no longer ours.
pub async fn grow(tx: &mut TenantTx, lease: UploadLease, by_bytes: i64) -> Result<bool, DbError> {
    let touched = statement(
        "grow reservation",
        "UPDATE uploads SET reserved_bytes = reserved_bytes + {}
         WHERE tenant_id = {} AND id = {} AND lease_epoch = {} AND state = 1",
    )
    .bind::<BigInt, _>(by_bytes)
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
