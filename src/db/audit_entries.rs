//! The audit log: changes, disclosures and denials, each written in the transaction of what it tells.

use diesel::{
    QueryableByName,
    sql_types::{
        Array, BigInt, Bool, Integer, Jsonb, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid,
    },
};
use uuid::Uuid;

use super::{
    DbError, SystemTx, TenantTx, TransactionId, WrittenRow,
    statement::{Statement, statement},
};
use crate::domain::{
    caller::{Actor, ActorKind, Origin},
    clock::Timestamp,
    ids::{FileId, TenantId},
    sql_enum::sql_enum,
};

sql_enum! {
    /// What was done, or tried.
    AuditAction {
        /// A tenant was born.
        TenantCreate = 1 => "tenant_create",
        /// A version was committed.
        FileUpload = 2 => "file_upload",
        /// Bytes were handed out.
        FileDownload = 3 => "file_download",
        /// A file went to the trash.
        FileDelete = 4 => "file_delete",
        /// A file came out of the trash.
        FileUndelete = 5 => "file_undelete",
        /// A file was removed for good.
        FilePurge = 6 => "file_purge",
        /// Limits were changed.
        QuotaUpdate = 7 => "quota_update",
        /// A method was called; only denials are recorded under this name.
        Call = 8 => "call",
        /// A blob was moved to another provider.
        StorageMove = 9 => "storage_move",
        /// A file was archived.
        FileArchive = 10 => "file_archive",
        /// A file was unarchived.
        FileUnarchive = 11 => "file_unarchive",
        /// What people wrote about a file was changed; the details name the fields.
        FileUpdate = 12 => "file_update",
        /// An upload was created, and holds a reservation; the details name it.
        UploadCreate = 60 => "upload_create",
        /// An upload was given up on request; the details name it.
        UploadCancel = 61 => "upload_cancel",
        /// An operator gave a job its attempts again.
        JobRetry = 20 => "job_retry",
        /// An operator threw a job away.
        JobDiscard = 21 => "job_discard",
        /// An earlier version was committed again, as a new one.
        FileVersionRestore = 40 => "file_version_restore",
        /// A version was removed for good.
        FileVersionDelete = 41 => "file_version_delete",
        /// A file was copied; the details name the copy.
        FileCopy = 42 => "file_copy",
        /// A legal hold was set on a file; the details say why.
        FileHoldSet = 43 => "file_hold_set",
        /// The legal hold of a file was released; the details say why, and what it was.
        FileHoldRelease = 44 => "file_hold_release",
        /// A tenant's policy was changed.
        PolicyUpdate = 50 => "policy_update",
        /// A tenant was suspended.
        TenantSuspend = 51 => "tenant_suspend",
        /// A suspended tenant is served again.
        TenantResume = 52 => "tenant_resume",
        /// The deletion of a tenant began, or ended.
        TenantDelete = 53 => "tenant_delete",
        /// All records of a tenant were handed to an operator.
        TenantExport = 54 => "tenant_export",
        /// A file was given to another owner.
        OwnershipTransfer = 55 => "ownership_transfer",
        /// The object of a version was found missing or damaged; the details say which.
        FileDamage = 45 => "file_damage",
        /// The object of a version that was missing or damaged was found whole.
        FileRepair = 46 => "file_repair",
        /// The bytes of a direct upload were read, and are as declared.
        FileVerify = 70 => "file_verify",
        /// The bytes of a direct upload are gone, or not as declared.
        FileRefuse = 71 => "file_refuse",
        /// A webhook was made.
        WebhookCreate = 30 => "webhook_create",
        /// A webhook was changed; the details name the fields.
        WebhookUpdate = 31 => "webhook_update",
        /// A webhook was removed.
        WebhookDelete = 32 => "webhook_delete",
        /// A webhook was given another secret.
        WebhookRotate = 33 => "webhook_rotate",
        /// A dead letter is sent once more.
        WebhookRedeliver = 34 => "webhook_redeliver",
    }
}

/// One entry.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    /// Who.
    pub actor: Actor,
    /// From where.
    pub origin: Origin,
    /// What.
    pub action: AuditAction,
    /// Whether it was allowed.
    pub is_allowed: bool,
    /// To which file.
    pub file: Option<FileId>,
    /// To which version of it.
    pub version: Option<i32>,
    /// What else there is to say.
    pub details: serde_json::Value,
}

impl AuditEntry {
    /// Something that Strongroom did by itself.
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

/// Writes entries of the transaction's tenant.
pub async fn insert(tx: &mut TenantTx, entries: &[AuditEntry]) -> Result<(), DbError> {
    let tenant = tx.tenant();
    let written: Vec<Written> = insertion(tenant, entries).load(tx.connection()?).await?;
    if let Some(Written { transaction, time }) = written.into_iter().next() {
        tx.note_written(TransactionId(transaction), Some(WrittenRow::AuditEntry(time)));
    }
    Ok(())
}

/// Writes entries of a tenant that is just being born.
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

/// Whether a transaction has written an entry of this time. A row keeps the lower half of the number of its transaction.
pub(super) async fn is_written(
    tx: &mut SystemTx,
    tenant: TenantId,
    time: Timestamp,
    transaction: &TransactionId,
) -> Result<bool, DbError> {
    let row: Found = statement(
        "find the audit entry of a transaction",
        "SELECT EXISTS (SELECT FROM audit_entries WHERE tenant_id = {} AND create_time = {}
                        AND xmin::text::bigint = ({}::bigint & 4294967295)) AS is_found",
    )
    .bind::<SqlUuid, _>(tenant.as_uuid())
    .bind::<Timestamptz, _>(time)
    .bind::<Text, _>(transaction.0.clone())
    .one(tx.connection()?)
    .await?;
    Ok(row.is_found)
}

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = Bool)]
    is_found: bool,
}

