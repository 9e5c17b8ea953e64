//! Files: the record, and the columns of the current version that lists and access checks need.

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{
        Array, BigInt, Binary, Bool, Integer, Jsonb, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid,
    },
};
use uuid::Uuid;

use super::{DbError, SystemTx, TenantTx, sql::statement};
use crate::domain::{
    clock::Timestamp,
    digest::Digest,
    file::{ContentState, File, LegalHold, ScanStatus, StateReason, Trash, Visibility},
    ids::{FileId, TenantId},
    media_type::MediaKind,
};

pub(super) const COLUMNS: &str = "f.tenant_id, f.id, f.owner_id, f.created_by, f.updated_by, f.name, \
    f.original_name, f.category, f.title, f.description, f.metadata, f.visibility, f.version, f.content_state, \
    f.scan_status, f.mime_type, f.declared_mime_type, f.media_kind, f.size_bytes, f.sha256, f.revision, \
    f.create_time, f.update_time, f.delete_time, f.purge_time, f.archive_time, f.expire_time, f.deletion_time, \
    f.retain_until_time, f.hold_time, f.hold_by, f.hold_reason, f.state_reason";

#[derive(QueryableByName)]
pub(super) struct FileRow {
    #[diesel(sql_type = SqlUuid)]
    tenant_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    pub(super) id: Uuid,
    #[diesel(sql_type = Text)]
    owner_id: String,
    #[diesel(sql_type = Text)]
    created_by: String,
    #[diesel(sql_type = Text)]
    updated_by: String,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    original_name: String,
    #[diesel(sql_type = Text)]
    category: String,
    #[diesel(sql_type = Text)]
    title: String,
    #[diesel(sql_type = Text)]
    description: String,
    #[diesel(sql_type = Jsonb)]
    metadata: serde_json::Value,
    #[diesel(sql_type = SmallInt)]
    visibility: i16,
    #[diesel(sql_type = Integer)]
    version: i32,
    #[diesel(sql_type = SmallInt)]
    content_state: i16,
    #[diesel(sql_type = SmallInt)]
    scan_status: i16,
    #[diesel(sql_type = Text)]
    mime_type: String,
    #[diesel(sql_type = Text)]
    declared_mime_type: String,
    #[diesel(sql_type = SmallInt)]
    media_kind: i16,
    #[diesel(sql_type = BigInt)]
    size_bytes: i64,
    #[diesel(sql_type = Nullable<Binary>)]
    sha256: Option<Vec<u8>>,
    #[diesel(sql_type = BigInt)]
    revision: i64,
    #[diesel(sql_type = Timestamptz)]
    create_time: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    update_time: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    delete_time: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    purge_time: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    archive_time: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    expire_time: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    deletion_time: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    retain_until_time: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    hold_time: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Text>)]
    hold_by: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    hold_reason: Option<String>,
    #[diesel(sql_type = Nullable<SmallInt>)]
    state_reason: Option<i16>,
}

