//! Files: the record, and the columns of the current version that lists and access checks need.

use diesel::{
    BoolExpressionMethods as _, ExpressionMethods as _, IntoSql as _, NullableExpressionMethods as _,
    PgAnyJsonExpressionMethods as _, QueryDsl as _, Queryable, QueryableByName, Selectable,
    SelectableHelper as _,
    dsl::{case_when, exists},
    sql_types::{Bool, Integer, Jsonb, Nullable, Record, Text, Timestamptz, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, SystemTx, TenantTx, Viewer,
    schema::{file_readers, files, uploads},
    sql::{
        AcrossTenants as _, Damage, IsOfViewer, OfTenant as _, Readable, days, greatest, literal, now,
        now_plus, query, sql, statement,
    },
};
use crate::domain::{
    clock::{TIMESTAMP_MAX, Timestamp},
    digest::Digest,
    file::{ContentState, File, LegalHold, ScanStatus, StateReason, Trash, Visibility},
    ids::{FileId, TenantId},
    media_type::MediaKind,
    policy::WriteRule,
    upload::UploadState,
};

/// The columns of [`FileRow`] in SQL text, where the table is called `f`.
pub(super) const COLUMNS: &str = "f.tenant_id, f.id, f.owner_id, f.created_by, f.updated_by, f.name, \
    f.original_name, f.category, f.title, f.description, f.metadata, f.visibility, f.version, f.content_state, \
    f.scan_status, f.mime_type, f.declared_mime_type, f.media_kind, f.size_bytes, f.sha256, f.revision, \
    f.create_time, f.update_time, f.delete_time, f.purge_time, f.archive_time, f.expire_time, f.deletion_time, \
    f.retain_until_time, f.hold_time, f.hold_by, f.hold_reason, f.state_reason";

/// The same columns without the description and the metadata, which can be large.
pub(super) const BASIC_COLUMNS: &str = "f.tenant_id, f.id, f.owner_id, f.created_by, f.updated_by, f.name, \
    f.original_name, f.category, f.title, ''::text AS description, '{}'::jsonb AS metadata, f.visibility, \
    f.version, f.content_state, f.scan_status, f.mime_type, f.declared_mime_type, f.media_kind, f.size_bytes, \
    f.sha256, f.revision, f.create_time, f.update_time, f.delete_time, f.purge_time, f.archive_time, \
    f.expire_time, f.deletion_time, f.retain_until_time, f.hold_time, f.hold_by, f.hold_reason, f.state_reason";

/// A row of `files`. A column that cannot be read damages the record and not the query; see
/// [`into_file`](Self::into_file).
#[derive(Queryable, QueryableByName, Selectable)]
#[diesel(table_name = files, check_for_backend(diesel::pg::Pg))]
pub(super) struct FileRow {
    tenant_id: TenantId,
    id: FileId,
    owner_id: String,
    created_by: String,
    updated_by: String,
    name: String,
    original_name: String,
    category: String,
    title: String,
    description: String,
    metadata: Readable<serde_json::Value>,
    visibility: Readable<Visibility>,
    version: i32,
    content_state: Readable<ContentState>,
    scan_status: Readable<ScanStatus>,
    mime_type: String,
    declared_mime_type: String,
    media_kind: Readable<MediaKind>,
    size_bytes: i64,
    sha256: Readable<Option<Digest>>,
    revision: i64,
    create_time: Readable<Timestamp>,
    update_time: Readable<Timestamp>,
    delete_time: Readable<Option<Timestamp>>,
    purge_time: Readable<Option<Timestamp>>,
    archive_time: Readable<Option<Timestamp>>,
    expire_time: Readable<Option<Timestamp>>,
    deletion_time: Readable<Option<Timestamp>>,
    retain_until_time: Readable<Option<Timestamp>>,
    hold_time: Readable<Option<Timestamp>>,
    hold_by: Option<String>,
    hold_reason: Option<String>,
    state_reason: Readable<Option<StateReason>>,
}

impl FileRow {
    /// Converts the row to a file without tags and attachments, which are in other tables.
    ///
    /// If columns cannot be read, the file is in state ERROR, for the reason that its record is damaged. Their
    /// values are replaced with those that protect the file best: the narrowest visibility and the latest
    /// times.
    pub(super) fn into_file(self) -> File {
        let mut damage = Damage::default();
        let d = &mut damage;
        let latest = Some(TIMESTAMP_MAX);
        let null = serde_json::Value::Null;
        let metadata = match self.metadata.or_damaged("metadata", d, null) {
            serde_json::Value::Object(metadata) => metadata,
            _ => {
                d.add("metadata", "is not an object");
                serde_json::Map::new()
            }
        };
        let delete_time = self.delete_time.or_damaged("delete_time", d, latest);
        let purge_time = self.purge_time.or_damaged("purge_time", d, latest);
        let hold_time = self.hold_time.or_damaged("hold_time", d, latest);
        let mut file = File {
            id: self.id,
            tenant_id: self.tenant_id,
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
            visibility: self.visibility.or_damaged("visibility", d, Visibility::Owner),
            version: self.version,
            content_state: self.content_state.or_damaged("content_state", d, ContentState::Error),
            scan_status: self.scan_status.or_damaged("scan_status", d, ScanStatus::NotScanned),
            mime_type: self.mime_type,
            declared_mime_type: self.declared_mime_type,
            media_kind: self.media_kind.or_damaged("media_kind", d, MediaKind::Other),
            size_bytes: u64::try_from(self.size_bytes).unwrap_or_else(|error| {
                d.add("size_bytes", error);
                0
            }),
            sha256: self.sha256.or_damaged("sha256", d, None),
            revision: self.revision,
            create_time: self.create_time.or_damaged("create_time", d, TIMESTAMP_MAX),
            update_time: self.update_time.or_damaged("update_time", d, TIMESTAMP_MAX),
            trash: delete_time
                .zip(purge_time)
                .map(|(delete_time, purge_time)| Trash { delete_time, purge_time }),
            archive_time: self.archive_time.or_damaged("archive_time", d, latest),
            expire_time: self.expire_time.or_damaged("expire_time", d, latest),
            deletion_time: self.deletion_time.or_damaged("deletion_time", d, latest),
            retain_until_time: self.retain_until_time.or_damaged("retain_until_time", d, latest),
            hold: LegalHold::from_columns(hold_time, self.hold_by, self.hold_reason),
            access: None,
            state_reason: self.state_reason.or_damaged("state_reason", d, None),
        };
        if let Some(columns) = damage.found() {
            file.mark_record_damaged(&columns);
        }
        file
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

/// The columns of a file, and whether it has a read grant.
type VisibleRow = (FileRow, bool);

fn visible_file((file, has_read_grant): VisibleRow) -> VisibleFile {
    VisibleFile { file: file.into_file(), has_read_grant }
}

/// A query for the files that row-level security makes visible to the viewer. A macro, because the types of
/// queries are too long to write.
macro_rules! visible_files {
    ($tx:ident) => {
        files::table.of($tx.tenant()).select((
            FileRow::as_select(),
            exists(
                file_readers::table
                    .of($tx.tenant())
                    .filter(file_readers::file_id.eq(files::id))
                    .filter(IsOfViewer::new(file_readers::principal)),
            ),
        ))
    };
}

/// The columns of [`FileRow`] in a query, without the description and the metadata.
macro_rules! basic_row {
    () => {
        (
            files::tenant_id,
            files::id,
            files::owner_id,
            files::created_by,
            files::updated_by,
            files::name,
            files::original_name,
            files::category,
            files::title,
            "".into_sql::<Text>(),
            serde_json::json!({}).into_sql::<Jsonb>(),
            files::visibility,
            files::version,
            files::content_state,
            files::scan_status,
            files::mime_type,
            files::declared_mime_type,
            files::media_kind,
            files::size_bytes,
            files::sha256,
            files::revision,
            files::create_time,
            files::update_time,
            files::delete_time,
            files::purge_time,
            files::archive_time,
            files::expire_time,
            files::deletion_time,
            files::retain_until_time,
            files::hold_time,
            files::hold_by,
            files::hold_reason,
            files::state_reason,
        )
    };
}

/// A query like `visible_files` for files without their description and metadata, which can be large.
macro_rules! visible_basic_files {
    ($tx:ident) => {
        files::table.of($tx.tenant()).select((
            basic_row!(),
            exists(
                file_readers::table
                    .of($tx.tenant())
                    .filter(file_readers::file_id.eq(files::id))
                    .filter(IsOfViewer::new(file_readers::principal)),
            ),
        ))
    };
}

/// Returns the visible files with these ids, in no particular order, without description and metadata.
pub async fn get_all_basic(tx: &mut TenantTx, ids: &[FileId]) -> Result<Vec<VisibleFile>, DbError> {
    let files = visible_basic_files!(tx).filter(files::id.eq_any(ids));
    let rows: Vec<VisibleRow> = query("get basic files", files).load(tx.connection()?).await?;
    Ok(rows.into_iter().map(visible_file).collect())
}

/// Returns the visible files with these ids, in no particular order.
pub async fn get_all(tx: &mut TenantTx, ids: &[FileId]) -> Result<Vec<VisibleFile>, DbError> {
    let files = visible_files!(tx).filter(files::id.eq_any(ids));
    let rows: Vec<VisibleRow> = query("get files", files).load(tx.connection()?).await?;
    Ok(rows.into_iter().map(visible_file).collect())
}

/// Returns the file with this id, if it is visible.
pub async fn get(tx: &mut TenantTx, id: FileId) -> Result<Option<VisibleFile>, DbError> {
    let file = visible_files!(tx).filter(files::id.eq(id));
    let row: Option<VisibleRow> = query("get file", file).first(tx.connection()?).await?;
    Ok(row.map(visible_file))
}

/// Returns whether another viewer than that of the transaction may see and change the file. The policy of the
/// tenant allows its members to change each other's files, or not.
pub async fn can_be_changed_by(
    tx: &mut TenantTx,
    id: FileId,
    viewer: &Viewer,
    rule: WriteRule,
) -> Result<bool, DbError> {
    let is_granted = exists(
        file_readers::table
            .of(tx.tenant())
            .filter(file_readers::file_id.eq(files::id))
            .filter(file_readers::principal.eq_any(viewer.principals().to_vec())),
    );
    let is_visible = files::audience.ge(viewer.audience_min()).or(is_granted);
    let can_write = viewer.can_write_all(rule).into_sql::<Bool>();
    let allowed = files::table
        .of(tx.tenant())
        .filter(files::id.eq(id))
        .filter(files::owner_id.eq(viewer.user_id()).or(is_visible.and(can_write)))
        .select(files::id);
    let found: Option<FileId> = query("check permission to change", allowed).first(tx.connection()?).await?;
    Ok(found.is_some())
}

/// Returns the file with this id, if it is visible. Prevents changes to it until the transaction ends.
pub async fn get_for_share(tx: &mut TenantTx, id: FileId) -> Result<Option<VisibleFile>, DbError> {
    let file = visible_files!(tx).filter(files::id.eq(id)).for_share();
    let row: Option<VisibleRow> = query("lock file for share", file).first(tx.connection()?).await?;
    Ok(row.map(visible_file))
}

/// Returns the visible files with these ids without description and metadata, and locks them in id order until
/// the transaction ends.
pub async fn get_all_for_update(tx: &mut TenantTx, ids: &[FileId]) -> Result<Vec<VisibleFile>, DbError> {
    let files = visible_basic_files!(tx).filter(files::id.eq_any(ids)).order(files::id).for_update();
    let rows: Vec<VisibleRow> = query("lock files", files).load(tx.connection()?).await?;
    Ok(rows.into_iter().map(visible_file).collect())
}

/// Returns the file with this id, if it is visible, and locks it until the transaction ends.
pub async fn get_for_update(tx: &mut TenantTx, id: FileId) -> Result<Option<VisibleFile>, DbError> {
    let file = visible_files!(tx).filter(files::id.eq(id)).for_update();
    let row: Option<VisibleRow> = query("lock file", file).first(tx.connection()?).await?;
    Ok(row.map(visible_file))
}

/// Updates columns of a file, and its update time, `updated_by` and revision. Evaluates to the updated file.
macro_rules! update_file {
    ($tx:ident, $operation:literal, $id:expr, $actor_id:expr, ($($change:expr),* $(,)?)) => {{
        let update = diesel::update(files::table.of($tx.tenant()).filter(files::id.eq($id)))
            .set((
                $($change,)*
                files::update_time.eq(now()),
                files::updated_by.eq($actor_id),
                files::revision.eq(files::revision + 1),
            ))
            .returning(FileRow::as_returning());
        let row: FileRow = query($operation, update).one($tx.connection()?).await?;
        Ok::<File, DbError>(row.into_file())
    }};
}

/// Moves a file to the trash for the given number of days.
pub async fn trash(tx: &mut TenantTx, id: FileId, actor_id: &str, days: u32) -> Result<File, DbError> {
    let changes = (
        files::delete_time.eq(now().nullable()),
        files::purge_time.eq(now_plus(self::days(days)).nullable()),
    );
    update_file!(tx, "move file to trash", id, actor_id, (changes))
}

/// Restores a file from the trash.
pub async fn untrash(tx: &mut TenantTx, id: FileId, actor_id: &str) -> Result<File, DbError> {
    const NEVER: Option<Timestamp> = None;
    let changes = (files::delete_time.eq(NEVER), files::purge_time.eq(NEVER));
    update_file!(tx, "restore file from trash", id, actor_id, (changes))
}

/// Archives or unarchives a file.
pub async fn set_archived(
    tx: &mut TenantTx,
    id: FileId,
    actor_id: &str,
    is_archived: bool,
) -> Result<File, DbError> {
    let archive_time = case_when(is_archived.into_sql::<Bool>(), now());
    update_file!(tx, "set archived", id, actor_id, (files::archive_time.eq(archive_time)))
}

/// Allocates the number of the file's next version. Numbers are never reused.
pub async fn allocate_version_number(tx: &mut TenantTx, id: FileId) -> Result<i32, DbError> {
    let update = diesel::update(files::table.of(tx.tenant()).filter(files::id.eq(id)))
        .set(files::last_version.eq(files::last_version + 1))
        .returning(files::last_version);
    query("allocate version number", update).one(tx.connection()?).await
}

/// Makes a version the current one. The database rejects versions that are not available.
pub async fn set_current_version(
    tx: &mut TenantTx,
    id: FileId,
    version: i32,
    actor_id: &str,
) -> Result<File, DbError> {
    // UPDATE with FROM.
    let text = sql!(
        "UPDATE files AS f SET version = v.version, content_state = v.content_state,
            state_reason = v.state_reason, scan_status = v.scan_status,
            mime_type = v.mime_type, declared_mime_type = v.declared_mime_type, media_kind = v.media_kind,
            size_bytes = v.size_bytes, sha256 = v.sha256,
            update_time = app.now(), updated_by = $1, revision = f.revision + 1
         FROM versions AS v
         WHERE f.tenant_id = $2 AND f.id = $3 AND v.tenant_id = f.tenant_id AND v.file_id = f.id
           AND v.version = $4 RETURNING {columns}",
        columns = COLUMNS,
    );
    let row: FileRow = statement("set current version", text)
        .bind::<Text, _>(actor_id.to_owned())
        .bind::<SqlUuid, _>(tx.tenant())
        .bind::<SqlUuid, _>(id)
        .bind::<Integer, _>(version)
        .one(tx.connection()?)
        .await?;
    Ok(row.into_file())
}

/// Updates the revision, the update time and `updated_by` of a file after a change in another table.
pub async fn touch(tx: &mut TenantTx, id: FileId, actor_id: &str) -> Result<File, DbError> {
    update_file!(tx, "touch file", id, actor_id, ())
}

/// Updates the record of a file, except its tags, which are in another table.
pub async fn update(tx: &mut TenantTx, file: &File, actor_id: &str) -> Result<File, DbError> {
    let changes = (
        files::name.eq(&file.name),
        files::category.eq(&file.category),
        files::title.eq(&file.title),
        files::description.eq(&file.description),
        files::metadata.eq(serde_json::Value::Object(file.metadata.clone())),
        files::visibility.eq(file.visibility),
        files::expire_time.eq(file.expire_time),
        files::retain_until_time.eq(file.retain_until_time),
    );
    update_file!(tx, "update file", file.id, actor_id, (changes))
}

/// Sets the legal hold of a file, or releases it if `reason` is `None`.
pub async fn set_hold(
    tx: &mut TenantTx,
    id: FileId,
    actor_id: &str,
    reason: Option<&str>,
) -> Result<File, DbError> {
    let changes = (
        files::hold_reason.eq(reason),
        files::hold_time.eq(case_when(reason.is_some().into_sql::<Bool>(), now())),
        files::hold_by.eq(reason.map(|_| actor_id)),
    );
    update_file!(tx, "set hold", id, actor_id, (changes))
}

/// Deletes the row of a file. All rows that reference it must already be deleted.
pub async fn delete(tx: &mut TenantTx, id: FileId) -> Result<(), DbError> {
    let delete = diesel::delete(files::table.of(tx.tenant()).filter(files::id.eq(id)));
    query("delete file", delete).execute(tx.connection()?).await.map(|_| ())
}

/// Returns files of the transaction's tenant after an id, ordered by id. Includes the trash; omits tags and
/// attachments.
pub async fn list_after(tx: &mut TenantTx, after: Option<FileId>, limit: i64) -> Result<Vec<File>, DbError> {
    let page = files::table
        .of(tx.tenant())
        .filter(files::id.gt(after.unwrap_or(FileId::from_uuid(Uuid::nil()))))
        .order(files::id)
        .limit(limit)
        .select(FileRow::as_select());
    let rows: Vec<FileRow> = query("list files by id", page).load(tx.connection()?).await?;
    Ok(rows.into_iter().map(FileRow::into_file).collect())
}

/// Returns whether a file, including the trash, or an open resumable upload has this category.
///
/// If none has it, this scans all files of the tenant, so only admins may cause this query.
pub async fn is_category_used(tx: &mut TenantTx, category: &str) -> Result<bool, DbError> {
    let files = files::table.of(tx.tenant()).filter(files::category.eq(category));
    let uploads = uploads::table
        .of(tx.tenant())
        .filter(uploads::state.eq(literal!(UploadState::Open)))
        .filter(uploads::spec.retrieve_as_object("rules").retrieve_as_text("category").eq(category));
    let is_used = diesel::select(exists(files).or(exists(uploads)));
    query("find files of category", is_used).one(tx.connection()?).await
}

/// A file that is due for purge, because both its time in the trash and its retention have expired; also its
/// position in the list of due files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Queryable)]
pub struct DueFile {
    pub due_time: Timestamp,
    pub tenant: TenantId,
    pub file: FileId,
}

/// Returns files that are due for purge and not under a legal hold, after a position, ordered by due time.
pub async fn list_due(
    tx: &mut SystemTx,
    after: Option<DueFile>,
    limit: i64,
) -> Result<Vec<DueFile>, DbError> {
    type Position = Record<(Nullable<Timestamptz>, SqlUuid, SqlUuid)>;
    let after = after.map_or(
        (Timestamp::UNIX_EPOCH, TenantId::from_uuid(Uuid::nil()), FileId::from_uuid(Uuid::nil())),
        |after| (after.due_time, after.tenant, after.file),
    );
    let due_time = greatest(files::purge_time, files::retain_until_time);
    let position = (due_time, files::tenant_id, files::id);
    let due = files::table
        .across_tenants()
        .filter(files::purge_time.is_not_null())
        .filter(files::hold_time.is_null())
        .filter(due_time.le(now().nullable()))
        .filter(position.into_sql::<Position>().gt(after))
        .order(position)
        .limit(limit)
        .select((due_time.assume_not_null(), files::tenant_id, files::id));
    query("list files due for purge", due).load(tx.connection()?).await
}
