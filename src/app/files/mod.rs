//! Files: reading, listing, and their way out.

pub mod delete;
pub mod download;
pub mod empty_trash;
pub mod get;
pub mod list;
pub mod purge;
pub mod reap;
pub mod undelete;

use super::{App, Error, audit};
use crate::{
    db::{DbError, TenantTx, attachments, audit_entries::AuditAction, file_tags, lists, quotas},
    domain::{caller::Caller, file::File, ids::FileId, quota::QuotaState},
};

/// A change that was made, and the tenant's quota after it.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Changed<T> {
    /// What it came to.
    pub value: T,
    /// The quota.
    pub quota: QuotaState,
}

impl<T> Changed<T> {
    /// Reads the quota in the transaction of the change.
    async fn read(tx: &mut TenantTx, value: T) -> Result<Self, Error> {
        Ok(Self { value, quota: quotas::get(tx).await?.state() })
    }
}

/// Records a denial of an act on a file; passes everything else on.
async fn recorded<T>(
    app: &App,
    caller: &Caller,
    action: AuditAction,
    id: FileId,
    outcome: Result<T, Error>,
) -> Result<T, Error> {
    match outcome {
        Err(why @ Error::NotAllowed(_)) => Err(audit::denied(app, caller, action, Some(id), why).await),
        outcome => outcome,
    }
}

/// What a request id of a change to one file stands for: who, and which file.
fn payload(caller: &Caller, id: FileId) -> [Vec<u8>; 2] {
    [caller.actor.id.clone().into_bytes(), id.as_uuid().into_bytes().to_vec()]
}

/// Adds tags and attachments, which stand in rows of their own, to files that the caller was shown.
async fn fill(tx: &mut TenantTx, files: &mut [File]) -> Result<(), DbError> {
    if files.is_empty() {
        return Ok(());
    }
    let ids = lists::ids(files);
    let mut tags = file_tags::list(tx, &ids).await?;
    let mut attachments = attachments::list(tx, &ids).await?;
    for file in files {
        file.tags = tags.remove(&file.id).unwrap_or_default();
        file.attachments = attachments.remove(&file.id).unwrap_or_default();
    }
    Ok(())
}

/// Adds tags and attachments to one file.
async fn filled(tx: &mut TenantTx, mut file: File) -> Result<File, DbError> {
    fill(tx, std::slice::from_mut(&mut file)).await?;
    Ok(file)
}
