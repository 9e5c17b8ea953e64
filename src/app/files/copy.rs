//! Copies a file without sending its bytes through the client.

use super::{MutationResponse, finish_mutation, load_file_details};
use crate::{
    app::{
        App, Error, Resource,
        access::{Operation, require_access},
        audit,
        idempotency::{self, RequestClaim},
        quotas::{charge::charge, trash::explain_shortage},
        uploads::admit::check_credits_in_tx,
    },
    db::{
        TenantTx, Viewer,
        audit_entries::{self, AuditAction},
        events::{self, Event, EventKind},
        file_copies::{self, FileCopy},
        file_locks,
        idempotency_keys::Method,
        quotas::QuotaDelta,
        usage_counters::{self, UsageDelta},
        versions::{self, Charge, StoredVersion, VersionCopy},
    },
    domain::{
        caller::Caller,
        file::{File, FileState, Visibility},
        file_fields::{check_category, check_name},
        ids::{FileId, RequestId},
        media_type::type_for_check,
        violations::Violations,
    },
};

/// A request to copy a file.
#[derive(Debug, Clone)]
pub struct CopyRequest {
    pub file: FileId,
    /// The version to copy; 0 means the current one.
    pub version: i32,
    /// The name of the copy; empty means the name of the source.
    pub name: String,
    /// The category of the copy; empty means the category of the source.
    pub category: String,
    /// The idempotency key, which makes retries safe.
    pub request_id: Option<RequestId>,
}

/// Copies a file that the caller may read. The copy is an independent file owned by the caller. It has the
/// content, title, description, metadata and tags of its source, but not its attachments, grants, expiry,
/// retention or legal hold. It references the same blob as the source, whichever provider stores it, and is
/// charged for its full size.
///
/// # Errors
/// Returns `Invalid`, `NotFound`, `FileDeleted`, `FileNotAvailable`, `CreditsExhausted`, `QuotaBytes` or
/// `QuotaFiles`.
pub async fn copy_file(
    app: &App,
    caller: &Caller,
    request: CopyRequest,
) -> Result<MutationResponse<File>, Error> {
    app.owners.check_primary()?;
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let copied = copy_in_tx(app, &mut tx, caller, &request).await;
    explain_shortage(app, caller, tx.finish(copied).await).await
}

async fn copy_in_tx(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    request: &CopyRequest,
) -> Result<MutationResponse<File>, Error> {
    let fields = serde_json::to_vec(&(request.version, &request.name, &request.category));
    let payload = [
        caller.actor.id.clone().into_bytes(),
        request.file.as_uuid().into_bytes().to_vec(),
        fields.map_err(Error::internal)?,
    ];
    let attempt =
        match idempotency::claim_request(app, tx, request.request_id, Method::CopyFile, &payload).await? {
            RequestClaim::Replay(response) => {
                let response: MutationResponse<File> = response;
                idempotency::check_files_visible(tx, caller, &[response.value.id]).await?;
                return Ok(response);
            }
            RequestClaim::New(attempt) => attempt,
        };
    let request = &check_request(caller, request)?;
    check_credits_in_tx(tx, caller).await?;
    // A shared lock, so that the file and this version are not purged before the copy references the blob.
    let source = file_locks::get_for_share(tx, request.file).await?;
    let source = require_access(caller, source, Operation::Copy)?;
    let number = if request.version == 0 { source.version } else { request.version };
    let version = versions::get(tx, source.id, number).await?.ok_or(Error::NotFound(Resource::Version))?;
    File { content_state: version.content_state, ..source.clone() }.check_readable()?;
    if source.has_damaged_record() {
        return Err(Error::for_file_state(FileState::Error));
    }
    if !request.category.is_empty() && request.category != source.category {
        // A category rejects a copy of every type that it would reject as an upload.
        let name = if request.name.is_empty() { &source.name } else { &request.name };
        let types = caller.tenant.policy.allowed_types(&request.category);
        let content_type = type_for_check(&version.mime_type, Some(&version.mime_type), name);
        types.check(&content_type).map_err(|violations| violations.with_field("category"))?;
    }
    let copied = insert_copy(app, tx, caller, &source, &version, request).await?;
    finish_mutation(tx, attempt, copied).await
}

/// Checks the fields of a request, and returns it with the name to store.
fn check_request(caller: &Caller, request: &CopyRequest) -> Result<CopyRequest, Violations> {
    let policy = &caller.tenant.policy;
    let (mut violations, mut checked) = (Violations::new(), request.clone());
    if !request.name.is_empty() {
        checked.name = check_name("name", &request.name, policy, &mut violations);
    }
    if !request.category.is_empty() {
        check_category("category", &request.category, policy, &mut violations);
    }
    violations.into_result().map(|()| checked)
}

async fn insert_copy(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    source: &File,
    version: &StoredVersion,
    request: &CopyRequest,
) -> Result<File, Error> {
    let actor_id = &caller.actor.id;
    let or_default = |value: &'_ str, default: &'_ str| {
        if value.is_empty() { default.to_owned() } else { value.to_owned() }
    };
    let (name, category) =
        (or_default(&request.name, &source.name), or_default(&request.category, &source.category));
    let copy = FileCopy {
        source: source.id,
        source_version: version.version,
        id: FileId::from_uuid(app.ids.uuid()),
        owner_id: actor_id,
        name: &name,
        category: &category,
        visibility: copy_visibility(caller, source, &category),
    };
    let file = file_copies::insert(tx, &copy).await?;
    let first = VersionCopy {
        from_file: source.id,
        from_version: version.version,
        file: file.id,
        version: file.version,
        created_by: actor_id,
        change_description: "",
        restored_from: None,
    };
    versions::copy(tx, &first).await?;
    file_copies::insert_tags(tx, &copy).await?;
    let file = load_file_details(tx, file).await?;

    let mut created = audit::new_entry(caller, AuditAction::FileUpload).for_version(file.id, file.version);
    created.details = serde_json::json!({ "copied_from": source.id, "version": version.version });
    let mut copied = audit::new_entry(caller, AuditAction::FileCopy).for_version(source.id, version.version);
    copied.details = serde_json::json!({ "copy": file.id });
    audit_entries::insert(tx, &[created, copied]).await?;
    events::insert(tx, &[Event::for_file(EventKind::FileCreated, &file, actor_id)]).await?;

    let bytes = i64::try_from(file.size_bytes).unwrap_or(i64::MAX);
    let mut delta = UsageDelta::default();
    delta.add_file(&file, &Charge(vec![(file.media_kind, bytes)]), 1);
    usage_counters::apply_delta(tx, &delta).await?;
    charge(tx, &file.owner_id, QuotaDelta::for_added_file(bytes)).await?;
    Ok(file)
}

/// Returns the narrower of the visibility of the source and the default of the category, so that a copy is
/// not visible to people who could not see the source, unless its owner changes that.
fn copy_visibility(caller: &Caller, source: &File, category: &str) -> Visibility {
    let rules = caller.tenant.policy.categories.get(category);
    match rules {
        Some(rules) if category != source.category => rules.visibility.min(source.visibility),
        _ => source.visibility,
    }
}