impl FileRow {
    /// Converts the row to a file without tags and attachments, which are in other tables.
    pub(super) fn into_file(self) -> Result<File, DbError> {
        let corrupt = |what: &str| DbError::corrupt("read file", what);
        let serde_json::Value::Object(metadata) = self.metadata else { return Err(corrupt("metadata")) };
        Ok(File {
            id: FileId::from_uuid(self.id),
            tenant_id: TenantId::from_uuid(self.tenant_id),
            owner_id: self.owner_id,
            created_by: self.created_by,
            updated_by: self.updated_by,
            name: self.name,
            original_name: self.original_name,
            category: self.category,
            title: self.title,
            description: self.description,
            metadata,
            tags: Vec::new(),
            attachments: Vec::new(),
            visibility: Visibility::from_number(self.visibility).ok_or_else(|| corrupt("visibility"))?,
            version: self.version,
            content_state: ContentState::from_number(self.content_state)
                .ok_or_else(|| corrupt("content state"))?,
            scan_status: ScanStatus::from_number(self.scan_status).ok_or_else(|| corrupt("scan status"))?,
            mime_type: self.mime_type,
            declared_mime_type: self.declared_mime_type,
            media_kind: MediaKind::from_number(self.media_kind).ok_or_else(|| corrupt("media kind"))?,
            size_bytes: u64::try_from(self.size_bytes).map_err(|_| corrupt("size"))?,
            sha256: self
                .sha256
                .map(|sha256| Digest::from_slice(&sha256))
                .transpose()
                .map_err(|_| corrupt("digest"))?,
            revision: self.revision,
            create_time: self.create_time,
            update_time: self.update_time,
            trash: self
                .delete_time
                .zip(self.purge_time)
                .map(|(delete_time, purge_time)| Trash { delete_time, purge_time }),
            archive_time: self.archive_time,
            expire_time: self.expire_time,
            deletion_time: self.deletion_time,
            retain_until_time: self.retain_until_time,
            hold: LegalHold::from_columns(self.hold_time, self.hold_by, self.hold_reason),
            access: None,
            state_reason: self.state_reason.and_then(StateReason::from_number),
        })
    }
}

/// A file that is visible to the viewer.
#[derive(Debug, Clone)]
pub struct VisibleFile {
    /// The file, without tags and attachments.
    pub file: File,
    /// Whether one of the viewer's principals is among the readers of the file.
    pub has_read_grant: bool,
}

#[derive(QueryableByName)]
struct VisibleRow {
    #[diesel(embed)]
    file: FileRow,
    #[diesel(sql_type = Bool)]
    has_read_grant: bool,
}

impl VisibleRow {
    fn into_file(self) -> Result<VisibleFile, DbError> {
        Ok(VisibleFile { file: self.file.into_file()?, has_read_grant: self.has_read_grant })
    }
}

/// Builds a query for the files that row-level security makes visible to the viewer. The first bind parameter
/// is the tenant.
fn select_visible(condition: &str) -> String {
    format!(
        "SELECT {COLUMNS}, EXISTS (
             SELECT FROM file_readers AS reader
             WHERE reader.tenant_id = f.tenant_id AND reader.file_id = f.id
               AND reader.principal = ANY ((SELECT app.principals())::text[])) AS has_read_grant
         FROM files AS f WHERE f.tenant_id = $1 AND {condition}"
    )
}

/// Returns the visible files with these ids, in no particular order.
pub async fn get_all(tx: &mut TenantTx, ids: &[FileId]) -> Result<Vec<VisibleFile>, DbError> {
    let rows: Vec<VisibleRow> = statement("get files", select_visible("f.id = ANY ($2)"))
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<Array<SqlUuid>, _>(ids.iter().map(|id| id.as_uuid()).collect::<Vec<_>>())
        .load(tx.connection()?)
        .await?;
    rows.into_iter().map(VisibleRow::into_file).collect()
}

/// Returns the file with this id, if it is visible.
pub async fn get(tx: &mut TenantTx, id: FileId) -> Result<Option<VisibleFile>, DbError> {
    select(tx, "get file", id, "").await
}

/// Returns the file with this id, if it is visible. Prevents changes to it until the transaction ends.
pub async fn get_for_share(tx: &mut TenantTx, id: FileId) -> Result<Option<VisibleFile>, DbError> {
    select(tx, "lock file for share", id, " FOR SHARE OF f").await
}

/// Returns the visible files with these ids, and locks them in id order until the transaction ends.
pub async fn get_all_for_update(tx: &mut TenantTx, ids: &[FileId]) -> Result<Vec<VisibleFile>, DbError> {
    let rows: Vec<VisibleRow> =
        statement("lock files", select_visible("f.id = ANY ($2) ORDER BY f.id FOR UPDATE OF f"))
            .bind::<SqlUuid, _>(tx.tenant().as_uuid())
            .bind::<Array<SqlUuid>, _>(ids.iter().map(|id| id.as_uuid()).collect::<Vec<_>>())
            .load(tx.connection()?)
            .await?;
    rows.into_iter().map(VisibleRow::into_file).collect()
}

