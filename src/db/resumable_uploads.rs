//! Resumable uploads, which are created before their bytes are sent. A writer first takes over the upload:
//! this increments the epoch of its lease, and operations of earlier writers have no effect from then on.

use diesel::{
    QueryableByName,
    sql_types::{
        BigInt, Bool, Double, Integer, Jsonb, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid,
    },
};
use uuid::Uuid;

use super::{DbError, TenantTx, sql::statement, uploads::UploadLease};
use crate::domain::{
    clock::Timestamp,
    ids::{BlobId, FileId, UploadId},
    object_key::ObjectKey,
    upload::{Upload, UploadState},
    upload_destination::Destination,
    upload_spec::ResolvedSpec,
};

/// A resumable upload with the data needed to resume it.
#[derive(Debug, Clone)]
pub struct StoredUpload {
    /// The part that callers see.
    pub upload: Upload,
    /// The specification of the upload.
    pub spec: ResolvedSpec,
    /// The current lease.
    pub lease: UploadLease,
    /// The reserved quota, in bytes.
    pub reserved_bytes: u64,
    /// The id of the blob that the upload will create.
    pub blob_id: BlobId,
    /// The provider that stores the object.
    pub provider: String,
    /// The key of the object.
    pub key: ObjectKey,
    /// The id of the multipart upload; empty for single-part direct uploads.
    pub multipart_id: String,
    /// Whether the client sends the bytes directly to the store.
    pub is_direct: bool,
    /// The key of the staging object of a single-part direct upload, from which the object is copied.
    pub staging_key: Option<ObjectKey>,
    /// The media type that was detected in the first bytes.
    pub sniffed_mime_type: Option<String>,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = SmallInt)]
    state: i16,
    #[diesel(sql_type = Integer)]
    lease_epoch: i32,
    #[diesel(sql_type = Timestamptz)]
    lease_expire_time: Timestamp,
    #[diesel(sql_type = BigInt)]
    reserved_bytes: i64,
    #[diesel(sql_type = SqlUuid)]
    blob_id: Uuid,
    #[diesel(sql_type = Text)]
    provider: String,
    #[diesel(sql_type = Text)]
    storage_key: String,
    #[diesel(sql_type = Text)]
    multipart_id: String,
    #[diesel(sql_type = Bool)]
    is_direct: bool,
    #[diesel(sql_type = Nullable<Text>)]
    staging_key: Option<String>,
    #[diesel(sql_type = Text)]
    created_by: String,
    #[diesel(sql_type = Timestamptz)]
    create_time: Timestamp,
    #[diesel(sql_type = Jsonb)]
    spec: serde_json::Value,
    #[diesel(sql_type = BigInt)]
    part_size_bytes: i64,
    #[diesel(sql_type = Nullable<Text>)]
    sniffed_mime_type: Option<String>,
    #[diesel(sql_type = BigInt)]
    persisted_size_bytes: i64,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    file_id: Option<Uuid>,
}

/// The columns of a [`Row`]. Only parts up to the first gap in their numbers count.
const COLUMNS: &str = "u.id, u.state, u.lease_epoch, u.lease_expire_time, u.reserved_bytes, u.blob_id, u.provider,
    u.storage_key, coalesce(u.multipart_id, '') AS multipart_id, u.created_by, u.create_time, u.spec, u.part_size_bytes,
    u.sniffed_mime_type, u.is_direct, u.staging_key,
    coalesce((
        SELECT sum(p.size_bytes) FROM (
            SELECT size_bytes, number, row_number() OVER (ORDER BY number) AS place FROM upload_parts
            WHERE tenant_id = u.tenant_id AND upload_id = u.id) AS p
        WHERE p.number = p.place), 0)::bigint AS persisted_size_bytes,
    (SELECT v.file_id FROM versions AS v WHERE v.tenant_id = u.tenant_id AND v.blob_id = u.blob_id
     ORDER BY v.create_time LIMIT 1) AS file_id";

/// Selects uploads that can be resumed or were committed.
const IS_VISIBLE: &str =
    "u.spec IS NOT NULL AND (u.state = 2 OR (u.state = 1 AND u.lease_expire_time > app.now()))";

