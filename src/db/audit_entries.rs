//! The audit log: changes, disclosures and denials. Each entry is written in the transaction that it
//! describes.

use diesel::{
    QueryableByName,
    sql_types::{
        Array, BigInt, Bool, Integer, Jsonb, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid,
    },
};
use uuid::Uuid;

use super::{
    DbError, SystemTx, TenantTx, TransactionId, WrittenRow,
    sql::{Operation, SqlText, statement},
};
use crate::domain::{
    caller::{Actor, ActorKind, Origin},
    clock::Timestamp,
    ids::{FileId, TenantId},
    sql_enum::sql_enum,
};

sql_enum! {
    /// An action that was performed or attempted.
    AuditAction {
        /// A tenant was created.
        TenantCreate = 1 => "tenant_create",
        /// A version was committed.
        FileUpload = 2 => "file_upload",
        /// The content of a file was disclosed.
        FileDownload = 3 => "file_download",
        /// A file was moved to the trash.
        FileDelete = 4 => "file_delete",
        /// A file was restored from the trash.
        FileUndelete = 5 => "file_undelete",
        /// A file was purged.
        FilePurge = 6 => "file_purge",
        /// The limits of a quota were changed.
        QuotaUpdate = 7 => "quota_update",
        /// A method was called. Only denials are recorded under this action.
        Call = 8 => "call",
        /// A blob was moved to another provider.
        StorageMove = 9 => "storage_move",
        /// A file was archived.
        FileArchive = 10 => "file_archive",
        /// A file was unarchived.
        FileUnarchive = 11 => "file_unarchive",
        /// The record of a file was changed. The details name the fields.
        FileUpdate = 12 => "file_update",
        /// An upload was created and holds a reservation. The details name the upload.
        UploadCreate = 60 => "upload_create",
        /// An upload was cancelled on request. The details name the upload.
        UploadCancel = 61 => "upload_cancel",
        /// An operator reset the attempts of a job.
        JobRetry = 20 => "job_retry",
        /// An operator discarded a job.
        JobDiscard = 21 => "job_discard",
        /// An earlier version was restored as a new version.
        FileVersionRestore = 40 => "file_version_restore",
        /// A version was deleted permanently.
        FileVersionDelete = 41 => "file_version_delete",
        /// A file was copied. The details name the copy.
        FileCopy = 42 => "file_copy",
        /// A legal hold was set on a file. The details state the reason.
        FileHoldSet = 43 => "file_hold_set",
        /// The legal hold of a file was released. The details state the reason and the former hold.
        FileHoldRelease = 44 => "file_hold_release",
        /// A tenant's policy was changed.
        PolicyUpdate = 50 => "policy_update",
        /// A tenant was suspended.
        TenantSuspend = 51 => "tenant_suspend",
        /// A suspended tenant was resumed.
        TenantResume = 52 => "tenant_resume",
        /// The deletion of a tenant started or finished.
        TenantDelete = 53 => "tenant_delete",
        /// All records of a tenant were exported to an operator.
        TenantExport = 54 => "tenant_export",
        /// A file was transferred to another owner.
        OwnershipTransfer = 55 => "ownership_transfer",
        /// The object of a version was found missing or damaged. The details state which.
        FileDamage = 45 => "file_damage",
        /// The object of a version that was recorded as missing or damaged was found intact.
        FileRepair = 46 => "file_repair",
        /// The content of a direct upload was read and matches its declaration.
        FileVerify = 70 => "file_verify",
        /// The content of a direct upload is missing or does not match its declaration.
        FileRefuse = 71 => "file_refuse",
        /// A webhook was created.
        WebhookCreate = 30 => "webhook_create",
        /// A webhook was changed. The details name the fields.
        WebhookUpdate = 31 => "webhook_update",
        /// A webhook was deleted.
        WebhookDelete = 32 => "webhook_delete",
        /// The secret of a webhook was rotated.
        WebhookRotate = 33 => "webhook_rotate",
        /// A dead letter was queued for redelivery.
        WebhookRedeliver = 34 => "webhook_redeliver",
    }
}