/// Whether the upload of a file was ever committed: its entry outlives the file.
pub async fn has_upload(tx: &mut SystemTx, tenant: TenantId, file: FileId) -> Result<bool, DbError> {
    let row: Found = statement(
        "look for the entry of an upload",
        "SELECT EXISTS (SELECT FROM audit_entries
                        WHERE tenant_id = {} AND file_id = {} AND action = {} AND is_allowed) AS is_found",
    )
    .bind::<SqlUuid, _>(tenant.as_uuid())
    .bind::<SqlUuid, _>(file.as_uuid())
    .bind::<SmallInt, _>(AuditAction::FileUpload.number())
    .one(tx.connection()?)
    .await?;
    Ok(row.is_found)
}

/// An entry as it stands in the log.
#[derive(Debug, Clone)]
pub struct WrittenEntry {
    /// When it was written; with `n` its place in the log.
    pub create_time: Timestamp,
    /// Its number.
    pub n: i64,
    /// What it says.
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
    request_id: String,
    #[diesel(sql_type = Text)]
    address: String,
    #[diesel(sql_type = Jsonb)]
    details: serde_json::Value,
}

impl EntryRow {
    fn read(self) -> Result<WrittenEntry, DbError> {
        let bad = |what: &str| DbError::corrupt("read audit entry", what);
        let kind = ActorKind::from_number(self.actor_kind).ok_or_else(|| bad("actor"))?;
        let entry = AuditEntry {
            actor: Actor { kind, id: self.actor_id },
            origin: Origin { call_id: self.request_id, address: self.address },
            action: AuditAction::from_number(self.action).ok_or_else(|| bad("action"))?,
            is_allowed: self.is_allowed,
            file: self.file_id.map(FileId::from_uuid),
            version: self.version,
            details: self.details,
        };
        Ok(WrittenEntry { create_time: self.create_time, n: self.n, entry })
    }
}

/// Entries of the transaction's tenant in the order of time, behind a place.
pub async fn list_after(
    tx: &mut TenantTx,
    (time, n): (Timestamp, i64),
    limit: i64,
) -> Result<Vec<WrittenEntry>, DbError> {
    let rows: Vec<EntryRow> = statement(
        "walk audit entries",
        "SELECT create_time, n, actor_kind, actor_id, action, is_allowed, file_id, version, request_id, address, details
         FROM audit_entries WHERE tenant_id = {} AND (create_time, n) > ({}, {}) ORDER BY create_time, n LIMIT {}",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Timestamptz, _>(time)
    .bind::<BigInt, _>(n)
    .bind::<BigInt, _>(limit)
    .load(tx.connection()?)
    .await?;
    rows.into_iter().map(EntryRow::read).collect()
}

fn insertion(tenant: TenantId, entries: &[AuditEntry]) -> Statement {
    let texts = |pick: fn(&AuditEntry) -> &str| {
        entries.iter().map(|entry| pick(entry).to_owned()).collect::<Vec<String>>()
    };
    statement(
        "insert audit entries",
        "INSERT INTO audit_entries (tenant_id, create_time, actor_kind, actor_id, action, is_allowed, file_id, version,
            request_id, address, details)
         SELECT {}, app.now(), n.actor_kind, n.actor_id, n.action, n.is_allowed, n.file_id, n.version, n.request_id,
            n.address, n.details
         FROM unnest({}, {}, {}, {}, {}, {}, {}, {}, {})
            AS n (actor_kind, actor_id, action, is_allowed, file_id, version, request_id, address, details)
         RETURNING pg_current_xact_id()::text AS transaction, app.now() AS time",
    )
    .bind::<SqlUuid, _>(tenant.as_uuid())
    .bind::<Array<SmallInt>, _>(entries.iter().map(|entry| entry.actor.kind.number()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(texts(|entry| &entry.actor.id))
    .bind::<Array<SmallInt>, _>(entries.iter().map(|entry| entry.action.number()).collect::<Vec<_>>())
    .bind::<Array<Bool>, _>(entries.iter().map(|entry| entry.is_allowed).collect::<Vec<_>>())
    .bind::<Array<Nullable<SqlUuid>>, _>(
        entries.iter().map(|entry| entry.file.map(|file| file.as_uuid())).collect::<Vec<_>>(),
    )
    .bind::<Array<Nullable<Integer>>, _>(
        entries.iter().map(|entry| entry.version).collect::<Vec<_>>(),
    )
    .bind::<Array<Text>, _>(texts(|entry| &entry.origin.call_id))
    .bind::<Array<Text>, _>(texts(|entry| &entry.origin.address))
    .bind::<Array<Jsonb>, _>(entries.iter().map(|entry| entry.details.clone()).collect::<Vec<_>>())
}
