//! Versions of files.

use diesel::{
    BoolExpressionMethods as _, ExpressionMethods as _, Insertable as _, IntoSql as _, JoinOnDsl as _,
    NullableExpressionMethods as _, QueryDsl as _, Queryable, Selectable, SelectableHelper as _,
    dsl::not,
    sql_types::{Integer, Nullable, Record, Text, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, TenantTx,
    blob_checksums::SliceArguments,
    blobs::Blob,
    schema::{blob_checksums, blobs, versions},
    sql::{OfTenant as _, now, query, slice_bytes, sum_of},
};
use crate::domain::{
    block_checksums::{BlockChecksums, BlockSlice},
    clock::Timestamp,
    digest::Digest,
    file::{ContentState, FileVersion, ScanStatus, StateReason},
    ids::{BlobId, FileId},
    media_type::MediaKind,
    storage_class::StorageClass,
};

/// Counts the versions of a file, up to `count_max`.
pub async fn count(tx: &mut TenantTx, file: FileId, count_max: i64) -> Result<usize, DbError> {
    let existing = versions::table
        .of(tx.tenant())
        .filter(versions::file_id.eq(file))
        .select(versions::version)
        .limit(count_max);
    query("count versions", existing).execute(tx.connection()?).await
}

/// A version with its blob.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = versions, check_for_backend(diesel::pg::Pg))]
pub struct StoredVersion {
    pub version: i32,
    /// The state of this version, which need not be the current one.
    pub content_state: ContentState,
    /// The reason, if it is in state ERROR.
    pub state_reason: Option<StateReason>,
    /// The resolved media type.
    pub mime_type: String,
    pub created_by: String,
    #[diesel(embed)]
    pub blob: Blob,
}

/// A query for the versions of the tenant with their blobs.
macro_rules! versions_with_blobs {
    ($tx:ident) => {
        versions::table.of($tx.tenant()).inner_join(
            blobs::table.on(blobs::tenant_id.eq(versions::tenant_id).and(blobs::id.eq(versions::blob_id))),
        )
    };
}

/// Returns one version of a file. The caller has already checked that the viewer may see the file.
pub async fn get(tx: &mut TenantTx, file: FileId, version: i32) -> Result<Option<StoredVersion>, DbError> {
    let version = versions_with_blobs!(tx)
        .filter(versions::file_id.eq(file))
        .filter(versions::version.eq(version))
        .select(StoredVersion::as_select());
    query("get version", version).first(tx.connection()?).await
}

/// A version with the checksums of some blocks of its blob.
#[derive(Debug, Clone, Queryable)]
pub struct ReadableVersion {
    pub stored: StoredVersion,
    /// `None` if the blob has no block checksums.
    pub checksums: Option<BlockChecksums>,
}

/// Returns one version of a file with the checksums of the blocks in `slice`. The caller has already checked that the
/// viewer may see the file.
pub async fn get_readable(
    tx: &mut TenantTx,
    file: FileId,
    version: i32,
    slice: BlockSlice,
) -> Result<Option<ReadableVersion>, DbError> {
    let SliceArguments { from, length } = slice.into();
    let of_blob = blob_checksums::tenant_id.eq(blobs::tenant_id).and(blob_checksums::blob_id.eq(blobs::id));
    let version = versions_with_blobs!(tx)
        .left_join(blob_checksums::table.on(of_blob))
        .filter(versions::file_id.eq(file))
        .filter(versions::version.eq(version))
        .select((
            StoredVersion::as_select(),
            slice_bytes(blob_checksums::block_checksums.nullable(), from, length),
        ));
    query("get version with block checksums", version).first(tx.connection()?).await
}

/// A version in a tenant export.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = versions, check_for_backend(diesel::pg::Pg))]
pub struct ExportedVersion {
    #[diesel(column_name = file_id)]
    pub file: FileId,
    #[diesel(embed)]
    pub stored: StoredVersion,
    pub declared_mime_type: String,
    pub create_time: Timestamp,
}

/// The position of a version in a list that is ordered by file and number.
#[derive(Debug, Clone, Copy)]
pub struct VersionPosition {
    pub file: FileId,
    pub version: i32,
}

/// Returns versions of the given files after a position, ordered by file and number.
pub async fn list_after(
    tx: &mut TenantTx,
    files: &[FileId],
    after: Option<VersionPosition>,
    limit: i64,
) -> Result<Vec<ExportedVersion>, DbError> {
    type Position = Record<(SqlUuid, Integer)>;
    let position = (versions::file_id, versions::version);
    let after = after.map_or((FileId::from_uuid(Uuid::nil()), 0), |after| (after.file, after.version));
    let page = versions_with_blobs!(tx)
        .filter(versions::file_id.eq_any(files))
        .filter(position.into_sql::<Position>().gt(after))
        .order(position)
        .limit(limit)
        .select(ExportedVersion::as_select());
    query("list versions", page).load(tx.connection()?).await
}

/// The bytes charged for versions, by the media kind under which each was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Charge(pub Vec<(MediaKind, i64)>);

impl Charge {
    /// Returns the total, in bytes.
    pub fn bytes(&self) -> i64 {
        self.0.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// The result of deleting versions.
#[derive(Debug, Default)]
pub struct DeletedVersions {
    /// The blobs that the versions referenced.
    pub blobs: Vec<BlobId>,
    /// The bytes that were charged for the versions.
    pub charge: Charge,
}

/// The columns of a deleted version: its blob, its media kind and its size in bytes.
const DELETED: (versions::blob_id, versions::media_kind, versions::size_bytes) =
    (versions::blob_id, versions::media_kind, versions::size_bytes);

impl DeletedVersions {
    fn from_rows(rows: Vec<(BlobId, MediaKind, i64)>) -> Self {
        let (blobs, charge) = rows.into_iter().map(|(blob, kind, bytes)| (blob, (kind, bytes))).unzip();
        Self { blobs, charge: Charge(charge) }
    }
}

/// Deletes all versions of a file.
pub async fn delete(tx: &mut TenantTx, file: FileId) -> Result<DeletedVersions, DbError> {
    let versions = versions::table.of(tx.tenant()).filter(versions::file_id.eq(file));
    let delete = diesel::delete(versions).returning(DELETED);
    let rows = query("delete versions", delete).load(tx.connection()?).await?;
    Ok(DeletedVersions::from_rows(rows))
}

/// Deletes one version of a file.
pub async fn delete_one(tx: &mut TenantTx, file: FileId, version: i32) -> Result<DeletedVersions, DbError> {
    let version = versions::table
        .of(tx.tenant())
        .filter(versions::file_id.eq(file))
        .filter(versions::version.eq(version));
    let delete = diesel::delete(version).returning(DELETED);
    let rows = query("delete version", delete).load(tx.connection()?).await?;
    Ok(DeletedVersions::from_rows(rows))
}

/// Returns the bytes charged for the versions of a file.
pub async fn get_charge(tx: &mut TenantTx, file: FileId) -> Result<Charge, DbError> {
    let sums = versions::table
        .of(tx.tenant())
        .filter(versions::file_id.eq(file))
        .group_by(versions::media_kind)
        .select((versions::media_kind, sum_of(versions::size_bytes).assume_not_null()))
        .order(versions::media_kind);
    query("sum versions", sums).load(tx.connection()?).await.map(Charge)
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = versions, check_for_backend(diesel::pg::Pg))]
struct ListedRow {
    version: i32,
    content_state: ContentState,
    scan_status: ScanStatus,
    mime_type: String,
    declared_mime_type: String,
    #[diesel(deserialize_as = i64)]
    size_bytes: u64,
    sha256: Option<Digest>,
    created_by: String,
    create_time: Timestamp,
    change_description: String,
    restored_from: Option<i32>,
    state_reason: Option<StateReason>,
}

impl ListedRow {
    fn into_version(self, storage_class: StorageClass) -> FileVersion {
        FileVersion {
            version: self.version,
            content_state: self.content_state,
            scan_status: self.scan_status,
            mime_type: self.mime_type,
            declared_mime_type: self.declared_mime_type,
            size_bytes: self.size_bytes,
            sha256: self.sha256,
            created_by: self.created_by,
            create_time: self.create_time,
            change_description: self.change_description,
            restored_from: self.restored_from,
            state_reason: self.state_reason,
            storage_class,
        }
    }
}

/// Returns versions of a file with numbers below `below`, newest first.
pub async fn list(
    tx: &mut TenantTx,
    file: FileId,
    below: i32,
    limit: i64,
) -> Result<Vec<FileVersion>, DbError> {
    let page = versions_with_blobs!(tx)
        .filter(versions::file_id.eq(file))
        .filter(versions::version.lt(below))
        .order(versions::version.desc())
        .limit(limit)
        .select((ListedRow::as_select(), blobs::storage_class));
    let rows: Vec<(ListedRow, StorageClass)> = query("list versions", page).load(tx.connection()?).await?;
    Ok(rows.into_iter().map(|(row, class)| row.into_version(class)).collect())
}

/// A version to create with the content of another one.
#[derive(Debug)]
pub struct VersionCopy<'a> {
    pub from_file: FileId,
    pub from_version: i32,
    pub file: FileId,
    pub version: i32,
    pub created_by: &'a str,
    pub change_description: &'a str,
    pub restored_from: Option<i32>,
}

/// Inserts a version that references the same blob as another one.
pub async fn copy(tx: &mut TenantTx, copy: &VersionCopy<'_>) -> Result<(), DbError> {
    let content = (
        versions::blob_id,
        versions::content_state,
        versions::scan_status,
        versions::mime_type,
        versions::declared_mime_type,
        versions::media_kind,
        versions::size_bytes,
        versions::sha256,
    );
    let insert = versions::table
        .of(tx.tenant())
        .filter(versions::file_id.eq(copy.from_file))
        .filter(versions::version.eq(copy.from_version))
        .select((
            versions::tenant_id,
            copy.file.into_sql::<SqlUuid>(),
            copy.version.into_sql::<Integer>(),
            content,
            copy.created_by.into_sql::<Text>(),
            now(),
            copy.change_description.into_sql::<Text>(),
            copy.restored_from.into_sql::<Nullable<Integer>>(),
        ))
        .insert_into(versions::table)
        .into_columns((
            versions::tenant_id,
            versions::file_id,
            versions::version,
            content,
            versions::created_by,
            versions::create_time,
            versions::change_description,
            versions::restored_from,
        ));
    query("copy version", insert).execute(tx.connection()?).await.map(|_| ())
}

/// The properties of a version that a category restricts.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = versions, check_for_backend(diesel::pg::Pg))]
pub struct LargestVersion {
    pub version: i32,
    pub mime_type: String,
    pub media_kind: MediaKind,
    pub size_bytes: i64,
}

/// Returns the largest version of each media type among the versions of a file.
///
/// Excludes versions that failed verification, because they can never become current.
pub async fn list_largest_by_type(tx: &mut TenantTx, file: FileId) -> Result<Vec<LargestVersion>, DbError> {
    // A version with a known digest was available before and can become available again.
    let is_rejected = versions::content_state.eq(ContentState::Error).and(versions::sha256.is_null());
    let largest = versions::table
        .of(tx.tenant())
        .filter(versions::file_id.eq(file))
        .filter(not(is_rejected))
        .distinct_on((versions::mime_type, versions::media_kind))
        .order((
            versions::mime_type,
            versions::media_kind,
            versions::size_bytes.desc(),
            versions::version.desc(),
        ))
        .select(LargestVersion::as_select());
    query("list largest versions by type", largest).load(tx.connection()?).await
}