/// An entry of the audit log.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    pub actor: Actor,
    pub origin: Origin,
    pub action: AuditAction,
    pub is_allowed: bool,
    pub file: Option<FileId>,
    pub version: Option<i32>,
    /// Further details, as a JSON object.
    pub details: serde_json::Value,
}

impl AuditEntry {
    /// Returns the entry, about an action on a version of a file.
    #[must_use]
    pub fn for_version(self, file: FileId, version: i32) -> Self {
        Self { file: Some(file), version: Some(version), ..self }
    }

    /// Creates an entry for an allowed action of the system actor.
    pub fn system(action: AuditAction, details: serde_json::Value) -> Self {
        Self {
            actor: Actor::system(),
            origin: Origin::default(),
            action,
            is_allowed: true,
            file: None,
            version: None,
            details,
        }
    }
}

/// Inserts entries for the transaction's tenant.
pub async fn insert(tx: &mut TenantTx, entries: &[AuditEntry]) -> Result<(), DbError> {
    let tenant = tx.tenant();
    let written: Vec<Written> = insertion(tenant, entries).load(tx.connection()?).await?;
    if let Some(Written { transaction, time }) = written.into_iter().next() {
        tx.note_written(TransactionId(transaction), Some(WrittenRow::AuditEntry(time)));
    }
    Ok(())
}

/// Inserts entries for a tenant from a system transaction, for example for a tenant that is being created.
pub async fn insert_for(tx: &mut SystemTx, tenant: TenantId, entries: &[AuditEntry]) -> Result<(), DbError> {
    let written: Vec<Written> = insertion(tenant, entries).load(tx.connection()?).await?;
    if let Some(Written { transaction, time }) = written.into_iter().next() {
        tx.note_written(TransactionId(transaction), tenant, WrittenRow::AuditEntry(time));
    }
    Ok(())
}

/// The transaction that writes an entry, and the time of the entry.
#[derive(QueryableByName)]
struct Written {
    #[diesel(sql_type = Text)]
    transaction: String,
    #[diesel(sql_type = Timestamptz)]
    time: Timestamp,
}

/// Returns whether a transaction wrote an entry of this time. The `xmin` of a row is the lower half of the
/// transaction id.
pub(super) async fn is_written(
    tx: &mut SystemTx,
    tenant: TenantId,
    time: Timestamp,
    transaction: &TransactionId,
) -> Result<bool, DbError> {
    let row: FoundRow = statement(
        "find the audit entry of a transaction",
        "SELECT EXISTS (SELECT FROM audit_entries WHERE tenant_id = $1 AND create_time = $2
                        AND xmin::text::bigint = ($3::bigint & 4294967295)) AS is_found",
    )
    .bind::<SqlUuid, _>(tenant.as_uuid())
    .bind::<Timestamptz, _>(time)
    .bind::<Text, _>(transaction.0.clone())
    .one(tx.connection()?)
    .await?;
    Ok(row.is_found)
}

#[derive(QueryableByName)]
struct FoundRow {
    #[diesel(sql_type = Bool)]
    is_found: bool,
}

/// Returns whether an upload of this file was ever committed. Its audit entry outlives the file.
pub async fn has_upload(tx: &mut SystemTx, tenant: TenantId, file: FileId) -> Result<bool, DbError> {
    let row: FoundRow = statement(
        "find audit entry of upload",
        "SELECT EXISTS (SELECT FROM audit_entries
                        WHERE tenant_id = $1 AND file_id = $2 AND action = $3 AND is_allowed) AS is_found",
    )
    .bind::<SqlUuid, _>(tenant.as_uuid())
    .bind::<SqlUuid, _>(file.as_uuid())
    .bind::<SmallInt, _>(AuditAction::FileUpload.number())
    .one(tx.connection()?)
    .await?;
    Ok(row.is_found)
}

/// A stored entry.
#[derive(Debug, Clone)]
pub struct StoredAuditEntry {
    /// The time of its transaction. With `n`, its position in the log.
    pub create_time: Timestamp,
    pub n: i64,
    pub entry: AuditEntry,
}

