//! The audit log: changes, disclosures and denials. Each entry is written in the transaction that it
//! describes.

use diesel::{
    ExpressionMethods as _, IntoSql as _, QueryDsl as _, Queryable, QueryableByName, Selectable,
    SelectableHelper as _,
    dsl::exists,
    sql_types::{
        Array, BigInt, Bool, Integer, Jsonb, Nullable, Record, SmallInt, Text, Timestamptz, Uuid as SqlUuid,
    },
};

use super::{
    DbError, SystemTx, TenantTx, TransactionId, WrittenRow,
    schema::audit_entries,
    sql::{
        Damage, OfTenant as _, Operation, Readable, SqlText, query, statement,
        xid::{Xid, Xid8},
    },
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
        /// An operator requested the erasure of a file or the tenant. The details state the reason.
        ErasureRequest = 56 => "erasure_request",
        /// Another operator approved an erasure.
        ErasureApprove = 57 => "erasure_approve",
        /// An operator made the bytes of purged files due for deletion.
        TenantReclaim = 58 => "tenant_reclaim",
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
        /// Credits were added to a user. The details are the entry.
        CreditAdd = 102 => "credit_add",
        /// Credits of a user were deducted. The details are the entry.
        CreditDeduct = 103 => "credit_deduct",
        /// The credits of another user were read. Only denials are recorded under this action.
        CreditRead = 104 => "credit_read",
        /// A permission on a file was given or changed. The details name the principal.
        AccessGrant = 100 => "access_grant",
        /// Permissions on a file were revoked or expired. The details name the principals.
        AccessRevoke = 101 => "access_revoke",
        /// The access log of a file or a share was read. Only denials are recorded.
        AccessLogList = 125 => "access_log_list",
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
        /// A file was shared. The details name the share and its recipients.
        ShareCreate = 120 => "share_create",
        /// The terms of a share were changed. The details name the fields.
        ShareUpdate = 121 => "share_update",
        /// A share was revoked.
        ShareRevoke = 122 => "share_revoke",
        /// The token of a share was rotated.
        ShareRotate = 123 => "share_rotate",
        /// A webhook was disabled, because its endpoint returned 410, kept failing, or missed events.
        WebhookDisable = 90 => "webhook_disable",
        /// A recalculation of usage was requested.
        UsageRecalculate = 105 => "usage_recalculate",
        /// A drift of the usage was repaired. The details contain it.
        UsageRepair = 106 => "usage_repair",
        /// The limits of a user were changed. The details contain the user and the change.
        UserQuotaUpdate = 107 => "user_quota_update",
        /// The quota of another user was read. Only denials are recorded under this action.
        UserQuotaRead = 108 => "user_quota_read",
    }
}

/// An entry of the audit log.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    pub actor: Actor,
    /// The issuer that named the actor, if it is an operator. The issuer of a member is that of its tenant.
    pub actor_issuer: Option<String>,
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
            actor_issuer: None,
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
    let written: Vec<Written> = insertion(tenant, None, entries).load(tx.connection()?).await?;
    if let Some(Written { transaction, time }) = written.into_iter().next() {
        tx.note_written(TransactionId(transaction), Some(WrittenRow::AuditEntry(time)));
    }
    Ok(())
}

/// Inserts entries for a tenant from a system transaction, for example for a tenant that is being created.
pub async fn insert_for(tx: &mut SystemTx, tenant: TenantId, entries: &[AuditEntry]) -> Result<(), DbError> {
    insert_for_at(tx, tenant, None, entries).await
}

/// Inserts entries about an earlier time for a tenant.
pub async fn insert_at(
    tx: &mut SystemTx,
    tenant: TenantId,
    time: Timestamp,
    entries: &[AuditEntry],
) -> Result<(), DbError> {
    insert_for_at(tx, tenant, Some(time), entries).await
}

async fn insert_for_at(
    tx: &mut SystemTx,
    tenant: TenantId,
    time: Option<Timestamp>,
    entries: &[AuditEntry],
) -> Result<(), DbError> {
    let written: Vec<Written> = insertion(tenant, time, entries).load(tx.connection()?).await?;
    if let Some(Written { transaction, time }) = written.into_iter().next() {
        tx.note_written(TransactionId(transaction), tenant, WrittenRow::AuditEntry(time));
    }
    Ok(())
}

/// The transaction that writes an entry, and the time of the entry.
#[derive(QueryableByName)]
struct Written {
    #[diesel(sql_type = Xid8)]
    transaction: Xid,
    #[diesel(sql_type = Timestamptz)]
    time: Timestamp,
}

#[derive(QueryableByName)]
struct FoundRow {
    #[diesel(sql_type = Bool)]
    is_found: bool,
}

/// Returns whether a transaction wrote an entry of this time.
pub(super) async fn is_written(
    tx: &mut SystemTx,
    tenant: TenantId,
    time: Timestamp,
    transaction: &TransactionId,
) -> Result<bool, DbError> {
    // The query builder does not know the system column `xmin`, the lower half of a transaction id.
    let row: FoundRow = statement(
        "find the audit entry of a transaction",
        "SELECT EXISTS (SELECT FROM audit_entries WHERE tenant_id = $1 AND create_time = $2
                        AND xmin::text::bigint = ($3::text::bigint & 4294967295)) AS is_found",
    )
    .bind::<SqlUuid, _>(tenant)
    .bind::<Timestamptz, _>(time)
    .bind::<Xid8, _>(transaction.0)
    .one(tx.connection()?)
    .await?;
    Ok(row.is_found)
}