/// Returns the file with this id, if it is visible, and locks it until the transaction ends.
pub async fn get_for_update(tx: &mut TenantTx, id: FileId) -> Result<Option<VisibleFile>, DbError> {
    select(tx, "lock file", id, " FOR UPDATE OF f").await
}

async fn select(
    tx: &mut TenantTx,
    operation: &'static str,
    id: FileId,
    suffix: &str,
) -> Result<Option<VisibleFile>, DbError> {
    let row: Option<VisibleRow> = statement(operation, select_visible(&format!("f.id = $2{suffix}")))
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(id.as_uuid())
        .first(tx.connection()?)
        .await?;
    row.map(VisibleRow::into_file).transpose()
}

/// Moves a file to the trash for the given number of days.
pub async fn trash(tx: &mut TenantTx, id: FileId, actor_id: &str, days: u32) -> Result<File, DbError> {
    let days = i32::try_from(days).unwrap_or(i32::MAX);
    let sql = format!(
        "UPDATE files AS f SET delete_time = app.now(), purge_time = app.now() + make_interval(days => $1),
            update_time = app.now(), updated_by = $2, revision = f.revision + 1
         WHERE f.tenant_id = $3 AND f.id = $4 RETURNING {COLUMNS}"
    );
    let row: FileRow = statement("move file to trash", sql)
        .bind::<Integer, _>(days)
        .bind::<Text, _>(actor_id.to_owned())
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(id.as_uuid())
        .one(tx.connection()?)
        .await?;
    row.into_file()
}

/// Restores a file from the trash.
pub async fn untrash(tx: &mut TenantTx, id: FileId, actor_id: &str) -> Result<File, DbError> {
    let sql = format!(
        "UPDATE files AS f SET delete_time = NULL, purge_time = NULL,
            update_time = app.now(), updated_by = $1, revision = f.revision + 1
         WHERE f.tenant_id = $2 AND f.id = $3 RETURNING {COLUMNS}"
    );
    let row: FileRow = statement("restore file from trash", sql)
        .bind::<Text, _>(actor_id.to_owned())
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(id.as_uuid())
        .one(tx.connection()?)
        .await?;
    row.into_file()
}

/// Archives or unarchives a file.
pub async fn set_archived(
    tx: &mut TenantTx,
    id: FileId,
    actor_id: &str,
    is_archived: bool,
) -> Result<File, DbError> {
    let sql = format!(
        "UPDATE files AS f SET archive_time = CASE WHEN $1 THEN app.now() END,
            update_time = app.now(), updated_by = $2, revision = f.revision + 1
         WHERE f.tenant_id = $3 AND f.id = $4 RETURNING {COLUMNS}"
    );
    let row: FileRow = statement("set archived", sql)
        .bind::<Bool, _>(is_archived)
        .bind::<Text, _>(actor_id.to_owned())
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(id.as_uuid())
        .one(tx.connection()?)
        .await?;
    row.into_file()
}

