//! Files: the record, and the columns of the current version that lists and access checks need. `file_rows.rs`
//! converts their rows.

use diesel::{
    BoolExpressionMethods as _, ExpressionMethods as _, IntoSql as _, NullableExpressionMethods as _,
    PgAnyJsonExpressionMethods as _, QueryDsl as _, Queryable, QueryableByName, SelectableHelper as _,
    dsl::{case_when, exists},
    sql_types::{Array, Bool, Integer, Jsonb, Nullable, Record, Text, Timestamptz, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, SystemTx, TenantTx, Viewer,
    file_rows::{COLUMNS, FileRow, basic_row},
    schema::{file_readers, files, uploads},
    sql::{
        AcrossTenants as _, IsOfViewer, OfTenant as _, days, greatest, literal, now, now_plus, query, sql,
        statement,
    },
};
use crate::domain::{
    clock::Timestamp,
    file::File,
    ids::{FileId, TenantId},
    permission::Permission,
    policy::WriteRule,
    upload::UploadState,
};

/// A file that is visible to the viewer.
#[derive(Debug, Clone)]
pub struct VisibleFile {
    /// The file, without tags and attachments.
    pub file: File,
    /// Whether one of the viewer's principals reads the file by the policy of its category.
    pub is_policy_reader: bool,
    /// The highest permission that grants and the policy give to the viewer's principals now.
    pub granted: Option<Permission>,
}

/// The columns of a file, whether the viewer reads it by policy, and the permission that it was granted.
pub(super) type VisibleRow = (FileRow, (bool, Option<Permission>));

pub(super) fn visible_file((file, (is_policy_reader, granted)): VisibleRow) -> VisibleFile {
    VisibleFile { file: file.into_file(), is_policy_reader, granted }
}

/// Selects what the readers of a file allow the viewer.
macro_rules! viewer_permissions {
    ($tx:ident) => {{
        use diesel::{
            BoolExpressionMethods as _, IntoSql as _,
            dsl::{case_when, max},
            sql_types::SmallInt,
        };

        use $crate::{
            db::{
                schema::{file_readers, files},
                sql::now,
            },
            domain::permission::Permission,
        };

        // Parameters, because PostgreSQL takes a literal for an integer, and the maximum would be one.
        // Readers by policy have these times as well, but hold no permission that they could give to others.
        let is_granted = file_readers::is_by_policy.eq(false);
        let number = |permission: Permission| permission.into_sql::<SmallInt>();
        let permission = case_when(file_readers::delete_end_time.gt(now()), number(Permission::Delete))
            .when(is_granted.and(file_readers::download_end_time.gt(now())), number(Permission::Download))
            .when(is_granted.and(file_readers::view_end_time.gt(now())), number(Permission::View));
        let of_viewer = || {
            file_readers::table
                .of($tx.tenant())
                .filter(file_readers::file_id.eq(files::id))
                .filter(IsOfViewer::new(file_readers::principal))
        };
        (
            exists(of_viewer().filter(file_readers::is_by_policy)),
            of_viewer().select(max(permission)).single_value(),
        )
    }};
}

/// A query for the files that row-level security makes visible to the viewer. A macro, because the types of
/// queries are too long to write.
macro_rules! visible_files {
    ($tx:ident) => {
        files::table.of($tx.tenant()).select((FileRow::as_select(), viewer_permissions!($tx)))
    };
}

/// A query like `visible_files` for files without their description and metadata, which can be large.
macro_rules! visible_basic_files {
    ($tx:ident) => {
        files::table.of($tx.tenant()).select((basic_row!(), viewer_permissions!($tx)))
    };
}

pub(super) use viewer_permissions;
pub(super) use visible_basic_files;
pub(super) use visible_files;

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
/// tenant allows its members to change each other's files, or not. Grants do not allow changes.
pub async fn can_be_changed_by(
    tx: &mut TenantTx,
    id: FileId,
    viewer: &Viewer,
    rule: WriteRule,
) -> Result<bool, DbError> {
    let is_policy_reader = exists(
        file_readers::table
            .of(tx.tenant())
            .filter(file_readers::file_id.eq(files::id))
            .filter(file_readers::is_by_policy)
            .filter(file_readers::principal.eq_any(viewer.principals().to_vec())),
    );
    let is_visible = files::audience.ge(viewer.audience_min()).or(is_policy_reader);
    let can_write = viewer.can_write_all(rule).into_sql::<Bool>();
    let allowed = files::table
        .of(tx.tenant())
        .filter(files::id.eq(id))
        .filter(files::owner_id.eq(viewer.user_id()).or(is_visible.and(can_write)))
        .select(files::id);
    let found: Option<FileId> = query("check permission to change", allowed).first(tx.connection()?).await?;
    Ok(found.is_some())
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

/// Updates the revision of a file after a change of its grants, which is not a change of its record. Returns the file.
pub async fn increment_revision(tx: &mut TenantTx, id: FileId) -> Result<File, DbError> {
    let update = diesel::update(files::table.of(tx.tenant()).filter(files::id.eq(id)))
        .set(files::revision.eq(files::revision + 1))
        .returning(FileRow::as_returning());
    let row: FileRow = query("increment revision", update).one(tx.connection()?).await?;
    Ok(row.into_file())
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

#[derive(QueryableByName)]
struct DeletedFile {
    #[diesel(sql_type = Array<Text>)]
    readers: Vec<String>,
}

/// Deletes the row of a file and those of its readers. Returns the principals that could read it. All other rows that
/// reference the file must already be deleted.
pub async fn delete(tx: &mut TenantTx, id: FileId) -> Result<Vec<String>, DbError> {
    const OPERATION: &str = "delete file";
    // Two deletions in one statement: the caller may see the file only as one of its readers.
    let deleted: Option<DeletedFile> = statement(
        OPERATION,
        "WITH readers AS (
            DELETE FROM file_readers WHERE tenant_id = $1 AND file_id = $2
            RETURNING principal, view_end_time > app.now() AS is_reader)
         DELETE FROM files WHERE tenant_id = $1 AND id = $2
         RETURNING array(SELECT principal FROM readers WHERE is_reader) AS readers",
    )
    .bind::<SqlUuid, _>(tx.tenant())
    .bind::<SqlUuid, _>(id)
    .first(tx.connection()?)
    .await?;
    deleted
        .map(|deleted| deleted.readers)
        .ok_or_else(|| DbError::corrupt(OPERATION, "the file is not visible"))
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