/// Returns whether an upload of this file was ever committed. Its audit entry outlives the file.
pub async fn has_upload(tx: &mut SystemTx, tenant: TenantId, file: FileId) -> Result<bool, DbError> {
    let uploads = audit_entries::table
        .of(tenant)
        .filter(audit_entries::file_id.eq(file))
        .filter(audit_entries::action.eq(AuditAction::FileUpload))
        .filter(audit_entries::is_allowed);
    query("find audit entry of upload", diesel::select(exists(uploads))).one(tx.connection()?).await
}

/// A stored entry.
#[derive(Debug, Clone)]
pub struct StoredAuditEntry {
    /// The time of its transaction, or of the creation of a tenant by a first call. With `n`, its position in the
    /// log.
    pub create_time: Timestamp,
    pub n: i64,
    pub entry: AuditEntry,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = audit_entries, check_for_backend(diesel::pg::Pg))]
struct EntryRow {
    create_time: Timestamp,
    n: i64,
    actor_kind: ActorKind,
    actor_id: String,
    actor_issuer: Option<String>,
    action: AuditAction,
    is_allowed: bool,
    file_id: Option<FileId>,
    version: Option<i32>,
    call_id: String,
    address: String,
    details: Readable<serde_json::Value>,
}

impl From<EntryRow> for StoredAuditEntry {
    fn from(row: EntryRow) -> Self {
        let mut damage = Damage::default();
        let details = row.details.or_damaged("details", &mut damage, serde_json::json!({}));
        if let Some(columns) = damage.found() {
            tracing::error!(n = row.n, time = %row.create_time, columns, "failed to read the details of an audit entry");
        }
        let entry = AuditEntry {
            actor: Actor { kind: row.actor_kind, id: row.actor_id },
            actor_issuer: row.actor_issuer,
            origin: Origin { call_id: row.call_id, address: row.address },
            action: row.action,
            is_allowed: row.is_allowed,
            file: row.file_id,
            version: row.version,
            details,
        };
        Self { create_time: row.create_time, n: row.n, entry }
    }
}

/// Returns entries of the transaction's tenant after a position, ordered by time.
pub async fn list_after(
    tx: &mut TenantTx,
    time: Timestamp,
    n: i64,
    limit: i64,
) -> Result<Vec<StoredAuditEntry>, DbError> {
    let position = (audit_entries::create_time, audit_entries::n).into_sql::<Record<(Timestamptz, BigInt)>>();
    let page = audit_entries::table
        .of(tx.tenant())
        .filter(position.gt((time, n)))
        .order((audit_entries::create_time, audit_entries::n))
        .limit(limit)
        .select(EntryRow::as_select());
    let rows: Vec<EntryRow> = query("list audit entries", page).load(tx.connection()?).await?;
    Ok(rows.into_iter().map(StoredAuditEntry::from).collect())
}

/// Inserts entries with this time, or with the time of the transaction.
fn insertion(tenant: TenantId, time: Option<Timestamp>, entries: &[AuditEntry]) -> Operation<SqlText> {
    let text_column = |pick: fn(&AuditEntry) -> &str| {
        entries.iter().map(|entry| pick(entry).to_owned()).collect::<Vec<String>>()
    };
    // An `unnest` batch.
    statement(
        "insert audit entries",
        "INSERT INTO audit_entries (tenant_id, create_time, actor_kind, actor_id, action, is_allowed, file_id, version,
            call_id, address, details, actor_issuer)
         SELECT $1, coalesce($12, app.now()), n.actor_kind, n.actor_id, n.action, n.is_allowed, n.file_id, n.version,
            n.call_id, n.address, n.details, n.actor_issuer
         FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
            AS n (actor_kind, actor_id, action, is_allowed, file_id, version, call_id, address, details, actor_issuer)
         RETURNING pg_current_xact_id() AS transaction, coalesce($12, app.now()) AS time",
    )
    .bind::<SqlUuid, _>(tenant)
    .bind::<Array<SmallInt>, _>(entries.iter().map(|entry| entry.actor.kind).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(text_column(|entry| &entry.actor.id))
    .bind::<Array<SmallInt>, _>(entries.iter().map(|entry| entry.action).collect::<Vec<_>>())
    .bind::<Array<Bool>, _>(entries.iter().map(|entry| entry.is_allowed).collect::<Vec<_>>())
    .bind::<Array<Nullable<SqlUuid>>, _>(entries.iter().map(|entry| entry.file).collect::<Vec<_>>())
    .bind::<Array<Nullable<Integer>>, _>(
        entries.iter().map(|entry| entry.version).collect::<Vec<_>>(),
    )
    .bind::<Array<Text>, _>(text_column(|entry| &entry.origin.call_id))
    .bind::<Array<Text>, _>(text_column(|entry| &entry.origin.address))
    .bind::<Array<Jsonb>, _>(entries.iter().map(|entry| entry.details.clone()).collect::<Vec<_>>())
    .bind::<Array<Nullable<Text>>, _>(
        entries.iter().map(|entry| entry.actor_issuer.clone()).collect::<Vec<_>>(),
    )
    .bind::<Nullable<Timestamptz>, _>(time)
}
