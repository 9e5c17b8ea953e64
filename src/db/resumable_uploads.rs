//! Resumable uploads, which are created before their bytes are sent. A writer first takes over the upload:
//! this increments the epoch of its lease, and operations of earlier writers have no effect from then on.

use diesel::{
    ExpressionMethods as _, QueryDsl as _, QueryableByName,
    sql_types::{BigInt, Jsonb, Nullable, Text, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, TenantTx,
    schema::uploads,
    sql::{Damage, OfTenant as _, Readable, literal, now, query, sql, statement},
    uploads::{UploadLease, held_upload},
};
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
    /// Where the bytes are until the upload is complete.
    pub bytes: UploadedBytes,
    /// Whether the client sends the bytes directly to the store.
    pub is_direct: bool,
    /// The media type that was detected in the first bytes.
    pub sniffed_mime_type: Option<String>,
}

/// The place of the bytes of an upload that is not complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadedBytes {
    /// The multipart upload with this id, which becomes the object.
    Multipart(String),
    /// The staging object of a single-part direct upload, from which the object is copied.
    Staged(ObjectKey),
}

#[derive(QueryableByName)]
#[diesel(table_name = uploads)]
struct Row {
    #[diesel(embed)]
    lease: UploadLease,
    state: UploadState,
    lease_expire_time: Timestamp,
    reserved_bytes: i64,
    blob_id: BlobId,
    provider: String,
    #[diesel(column_name = storage_key)]
    key: ObjectKey,
    multipart_id: Option<String>,
    is_direct: bool,
    staging_key: Option<ObjectKey>,
    created_by: String,
    create_time: Timestamp,
    #[diesel(sql_type = Jsonb)]
    spec: Readable<serde_json::Value>,
    #[diesel(sql_type = BigInt)]
    part_size_bytes: i64,
    sniffed_mime_type: Option<String>,
    #[diesel(sql_type = BigInt)]
    persisted_size_bytes: i64,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    file_id: Option<FileId>,
}

/// The columns of a [`Row`]. Only parts up to the first gap in their numbers count.
const COLUMNS: &str =
    "u.id, u.state, u.lease_epoch, u.lease_expire_time, u.reserved_bytes, u.blob_id, u.provider,
    u.storage_key, u.multipart_id, u.created_by, u.create_time, u.spec, u.part_size_bytes,
    u.sniffed_mime_type, u.is_direct, u.staging_key,
    coalesce((
        SELECT sum(p.size_bytes) FROM (
            SELECT size_bytes, number, row_number() OVER (ORDER BY number) AS place FROM upload_parts
            WHERE tenant_id = u.tenant_id AND upload_id = u.id) AS p
        WHERE p.number = p.place), 0)::bigint AS persisted_size_bytes,
    (SELECT v.file_id FROM versions AS v WHERE v.tenant_id = u.tenant_id AND v.blob_id = u.blob_id
     ORDER BY v.create_time LIMIT 1) AS file_id";

impl Row {
    fn into_upload(mut self) -> Result<StoredUpload, DbError> {
        let corrupt = |what: &str| DbError::corrupt("read upload", what);
        let spec = self.take_spec().map_err(|error| corrupt(&error))?;
        Ok(StoredUpload {
            upload: self.upload(&spec),
            spec,
            lease: self.lease,
            reserved_bytes: u64::try_from(self.reserved_bytes).map_err(|_| corrupt("size"))?,
            blob_id: self.blob_id,
            provider: self.provider,
            key: self.key,
            bytes: match (self.multipart_id, self.staging_key) {
                (Some(multipart_id), None) => UploadedBytes::Multipart(multipart_id),
                (None, Some(staging_key)) => UploadedBytes::Staged(staging_key),
                _ => return Err(corrupt("multipart_id and staging_key")),
            },
            is_direct: self.is_direct,
            sniffed_mime_type: self.sniffed_mime_type,
        })
    }