/// Allocates the number of the file's next version. Numbers are never reused.
pub async fn allocate_version_number(tx: &mut TenantTx, id: FileId) -> Result<i32, DbError> {
    let row: LastVersionRow = statement(
        "allocate version number",
        "UPDATE files SET last_version = last_version + 1 WHERE tenant_id = $1 AND id = $2 RETURNING last_version",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(id.as_uuid())
    .one(tx.connection()?)
    .await?;
    Ok(row.last_version)
}

#[derive(QueryableByName)]
struct LastVersionRow {
    #[diesel(sql_type = Integer)]
    last_version: i32,
}

/// Makes a version the current one. The database rejects versions that are not available.
pub async fn set_current_version(
    tx: &mut TenantTx,
    id: FileId,
    version: i32,
    actor_id: &str,
) -> Result<File, DbError> {
    let sql = format!(
        "UPDATE files AS f SET version = v.version, content_state = v.content_state,
            state_reason = v.state_reason, scan_status = v.scan_status,
            mime_type = v.mime_type, declared_mime_type = v.declared_mime_type, media_kind = v.media_kind,
            size_bytes = v.size_bytes, sha256 = v.sha256,
            update_time = app.now(), updated_by = $1, revision = f.revision + 1
         FROM versions AS v
         WHERE f.tenant_id = $2 AND f.id = $3 AND v.tenant_id = f.tenant_id AND v.file_id = f.id
           AND v.version = $4 RETURNING {COLUMNS}"
    );
    let row: FileRow = statement("set current version", sql)
        .bind::<Text, _>(actor_id.to_owned())
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(id.as_uuid())
        .bind::<Integer, _>(version)
        .one(tx.connection()?)
        .await?;
    row.into_file()
}

/// Updates the revision, the update time and `updated_by` of a file after a change in another table.
pub async fn touch(tx: &mut TenantTx, id: FileId, actor_id: &str) -> Result<File, DbError> {
    let sql = format!(
        "UPDATE files AS f SET update_time = app.now(), updated_by = $1, revision = f.revision + 1
         WHERE f.tenant_id = $2 AND f.id = $3 RETURNING {COLUMNS}"
    );
    let row: FileRow = statement("touch file", sql)
        .bind::<Text, _>(actor_id.to_owned())
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(id.as_uuid())
        .one(tx.connection()?)
        .await?;
    row.into_file()
}

/// Updates the record of a file, except its tags, which are in another table.
pub async fn update(tx: &mut TenantTx, file: &File, actor_id: &str) -> Result<File, DbError> {
    let sql = format!(
        "UPDATE files AS f SET name = $1, category = $2, title = $3, description = $4, metadata = $5, visibility = $6,
            expire_time = $7, retain_until_time = $8,
            update_time = app.now(), updated_by = $9, revision = f.revision + 1
         WHERE f.tenant_id = $10 AND f.id = $11 RETURNING {COLUMNS}"
    );
    let row: FileRow = statement("update file", sql)
        .bind::<Text, _>(file.name.clone())
        .bind::<Text, _>(file.category.clone())
        .bind::<Text, _>(file.title.clone())
        .bind::<Text, _>(file.description.clone())
        .bind::<Jsonb, _>(serde_json::Value::Object(file.metadata.clone()))
        .bind::<SmallInt, _>(file.visibility.number())
        .bind::<Nullable<Timestamptz>, _>(file.expire_time)
        .bind::<Nullable<Timestamptz>, _>(file.retain_until_time)
        .bind::<Text, _>(actor_id.to_owned())
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(file.id.as_uuid())
        .one(tx.connection()?)
        .await?;
    row.into_file()
}

/// Sets the legal hold of a file, or releases it if `reason` is `None`.
pub async fn set_hold(
    tx: &mut TenantTx,
    id: FileId,
    actor_id: &str,
    reason: Option<&str>,
) -> Result<File, DbError> {
    let sql = format!(
        "UPDATE files AS f SET hold_reason = hold.reason,
            hold_time = CASE WHEN hold.reason IS NOT NULL THEN app.now() END,
            hold_by = CASE WHEN hold.reason IS NOT NULL THEN hold.actor_id END,
            update_time = app.now(), updated_by = hold.actor_id, revision = f.revision + 1
         FROM (VALUES ($1::text, $2::text)) AS hold (reason, actor_id)
         WHERE f.tenant_id = $3 AND f.id = $4 RETURNING {COLUMNS}"
    );
    let row: FileRow = statement("set hold", sql)
        .bind::<Nullable<Text>, _>(reason.map(str::to_owned))
        .bind::<Text, _>(actor_id.to_owned())
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(id.as_uuid())
        .one(tx.connection()?)
        .await?;
    row.into_file()
}

/// Deletes the row of a file. All rows that reference it must already be deleted.
pub async fn delete(tx: &mut TenantTx, id: FileId) -> Result<(), DbError> {
    statement("delete file", "DELETE FROM files WHERE tenant_id = $1 AND id = $2")
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(id.as_uuid())
        .execute(tx.connection()?)
        .await
        .map(|_| ())
}

/// Returns files of the transaction's tenant after an id, ordered by id. Includes the trash; omits tags and
/// attachments.
pub async fn list_after(tx: &mut TenantTx, after: Option<FileId>, limit: i64) -> Result<Vec<File>, DbError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM files AS f WHERE f.tenant_id = $1 AND f.id > $2 ORDER BY f.id LIMIT $3"
    );
    let rows: Vec<FileRow> = statement("list files by id", sql)
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(after.map_or(Uuid::nil(), FileId::as_uuid))
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await?;
    rows.into_iter().map(FileRow::into_file).collect()
}

