//! Resolves the rules for the content of an upload: those of its category, or of the file that gets a version.

use crate::{
    app::{
        App, Error,
        access::{check_can_write, require_visible},
        audit,
        preconditions::check_etag,
    },
    db::{TenantTx, Viewer, audit_entries::AuditAction, files},
    domain::{
        caller::Caller,
        file::File,
        ids::FileId,
        upload_destination::{ContentRules, Destination, NewVersion},
        upload_spec::{CheckedSpec, ResolvedSpec},
    },
};

/// Resolves the rules for the content. For a new version, reads its file and checks it before any bytes are
/// received. The commit checks again under the file's lock, because the file may be deleted in the meantime.
///
/// # Errors
/// Returns `NotFound`, `NotAllowed`, `FileDeleted`, `EtagMismatch`, or `FileNotAvailable` if the file is
/// archived.
pub(super) async fn resolve_spec(
    app: &App,
    caller: &Caller,
    spec: CheckedSpec,
) -> Result<ResolvedSpec, Error> {
    let policy = &caller.tenant.policy;
    let NewVersion { file: id, if_etag } = match &spec.destination {
        Destination::NewFile(file) => {
            return Ok(ResolvedSpec { rules: file.content_rules(policy), checked: spec });
        }
        Destination::NewVersion(version) => version,
    };
    let id = *id;
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let found = load_target_file(&mut tx, caller, id, if_etag).await;
    match tx.finish(found).await {
        // The version's objects share the category's key prefix, and the category's rules apply to them.
        Ok(file) => {
            let types = policy.allowed_types(&file.category);
            let rules = ContentRules { category: file.category, types, file_name: file.name };
            Ok(ResolvedSpec { checked: spec, rules })
        }
        Err(error @ Error::NotAllowed(_)) => {
            Err(audit::record_denial(app, caller, AuditAction::FileUpload, Some(id), error).await)
        }
        Err(error) => Err(error),
    }
}

async fn load_target_file(
    tx: &mut TenantTx,
    caller: &Caller,
    id: FileId,
    if_etag: &str,
) -> Result<File, Error> {
    let file = require_visible(caller, files::get(tx, id).await?)?;
    check_can_write(caller, &file)?;
    check_etag(if_etag, &file.etag())?;
    file.state().check_accepts_version()?;
    Ok(file)
}