    /// Reads the spec, or returns the reason that it cannot be read.
    fn take_spec(&mut self) -> Result<ResolvedSpec, String> {
        let mut damage = Damage::default();
        let null = Readable::new(serde_json::Value::Null);
        let spec = std::mem::replace(&mut self.spec, null);
        let spec = spec.or_damaged("spec", &mut damage, serde_json::Value::Null);
        match damage.found() {
            Some(reason) => Err(reason),
            None => serde_json::from_value(spec).map_err(|error| format!("spec: {error}")),
        }
    }

    fn upload(&self, spec: &ResolvedSpec) -> Upload {
        let bytes = |count: i64| u64::try_from(count).unwrap_or_default();
        Upload {
            id: self.lease.id,
            state: self.state,
            name: match &spec.checked.destination {
                Destination::NewFile(file) => Some(file.name.clone()),
                Destination::NewVersion(_) => None,
            },
            size_bytes: spec.checked.size_bytes,
            part_size_bytes: bytes(self.part_size_bytes),
            persisted_size_bytes: bytes(self.persisted_size_bytes),
            created_by: self.created_by.clone(),
            create_time: self.create_time,
            expire_time: self.lease_expire_time,
            file: self.file_id.filter(|_| self.state == UploadState::Committed),
        }
    }
}

/// Returns an upload, unless it was abandoned or its lease expired.
pub async fn get(tx: &mut TenantTx, id: UploadId) -> Result<Option<StoredUpload>, DbError> {
    // The query builder cannot select from a subquery, which numbers the parts.
    let text = sql!(
        "SELECT {columns} FROM uploads AS u
         WHERE u.tenant_id = $1 AND u.id = $2 AND u.spec IS NOT NULL
           AND (u.state = {committed} OR (u.state = {open} AND u.lease_expire_time > app.now()))",
        columns = COLUMNS,
        committed = UploadState::Committed,
        open = UploadState::Open,
    );
    let row: Option<Row> = statement("get upload", text)
        .bind::<SqlUuid, _>(tx.tenant())
        .bind::<SqlUuid, _>(id)
        .first(tx.connection()?)
        .await?;
    row.map(Row::into_upload).transpose()
}

/// Takes over an open upload: fences earlier writers. Returns whether it was open. Does not renew its lease, so
/// that attempts without progress cannot keep an upload open.
///
/// The row stays locked until the transaction ends, so earlier writers cannot record anything in the
/// meantime.
pub async fn take_over(tx: &mut TenantTx, id: UploadId) -> Result<bool, DbError> {
    let unexpired = uploads::table
        .of(tx.tenant())
        .filter(uploads::id.eq(id))
        .filter(uploads::state.eq(UploadState::Open))
        .filter(uploads::spec.is_not_null())
        .filter(uploads::lease_expire_time.gt(now()));
    let update = diesel::update(unexpired).set(uploads::lease_epoch.eq(uploads::lease_epoch + 1));
    Ok(query("take over upload", update).execute(tx.connection()?).await? == 1)
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
    let staged = held_upload!(tx, lease).filter(uploads::staging_key.is_not_null());
    let update = diesel::update(staged).set((uploads::blob_id.eq(blob), uploads::storage_key.eq(key)));
    Ok(query("retarget upload", update).execute(tx.connection()?).await? == 1)
}

/// Replaces the multipart upload, the blob and the key of an open upload whose lease is held and has not expired.
/// Returns whether the upload had the former multipart upload.
///
/// A completion of the former multipart upload that is still running then writes to the former key, which nothing
/// references.
pub async fn replace_multipart(
    tx: &mut TenantTx,
    lease: UploadLease,
    former_multipart_id: &str,
    blob: BlobId,
    key: &ObjectKey,
    multipart_id: &str,
) -> Result<bool, DbError> {
    let former = held_upload!(tx, lease)
        .filter(uploads::lease_expire_time.gt(now()))
        .filter(uploads::multipart_id.eq(former_multipart_id));
    let update = diesel::update(former).set((
        uploads::blob_id.eq(blob),
        uploads::storage_key.eq(key),
        uploads::multipart_id.eq(multipart_id),
    ));
    Ok(query("replace multipart upload", update).execute(tx.connection()?).await? == 1)
}

