//! Copies a file on the server.

use super::{Changed, conclude, filled};
use crate::{
    app::{
        App, Error,
        access::seen,
        audit,
        idempotency::{self, Begun},
    },
    db::{
        TenantTx, Viewer,
        audit_entries::{self, AuditAction},
        events::{self, Event, EventKind},
        file_copies::{self, FileCopy},
        files,
        idempotency_keys::Method,
        quotas::{self, QuotaDelta},
        usage_counters::{self, UsageDelta},
        versions::{self, Charge, StoredVersion, VersionCopy},
    },
    domain::{
        caller::Caller,
        file::{File, Visibility},
        file_fields::{check_category, check_name},
        ids::{FileId, RequestId},
        media_type::judged,
        violations::Violations,
    },
};

/// What to copy.
#[derive(Debug, Clone)]
pub struct CopyRequest {
    /// Which file.
    pub file: FileId,
    /// Which version; 0 means the current one.
    pub version: i32,
    /// What the copy is called; empty means as its source.
    pub name: String,
    /// The category of the copy; empty means that of its source.
    pub category: String,
    /// Makes a retry safe.
    pub request_id: Option<RequestId>,
}

/// Copies a file that the caller may read. The copy is the caller's own, with a life of its own: it has the content, title,
/// description, metadata and tags of its source, and none of its attachments, grants, expiry, retention and hold. It stands
/// on the same stored bytes, wherever they are, and is charged for them.
///
/// # Errors
/// `Invalid`, `NotFound`, `FileDeleted`, `FileNotAvailable`, `QuotaBytes`, `QuotaFiles`.
pub async fn copy(app: &App, caller: &Caller, request: CopyRequest) -> Result<Changed<File>, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let copied = run(app, &mut tx, caller, &request).await;
    tx.finish(copied).await
}

async fn run(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    request: &CopyRequest,
) -> Result<Changed<File>, Error> {
    let said = serde_json::to_vec(&(request.version, &request.name, &request.category));
    let payload = [
        caller.actor.id.clone().into_bytes(),
        request.file.as_uuid().into_bytes().to_vec(),
        said.map_err(Error::internal)?,
    ];
    let attempt = match idempotency::begin(app, tx, request.request_id, Method::CopyFile, &payload).await? {
        Begun::Replay(answer) => return Ok(answer),
        Begun::Fresh(attempt) => attempt,
    };
    check(caller, request)?;
    // Shared, so that nobody purges it, or this version of it, before the copy stands on its blob.
    let source = seen(caller, files::get_for_share(tx, request.file).await?)?;
    let wanted = if request.version == 0 { source.version } else { request.version };
    let version = versions::get(tx, source.id, wanted).await?.ok_or(Error::NotFound("version"))?;
    File { content_state: version.content_state, ..source.clone() }.readable()?;
    if !request.category.is_empty() && request.category != source.category {
        // What its new category would not take as an upload, it does not take as a copy.
        let name = if request.name.is_empty() { &source.name } else { &request.name };
        let types = caller.tenant.policy.taken_types(&request.category);
        let judged_type = judged(&version.mime_type, Some(&version.mime_type), name);
        types.check(&judged_type).map_err(|wrong| wrong.about("category"))?;
    }
    let copied = write(app, tx, caller, (&source, &version), request).await?;
    conclude(tx, attempt, copied).await
}

fn check(caller: &Caller, request: &CopyRequest) -> Result<(), Violations> {
    let policy = &caller.tenant.policy;
    let mut wrong = Violations::new();
    if !request.name.is_empty() {
        check_name("name", &request.name, policy, &mut wrong);
    }
    if !request.category.is_empty() {
        check_category("category", &request.category, policy, &mut wrong);
    }
    wrong.into_result()
}

async fn write(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    (source, version): (&File, &StoredVersion),
    request: &CopyRequest,
) -> Result<File, Error> {
    let actor_id = &caller.actor.id;
    let or_same =
        |said: &'_ str, same: &'_ str| if said.is_empty() { same.to_owned() } else { said.to_owned() };
    let (name, category) =
        (or_same(&request.name, &source.name), or_same(&request.category, &source.category));
    let copy = FileCopy {
        source: source.id,
        source_version: version.version,
        id: FileId::from_uuid(app.ids.uuid()),
        owner_id: actor_id,
        name: &name,
        category: &category,
        visibility: visibility(caller, source, &category),
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
    let file = filled(tx, file).await?;

    let mut came = audit::entry(caller, AuditAction::FileUpload, Some((file.id, file.version)));
    came.details = serde_json::json!({ "copied_from": source.id, "version": version.version });
    let mut went = audit::entry(caller, AuditAction::FileCopy, Some((source.id, version.version)));
    went.details = serde_json::json!({ "copy": file.id });
    audit_entries::insert(tx, &[came, went]).await?;
    events::insert(tx, &[Event::of(EventKind::FileCreated, &file, actor_id)]).await?;

    let bytes = i64::try_from(file.size_bytes).unwrap_or(i64::MAX);
    let mut delta = UsageDelta::default();
    delta.file(&file, &Charge(vec![(file.media_kind, bytes)]), 1);
    usage_counters::apply(tx, &delta).await?;
    if quotas::apply(tx, QuotaDelta::charge(bytes)).await?.is_none() {
        return Err(Error::over_quota(&quotas::get(tx).await?, bytes));
    }
    Ok(file)
}

/// Whoever could not see the source does not see its content in a copy, unless its new owner says so: the narrower of what
/// the source has and what the category gives.
fn visibility(caller: &Caller, source: &File, category: &str) -> Visibility {
    let rules = caller.tenant.policy.categories.get(category);
    match rules {
        Some(rules) if category != source.category => rules.visibility.min(source.visibility),
        _ => source.visibility,
    }
}
