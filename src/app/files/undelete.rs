//! Takes a file out of the trash.

use super::{Changed, Claimed, FileChange, claim, conclude, filled, note};
use crate::{
    app::{App, Error},
    db::{
        TenantTx, Viewer,
        audit_entries::AuditAction,
        events::EventKind,
        file_readers, files,
        idempotency_keys::Method,
        quotas::{self, QuotaDelta},
        usage_counters::{self, UsageDelta},
        versions,
    },
    domain::{caller::Caller, file::File},
};

/// Takes a file out of the trash, back into the state it had. Where the trash does not count against the quota, its room
/// is claimed again.
///
/// # Errors
/// `NotFound`, `NotAllowed`, `QuotaBytes`, `QuotaFiles`.
pub async fn undelete(app: &App, caller: &Caller, change: FileChange) -> Result<Changed<File>, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let restored = run(app, &mut tx, caller, &change).await;
    super::recorded(app, caller, AuditAction::FileUndelete, change.file, tx.finish(restored).await).await
}

async fn run(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    change: &FileChange,
) -> Result<Changed<File>, Error> {
    let (file, attempt) = match claim(app, tx, caller, change, Method::UndeleteFile).await? {
        Claimed::Answered(answer) => return Ok(answer),
        Claimed::Ours(file, attempt) => (*file, attempt),
    };
    let file =
        if file.trash.is_none() { filled(tx, file).await? } else { restore(tx, caller, &file).await? };
    conclude(tx, attempt, file).await
}

async fn restore(tx: &mut TenantTx, caller: &Caller, file: &File) -> Result<File, Error> {
    let restored = files::untrash(tx, file.id, &caller.actor.id).await?;
    file_readers::set_deleted(tx, file.id, false).await?;
    let restored = filled(tx, restored).await?;
    note(tx, caller, file, AuditAction::FileUndelete, EventKind::FileUndeleted).await?;
    if !caller.tenant.policy.trash.counts_against_quota {
        let charge = versions::charge(tx, file.id).await?;
        let charged_bytes = charge.bytes();
        let mut delta = UsageDelta::default();
        delta.file(file, &charge, 1);
        usage_counters::apply(tx, &delta).await?;
        if quotas::apply(tx, QuotaDelta::charge(charged_bytes)).await?.is_none() {
            return Err(Error::over_quota(&quotas::get(tx).await?, charged_bytes));
        }
    }
    Ok(restored)
}