/// Counts open uploads of the tenant, or of one creator, up to `count_max`. Includes uploads whose lease has
/// expired and that no tick has abandoned yet, because their bytes are still in the store.
pub async fn count_open(
    tx: &mut TenantTx,
    created_by: Option<&str>,
    count_max: i64,
) -> Result<usize, DbError> {
    let open = uploads::table
        .of(tx.tenant())
        .filter(uploads::state.eq(literal!(UploadState::Open)))
        .filter(uploads::spec.is_not_null())
        .select(uploads::id)
        .limit(count_max);
    match created_by {
        Some(creator) => {
            query("count open uploads of creator", open.filter(uploads::created_by.eq(creator)))
                .execute(tx.connection()?)
                .await
        }
        None => query("count open uploads of tenant", open).execute(tx.connection()?).await,
    }
}

/// An upload in a list. Its spec can be large, and is not read.
#[derive(QueryableByName)]
#[diesel(table_name = uploads)]
struct ListedRow {
    id: UploadId,
    lease_expire_time: Timestamp,
    created_by: String,
    create_time: Timestamp,
    #[diesel(sql_type = BigInt)]
    part_size_bytes: i64,
    #[diesel(sql_type = BigInt)]
    persisted_size_bytes: i64,
    #[diesel(sql_type = Nullable<Text>)]
    name: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    size_bytes: Option<String>,
}

/// The columns of a [`ListedRow`].
const LISTED_COLUMNS: &str = "u.id, u.lease_expire_time, u.created_by, u.create_time, u.part_size_bytes,
    coalesce((
        SELECT sum(p.size_bytes) FROM (
            SELECT size_bytes, number, row_number() OVER (ORDER BY number) AS place FROM upload_parts
            WHERE tenant_id = u.tenant_id AND upload_id = u.id) AS p
        WHERE p.number = p.place), 0)::bigint AS persisted_size_bytes,
    u.spec #>> '{checked,destination,NewFile,name}' AS name,
    u.spec #>> '{checked,size_bytes}' AS size_bytes";

impl ListedRow {
    fn into_upload(self) -> Result<Upload, DbError> {
        let bytes = |count: i64| u64::try_from(count).map_err(|_| DbError::corrupt("list uploads", "size"));
        Ok(Upload {
            id: self.id,
            state: UploadState::Open,
            name: self.name,
            // An unreadable spec must not break the list.
            size_bytes: self.size_bytes.and_then(|size| size.parse().ok()),
            part_size_bytes: bytes(self.part_size_bytes)?,
            persisted_size_bytes: bytes(self.persisted_size_bytes)?,
            created_by: self.created_by,
            create_time: self.create_time,
            expire_time: self.lease_expire_time,
            file: None,
        })
    }
}

/// The text of the list, limited by a condition on the creator, which is `$3`.
macro_rules! list_text {
    ($creator:literal) => {
        sql!(
            "SELECT {columns} FROM uploads AS u
             WHERE u.tenant_id = $1 AND u.id > $2 AND {creator} AND u.state = {open} AND u.spec IS NOT NULL
               AND u.lease_expire_time > app.now()
             ORDER BY u.id LIMIT $4",
            columns = LISTED_COLUMNS,
            creator = $creator,
            open = UploadState::Open,
        )
    };
}

/// Returns open uploads after an id, ordered by id: those of one creator, or of the whole tenant.
pub async fn list(
    tx: &mut TenantTx,
    created_by: Option<&str>,
    after: Option<UploadId>,
    limit: i64,
) -> Result<Vec<Upload>, DbError> {
    // As in `get`. Two texts, because each uses a partial index of its own.
    let text = match created_by {
        Some(_) => list_text!("u.created_by = $3"),
        None => list_text!("$3::text IS NULL"),
    };
    let rows: Vec<ListedRow> = statement("list uploads", text)
        .bind::<SqlUuid, _>(tx.tenant())
        .bind::<SqlUuid, _>(after.unwrap_or(UploadId::from_uuid(Uuid::nil())))
        .bind::<Nullable<Text>, _>(created_by.map(str::to_owned))
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await?;
    rows.into_iter().map(ListedRow::into_upload).collect()
}
