//! Restores an earlier version of a file.

use super::{
    FileChange, MutationResponse, MutationStart, begin_mutation_with_payload, finish_mutation,
    load_file_details,
};
use crate::{
    app::{
        App, Error, Resource, audit,
        preconditions::check_version_count,
        quotas::{charge::charge, trash::explain_shortage},
    },
    db::{
        TenantTx, Viewer,
        audit_entries::{self, AuditAction},
        events::{self, Event, EventKind},
        file_readers, files,
        idempotency_keys::Method,
        quotas::QuotaDelta,
        usage_counters::{self, UsageDelta},
        versions::{self, VersionCopy},
    },
    domain::{
        caller::Caller,
        file::{ContentState, File, project_state},
        file_fields::check_change_description,
        violations::Violations,
    },
};

/// A request to restore a version of a file.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    pub change: FileChange,
    /// The number of the version to restore.
    pub version: i32,
    pub change_description: String,
}

/// Makes the content of an earlier version current again, as a new version that references the same blob and
/// is charged like any other. The earlier version stays.
///
/// # Errors
/// Returns `Invalid`, `NotFound`, `NotAllowed`, `FileDeleted`, `FileNotAvailable`, `VersionIsCurrent`,
/// `EtagMismatch` or `QuotaBytes`.
pub async fn restore_file_version(
    app: &App,
    caller: &Caller,
    request: RestoreRequest,
) -> Result<MutationResponse<File>, Error> {
    let mut violations = Violations::new();
    check_change_description("change_description", &request.change_description, &mut violations);
    violations.into_result()?;
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let restored = restore_version_in_tx(app, &mut tx, caller, &request).await;
    let restored = explain_shortage(app, caller, tx.finish(restored).await).await;
    super::record_if_denied(app, caller, AuditAction::FileVersionRestore, request.change.file, restored).await
}

async fn restore_version_in_tx(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    request: &RestoreRequest,
) -> Result<MutationResponse<File>, Error> {
    let fields =
        serde_json::to_vec(&(request.version, &request.change_description)).map_err(Error::internal)?;
    let start =
        begin_mutation_with_payload(app, tx, caller, &request.change, Method::RestoreFileVersion, fields)
            .await?;
    let (file, attempt) = match start {
        MutationStart::Replay(response) => return Ok(response),
        MutationStart::Locked(file, attempt) => (*file, attempt),
    };
    file.state().check_accepts_version()?;
    let earlier =
        versions::get(tx, file.id, request.version).await?.ok_or(Error::NotFound(Resource::Version))?;
    if earlier.version == file.version {
        return Err(Error::VersionIsCurrent(file.version));
    }
    if earlier.content_state != ContentState::Available {
        return Err(Error::for_file_state(project_state(earlier.content_state, false, false)));
    }
    check_version_count(app, tx, file.id).await?;
    let restored = insert_restored_version(tx, caller, &file, request).await?;
    finish_mutation(tx, attempt, restored).await
}

async fn insert_restored_version(
    tx: &mut TenantTx,
    caller: &Caller,
    before: &File,
    request: &RestoreRequest,
) -> Result<File, Error> {
    let actor_id = &caller.actor.id;
    let number = files::allocate_version_number(tx, before.id).await?;
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
    let file = files::set_current_version(tx, before.id, number, actor_id).await?;
    file_readers::set_size(tx, file.id, file.size_bytes).await?;

    let mut entry = audit::new_entry(caller, AuditAction::FileVersionRestore).for_version(file.id, number);
    entry.details = serde_json::json!({ "restored_from": request.version });
    audit_entries::insert(tx, &[entry]).await?;
    events::insert(tx, &[Event::for_file(EventKind::FileVersionCreated, &file, actor_id)]).await?;

    let bytes = i64::try_from(file.size_bytes).unwrap_or(i64::MAX);
    let mut delta = UsageDelta::default();
    delta.add_file_count(&file.category, before.media_kind, -1);
    delta.add_file_count(&file.category, file.media_kind, 1);
    delta.add_bytes(&file.category, file.media_kind, bytes);
    usage_counters::apply_delta(tx, &delta).await?;
    let file = load_file_details(tx, file).await?;
    charge(tx, &file.owner_id, QuotaDelta::for_bytes(bytes)).await?;
    Ok(file)
}
