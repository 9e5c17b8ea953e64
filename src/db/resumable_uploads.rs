//! Uploads that were created before their bytes. Whoever writes takes the upload over first: the epoch of its lease goes up,
//! and nothing that an earlier writer still does counts any more.

use diesel::{
    QueryableByName,
    sql_types::{
        BigInt, Bool, Double, Integer, Jsonb, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid,
    },
};
use uuid::Uuid;

use super::{DbError, TenantTx, statement::statement, uploads::UploadLease};
use crate::domain::{
    clock::Timestamp,
    ids::{BlobId, FileId, UploadId},
    object_key::ObjectKey,
    upload::{Upload, UploadState},
    upload_spec::CheckedSpec,
};

/// An upload with all that it takes to go on with it.
#[derive(Debug, Clone)]
pub struct StoredUpload {
    /// As those see it who may go on with it.
    pub upload: Upload,
    /// What the file will be.
    pub spec: CheckedSpec,
    /// The lease in force.
    pub lease: UploadLease,
    /// What it holds of the quota, in bytes.
    pub reserved_bytes: u64,
    /// The blob that its bytes will be.
    pub blob_id: BlobId,
    /// Where they go.
    pub provider: String,
    /// Under which key.
    pub key: ObjectKey,
    /// The unfinished object; empty for one of one piece.
    pub multipart_id: String,
    /// Whether its bytes go straight to the store.
    pub is_direct: bool,
    /// Where they go before they are copied, in one piece.
    pub staging_key: Option<ObjectKey>,
    /// What the first bytes were recognised as.
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

/// What a [`Row`] is read from: the parts count as far as their numbers have no gap.
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

/// Those that can still be gone on with, or became a file.
const IS_SHOWN: &str =
    "u.spec IS NOT NULL AND (u.state = 2 OR (u.state = 1 AND u.lease_expire_time > app.now()))";

impl Row {
    fn read(self) -> Result<StoredUpload, DbError> {
        const OPERATION: &str = "read upload";
        let bad = |what: &str| DbError::corrupt(OPERATION, what);
        let bytes = |count: i64| u64::try_from(count).map_err(|_| bad("size"));
        let spec: CheckedSpec = serde_json::from_value(self.spec).map_err(|_| bad("spec"))?;
        let state = UploadState::from_number(self.state).ok_or_else(|| bad("state"))?;
        let part_size_bytes = bytes(self.part_size_bytes)?;
        let persisted_size_bytes = bytes(self.persisted_size_bytes)?;
        Ok(StoredUpload {
            upload: Upload {
                id: UploadId::from_uuid(self.id),
                state,
                name: spec.name.clone(),
                size_bytes: spec.size_bytes,
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

/// One upload, unless it was given up or its lease ran out.
pub async fn get(tx: &mut TenantTx, id: UploadId) -> Result<Option<StoredUpload>, DbError> {
    let sql =
        format!("SELECT {COLUMNS} FROM uploads AS u WHERE u.tenant_id = {{}} AND u.id = {{}} AND {IS_SHOWN}");
    let row: Option<Row> = statement("get upload", sql)
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(id.as_uuid())
        .first(tx.connection()?)
        .await?;
    row.map(Row::read).transpose()
}

/// Takes an open upload over: from here on its earlier writers are fenced, and its lease begins anew. Answers whether it was
/// open. It stays locked until the transaction ends, so nothing of theirs is recorded in between.
pub async fn take_over(tx: &mut TenantTx, id: UploadId, lease_seconds: u32) -> Result<bool, DbError> {
    let touched = statement(
        "take over upload",
        "UPDATE uploads SET lease_epoch = lease_epoch + 1,
            lease_expire_time = app.now() + make_interval(secs => {})
         WHERE tenant_id = {} AND id = {} AND state = 1 AND spec IS NOT NULL AND lease_expire_time > app.now()",
    )
    .bind::<Double, _>(f64::from(lease_seconds))
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(id.as_uuid())
    .execute(tx.connection()?)
    .await?;
    Ok(touched == 1)
}

/// Gives an open upload that is ours another blob and key to be copied to: whatever a fenced writer still copies goes to the
/// former one, which nothing refers to any more. Answers whether it was ours.
pub async fn retarget(
    tx: &mut TenantTx,
    lease: UploadLease,
    blob: BlobId,
    key: &ObjectKey,
) -> Result<bool, DbError> {
    let touched = statement(
        "retarget upload",
        "UPDATE uploads SET blob_id = {}, storage_key = {}
         WHERE tenant_id = {} AND id = {} AND lease_epoch = {} AND state = 1 AND staging_key IS NOT NULL",
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

/// Open uploads by their ids, behind one: of their creator, or of everyone in the tenant.
pub async fn list(
    tx: &mut TenantTx,
    created_by: Option<&str>,
    after: Option<UploadId>,
    limit: i64,
) -> Result<Vec<StoredUpload>, DbError> {
    let of_creator = if created_by.is_some() { "AND u.created_by = {}" } else { "AND {}::text IS NULL" };
    let sql = format!(
        "SELECT {COLUMNS} FROM uploads AS u
         WHERE u.tenant_id = {{}} AND u.id > {{}} {of_creator} AND u.state = 1 AND {IS_SHOWN}
         ORDER BY u.id LIMIT {{}}"
    );
    let rows: Vec<Row> = statement("list uploads", sql)
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(after.map_or(Uuid::nil(), |after| after.as_uuid()))
        .bind::<Nullable<Text>, _>(created_by.map(str::to_owned))
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await?;
    rows.into_iter().map(Row::read).collect()
}
