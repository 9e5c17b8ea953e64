//! The audit log: changes, disclosures and denials, each written in the transaction of what it tells.

use diesel::{
    QueryableByName,
    sql_types::{Array, Bool, Integer, Jsonb, Nullable, SmallInt, Text, Uuid as SqlUuid},
};

use super::{
    DbError, SystemTx, TenantTx,
    statement::{Statement, statement},
};
use crate::domain::{
    caller::{Actor, Origin},
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
    insertion(tenant, entries).execute(tx.connection()?).await.map(|_| ())
}

/// Writes entries of a tenant that is just being born.
pub async fn insert_for(tx: &mut SystemTx, tenant: TenantId, entries: &[AuditEntry]) -> Result<(), DbError> {
    insertion(tenant, entries).execute(tx.connection()?).await.map(|_| ())
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
            AS n (actor_kind, actor_id, action, is_allowed, file_id, version, request_id, address, details)",
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
    .bind::<Array<Text>, _>(texts(|entry| &entry.origin.request_id))
    .bind::<Array<Text>, _>(texts(|entry| &entry.origin.address))
    .bind::<Array<Jsonb>, _>(entries.iter().map(|entry| entry.details.clone()).collect::<Vec<_>>())
}