#[derive(QueryableByName)]
struct EntryRow {
    #[diesel(sql_type = Timestamptz)]
    create_time: Timestamp,
    #[diesel(sql_type = BigInt)]
    n: i64,
    #[diesel(sql_type = SmallInt)]
    actor_kind: i16,
    #[diesel(sql_type = Text)]
    actor_id: String,
    #[diesel(sql_type = SmallInt)]
    action: i16,
    #[diesel(sql_type = Bool)]
    is_allowed: bool,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    file_id: Option<Uuid>,
    #[diesel(sql_type = Nullable<Integer>)]
    version: Option<i32>,
    #[diesel(sql_type = Text)]
    call_id: String,
    #[diesel(sql_type = Text)]
    address: String,
    #[diesel(sql_type = Jsonb)]
    details: serde_json::Value,
}

impl EntryRow {
    fn into_entry(self) -> Result<StoredAuditEntry, DbError> {
        let corrupt = |what: &str| DbError::corrupt("read audit entry", what);
        let kind = ActorKind::from_number(self.actor_kind).ok_or_else(|| corrupt("actor"))?;
        let entry = AuditEntry {
            actor: Actor { kind, id: self.actor_id },
            origin: Origin { call_id: self.call_id, address: self.address },
            action: AuditAction::from_number(self.action).ok_or_else(|| corrupt("action"))?,
            is_allowed: self.is_allowed,
            file: self.file_id.map(FileId::from_uuid),
            version: self.version,
            details: self.details,
        };
        Ok(StoredAuditEntry { create_time: self.create_time, n: self.n, entry })
    }
}

/// Returns entries of the transaction's tenant after a position, ordered by time.
pub async fn list_after(
    tx: &mut TenantTx,
    time: Timestamp,
    n: i64,
    limit: i64,
) -> Result<Vec<StoredAuditEntry>, DbError> {
    let rows: Vec<EntryRow> = statement(
        "list audit entries",
        "SELECT create_time, n, actor_kind, actor_id, action, is_allowed, file_id, version, call_id, address, details
         FROM audit_entries WHERE tenant_id = $1 AND (create_time, n) > ($2, $3) ORDER BY create_time, n LIMIT $4",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Timestamptz, _>(time)
    .bind::<BigInt, _>(n)
    .bind::<BigInt, _>(limit)
    .load(tx.connection()?)
    .await?;
    rows.into_iter().map(EntryRow::into_entry).collect()
}

fn insertion(tenant: TenantId, entries: &[AuditEntry]) -> Operation<SqlText> {
    let text_column = |pick: fn(&AuditEntry) -> &str| {
        entries.iter().map(|entry| pick(entry).to_owned()).collect::<Vec<String>>()
    };
    statement(
        "insert audit entries",
        "INSERT INTO audit_entries (tenant_id, create_time, actor_kind, actor_id, action, is_allowed, file_id, version,
            call_id, address, details)
         SELECT $1, app.now(), n.actor_kind, n.actor_id, n.action, n.is_allowed, n.file_id, n.version, n.call_id,
            n.address, n.details
         FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10)
            AS n (actor_kind, actor_id, action, is_allowed, file_id, version, call_id, address, details)
         RETURNING pg_current_xact_id()::text AS transaction, app.now() AS time",
    )
    .bind::<SqlUuid, _>(tenant.as_uuid())
    .bind::<Array<SmallInt>, _>(entries.iter().map(|entry| entry.actor.kind.number()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(text_column(|entry| &entry.actor.id))
    .bind::<Array<SmallInt>, _>(entries.iter().map(|entry| entry.action.number()).collect::<Vec<_>>())
    .bind::<Array<Bool>, _>(entries.iter().map(|entry| entry.is_allowed).collect::<Vec<_>>())
    .bind::<Array<Nullable<SqlUuid>>, _>(
        entries.iter().map(|entry| entry.file.map(|file| file.as_uuid())).collect::<Vec<_>>(),
    )
    .bind::<Array<Nullable<Integer>>, _>(
        entries.iter().map(|entry| entry.version).collect::<Vec<_>>(),
    )
    .bind::<Array<Text>, _>(text_column(|entry| &entry.origin.call_id))
    .bind::<Array<Text>, _>(text_column(|entry| &entry.origin.address))
    .bind::<Array<Jsonb>, _>(entries.iter().map(|entry| entry.details.clone()).collect::<Vec<_>>())
}