#[derive(QueryableByName)]
struct ExistsRow {
    #[diesel(sql_type = Bool)]
    exists: bool,
}

/// Returns whether a file, including the trash, or an open resumable upload has this category.
///
/// If none has it, this scans all files of the tenant, so only admins may cause this query.
pub async fn is_category_used(tx: &mut TenantTx, category: &str) -> Result<bool, DbError> {
    let row: ExistsRow = statement(
        "find files of category",
        "SELECT EXISTS (SELECT FROM files WHERE tenant_id = $1 AND category = $2)
             OR EXISTS (SELECT FROM uploads WHERE tenant_id = $3 AND state = 1 AND spec -> 'rules' ->> 'category' = $4) AS exists",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Text, _>(category.to_owned())
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Text, _>(category.to_owned())
    .one(tx.connection()?)
    .await?;
    Ok(row.exists)
}

#[derive(QueryableByName)]
struct DueRow {
    #[diesel(sql_type = SqlUuid)]
    tenant_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Timestamptz)]
    due_time: Timestamp,
}

/// The due time, tenant and id of a file that is due for purge; also its position in the list of due files.
///
/// A file is due when both its time in the trash and its retention have expired.
pub type DueFile = (Timestamp, TenantId, FileId);

/// Returns files that are due for purge and not under a legal hold, after a position, ordered by due time.
pub async fn list_due(
    tx: &mut SystemTx,
    after: Option<DueFile>,
    limit: i64,
) -> Result<Vec<DueFile>, DbError> {
    let (time, tenant, id) = after.map_or((Timestamp::UNIX_EPOCH, Uuid::nil(), Uuid::nil()), |after| {
        (after.0, after.1.as_uuid(), after.2.as_uuid())
    });
    let rows: Vec<DueRow> = statement(
        "list files due for purge",
        "SELECT tenant_id, id, greatest(purge_time, retain_until_time) AS due_time FROM files
         WHERE purge_time IS NOT NULL AND hold_time IS NULL AND greatest(purge_time, retain_until_time) <= app.now()
           AND (greatest(purge_time, retain_until_time), tenant_id, id) > ($1, $2, $3)
         ORDER BY greatest(purge_time, retain_until_time), tenant_id, id LIMIT $4",
    )
    .bind::<Timestamptz, _>(time)
    .bind::<SqlUuid, _>(tenant)
    .bind::<SqlUuid, _>(id)
    .bind::<BigInt, _>(limit)
    .load(tx.connection()?)
    .await?;
    let due_file =
        |row: DueRow| (row.due_time, TenantId::from_uuid(row.tenant_id), FileId::from_uuid(row.id));
    Ok(rows.into_iter().map(due_file).collect())
}
