//! Makes the content of an earlier version current again.

use super::{Changed, Claimed, FileChange, claim_with, conclude, filled};
use crate::{
    app::{App, Error, audit},
    db::{
        TenantTx, Viewer,
        audit_entries::{self, AuditAction},
        events::{self, Event, EventKind},
        file_readers, files,
        idempotency_keys::Method,
        quotas::{self, QuotaDelta},
        usage_counters::{self, UsageDelta},
        versions::{self, VersionCopy},
    },
    domain::{
        caller::Caller,
        file::{ContentState, File, project},
        file_fields::check_change_description,
        violations::Violations,
    },
};

/// What to restore.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// Of which file.
    pub change: FileChange,
    /// Which version.
    pub version: i32,
    /// Why.
    pub change_description: String,
}

/// Makes the content of an earlier version current again: as a new version on the same blob, charged like any other. The
/// earlier one stays.
///
/// # Errors
/// `Invalid`, `NotFound`, `NotAllowed`, `FileDeleted`, `FileNotAvailable`, `VersionIsCurrent`, `QuotaBytes`,
/// `EtagMismatch`.
pub async fn restore_version(
    app: &App,
    caller: &Caller,
    request: RestoreRequest,
) -> Result<Changed<File>, Error> {
    let mut wrong = Violations::new();
    check_change_description("change_description", &request.change_description, &mut wrong);
    wrong.into_result()?;
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let restored = run(app, &mut tx, caller, &request).await;
    let restored = tx.finish(restored).await;
    super::recorded(app, caller, AuditAction::FileVersionRestore, request.change.file, restored).await
}

async fn run(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    request: &RestoreRequest,
) -> Result<Changed<File>, Error> {
    let said =
        serde_json::to_vec(&(request.version, &request.change_description)).map_err(Error::internal)?;
    let attempt = (Method::RestoreFileVersion, said);
    let (file, attempt) = match claim_with(app, tx, caller, &request.change, attempt).await? {
        Claimed::Answered(answer) => return Ok(answer),
        Claimed::Ours(file, attempt) => (*file, attempt),
    };
    file.state().may_get_a_version()?;
    let earlier = versions::get(tx, file.id, request.version).await?.ok_or(Error::NotFound("version"))?;
    if earlier.version == file.version {
        return Err(Error::VersionIsCurrent(file.version));
    }
    if earlier.content_state != ContentState::Available {
        return Err(Error::of_state(project(earlier.content_state, false, false)));
    }
    let restored = restore(tx, caller, &file, request).await?;
    conclude(tx, attempt, restored).await
}

async fn restore(
    tx: &mut TenantTx,
    caller: &Caller,
    before: &File,
    request: &RestoreRequest,
) -> Result<File, Error> {
    let actor_id = &caller.actor.id;
    let number = files::next_version(tx, before.id).await?;
    let copy = VersionCopy {
        from_file: before.id,
        from_version: request.version,
        file: before.id,
        version: number,
        created_by: actor_id,
        change_description: &request.change_description,
        restored_from: Some(request.version),
    };
    versions::copy(tx, &copy).await?;
    let file = files::set_current(tx, before.id, number, actor_id).await?;
    file_readers::set_size(tx, file.id, file.size_bytes).await?;

    let mut entry = audit::entry(caller, AuditAction::FileVersionRestore, Some((file.id, number)));
    entry.details = serde_json::json!({ "restored_from": request.version });
    audit_entries::insert(tx, &[entry]).await?;
    events::insert(tx, &[Event::of(EventKind::FileVersionCreated, &file, actor_id)]).await?;

    let bytes = i64::try_from(file.size_bytes).unwrap_or(i64::MAX);
    let mut delta = UsageDelta::default();
    delta.files(&file.category, before.media_kind, -1);
    delta.files(&file.category, file.media_kind, 1);
    delta.bytes(&file.category, file.media_kind, bytes);
    usage_counters::apply(tx, &delta).await?;
    let file = filled(tx, file).await?;
    if quotas::apply(tx, QuotaDelta::bytes(bytes)).await?.is_none() {
        return Err(Error::over_quota(&quotas::get(tx).await?, bytes));
    }
    Ok(file)
}
