//! Resolves the target file of an upload that adds a version to an existing file.

use crate::{
    app::{
        App, Error,
        access::{check_can_write, require_visible},
        audit,
        preconditions::check_etag,
    },
    db::{TenantTx, Viewer, audit_entries::AuditAction, files},
    domain::{caller::Caller, file::File, ids::FileId, upload_spec::CheckedSpec},
};

/// Resolves the file that the upload adds a version to, before any bytes are received, and completes the spec
/// with the file's category and name. The commit checks again under the file's lock, because the file may be
/// deleted in the meantime.
///
/// # Errors
/// Returns `NotFound`, `NotAllowed`, `FileDeleted`, `EtagMismatch`, or `FileNotAvailable` if the file is
/// archived.
pub(super) async fn resolve_target_file(
    app: &App,
    caller: &Caller,
    spec: CheckedSpec,
) -> Result<CheckedSpec, Error> {
    let Some(id) = spec.file else { return Ok(spec) };
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let found = load_target_file(&mut tx, caller, id, &spec.if_etag).await;
    match tx.finish(found).await {
        // The version's objects share the category's key prefix, and the category's rules apply to them.
        Ok(file) => {
            let types = caller.tenant.policy.allowed_types(&file.category);
            Ok(CheckedSpec { category: file.category, types, type_check_name: file.name, ..spec })
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