impl Row {
    fn into_upload(self) -> Result<StoredUpload, DbError> {
        const OPERATION: &str = "read upload";
        let corrupt = |what: &str| DbError::corrupt(OPERATION, what);
        let bytes = |count: i64| u64::try_from(count).map_err(|_| corrupt("size"));
        let spec: ResolvedSpec = serde_json::from_value(self.spec).map_err(|_| corrupt("spec"))?;
        let state = UploadState::from_number(self.state).ok_or_else(|| corrupt("state"))?;
        let part_size_bytes = bytes(self.part_size_bytes)?;
        let persisted_size_bytes = bytes(self.persisted_size_bytes)?;
        Ok(StoredUpload {
            upload: Upload {
                id: UploadId::from_uuid(self.id),
                state,
                name: match &spec.checked.destination {
                    Destination::NewFile(file) => Some(file.name.clone()),
                    Destination::NewVersion(_) => None,
                },
                size_bytes: spec.checked.size_bytes,
                part_size_bytes,
                persisted_size_bytes,
                created_by: self.created_by,
                create_time: self.create_time,
                expire_time: self.lease_expire_time,
                file: self.file_id.filter(|_| state == UploadState::Committed).map(FileId::from_uuid),
            },
            spec,
            lease: UploadLease { id: UploadId::from_uuid(self.id), epoch: self.lease_epoch },
            reserved_bytes: bytes(self.reserved_bytes)?,
            blob_id: BlobId::from_uuid(self.blob_id),
            provider: self.provider,
            key: ObjectKey::parse(&self.storage_key).map_err(|error| DbError::corrupt(OPERATION, error))?,
            multipart_id: self.multipart_id,
            is_direct: self.is_direct,
            staging_key: self
                .staging_key
                .as_deref()
                .map(ObjectKey::parse)
                .transpose()
                .map_err(|error| DbError::corrupt(OPERATION, error))?,
            sniffed_mime_type: self.sniffed_mime_type,
        })
    }
}

/// Returns an upload, unless it was abandoned or its lease expired.
pub async fn get(tx: &mut TenantTx, id: UploadId) -> Result<Option<StoredUpload>, DbError> {
    let sql =
        format!("SELECT {COLUMNS} FROM uploads AS u WHERE u.tenant_id = $1 AND u.id = $2 AND {IS_VISIBLE}");
    let row: Option<Row> = statement("get upload", sql)
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(id.as_uuid())
        .first(tx.connection()?)
        .await?;
    row.map(Row::into_upload).transpose()
}

/// Takes over an open upload: renews its lease and fences earlier writers. Returns whether it was open.
///
/// The row stays locked until the transaction ends, so earlier writers cannot record anything in the
/// meantime.
pub async fn take_over(tx: &mut TenantTx, id: UploadId, lease_seconds: u32) -> Result<bool, DbError> {
    let touched = statement(
        "take over upload",
        "UPDATE uploads SET lease_epoch = lease_epoch + 1,
            lease_expire_time = app.now() + make_interval(secs => $1)
         WHERE tenant_id = $2 AND id = $3 AND state = 1 AND spec IS NOT NULL AND lease_expire_time > app.now()",
    )
    .bind::<Double, _>(f64::from(lease_seconds))
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(id.as_uuid())
    .execute(tx.connection()?)
    .await?;
    Ok(touched == 1)
}

/// Replaces the target blob and key of an open upload that the caller holds. Returns whether the caller held
/// it.
///
/// A fenced writer that is still copying then writes to the former key, which nothing references.
pub async fn retarget(
    tx: &mut TenantTx,
    lease: UploadLease,
    blob: BlobId,
    key: &ObjectKey,
) -> Result<bool, DbError> {
    let touched = statement(
        "retarget upload",
        "UPDATE uploads SET blob_id = $1, storage_key = $2
         WHERE tenant_id = $3 AND id = $4 AND lease_epoch = $5 AND state = 1 AND staging_key IS NOT NULL",
    )
    .bind::<SqlUuid, _>(blob.as_uuid())
    .bind::<Text, _>(key.as_str().to_owned())
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(lease.id.as_uuid())
    .bind::<Integer, _>(lease.epoch)
    .execute(tx.connection()?)
    .await?;
    Ok(touched == 1)
}

/// Returns open uploads after an id, ordered by id: those of one creator, or of the whole tenant.
pub async fn list(
    tx: &mut TenantTx,
    created_by: Option<&str>,
    after: Option<UploadId>,
    limit: i64,
) -> Result<Vec<StoredUpload>, DbError> {
    let by_creator = if created_by.is_some() { "AND u.created_by = $3" } else { "AND $3::text IS NULL" };
    let sql = format!(
        "SELECT {COLUMNS} FROM uploads AS u
         WHERE u.tenant_id = $1 AND u.id > $2 {by_creator} AND u.state = 1 AND {IS_VISIBLE}
         ORDER BY u.id LIMIT $4"
    );
    let rows: Vec<Row> = statement("list uploads", sql)
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(after.map_or(Uuid::nil(), |after| after.as_uuid()))
        .bind::<Nullable<Text>, _>(created_by.map(str::to_owned))
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await?;
    rows.into_iter().map(Row::into_upload).collect()
}
