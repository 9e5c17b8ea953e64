//! Undeletes a file.

use super::{
    FileChange, MutationResponse, MutationStart, begin_mutation, finish_mutation, load_file_details,
    record_change,
};
use crate::{
    app::{
        App, Error,
        quotas::{charge, trash::explain_shortage},
    },
    db::{
        TenantTx, Viewer,
        audit_entries::AuditAction,
        events::EventKind,
        file_readers, files,
        idempotency_keys::Method,
        quotas::QuotaDelta,
        usage_counters::{self, UsageDelta},
        versions,
    },
    domain::{caller::Caller, file::File},
};

/// Restores a file from the trash to its previous state. If the trash does not count against the quota, the
/// file is charged again. Returns a file that is not in the trash unchanged.
///
/// # Errors
/// Returns `NotFound`, `NotAllowed`, `QuotaBytes`, `QuotaFiles` or `UserQuota`.
pub async fn undelete_file(
    app: &App,
    caller: &Caller,
    change: FileChange,
) -> Result<MutationResponse<File>, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let restored = undelete_in_tx(app, &mut tx, caller, &change).await;
    let restored = explain_shortage(app, caller, tx.finish(restored).await).await;
    super::record_if_denied(app, caller, AuditAction::FileUndelete, change.file, restored).await
}

async fn undelete_in_tx(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    change: &FileChange,
) -> Result<MutationResponse<File>, Error> {
    let (file, attempt) = match begin_mutation(app, tx, caller, change, Method::UndeleteFile).await? {
        MutationStart::Replay(response) => return Ok(response),
        MutationStart::Locked(file, attempt) => (*file, attempt),
    };
    let file = if file.trash.is_none() {
        load_file_details(tx, file).await?
    } else {
        untrash(tx, caller, &file).await?
    };
    finish_mutation(tx, attempt, file).await
}

async fn untrash(tx: &mut TenantTx, caller: &Caller, file: &File) -> Result<File, Error> {
    let restored = files::untrash(tx, file.id, &caller.actor.id).await?;
    file_readers::set_deleted(tx, file.id, false).await?;
    let restored = load_file_details(tx, restored).await?;
    record_change(tx, caller, &restored, AuditAction::FileUndelete, EventKind::FileUndeleted).await?;
    if !caller.tenant.policy.trash.counts_against_quota {
        let charged = versions::get_charge(tx, file.id).await?;
        let mut delta = UsageDelta::default();
        delta.add_file(file, &charged, 1);
        usage_counters::apply_delta(tx, &delta).await?;
        charge::charge(tx, &file.owner_id, QuotaDelta::for_added_file(charged.bytes())).await?;
    }
    Ok(restored)
}
