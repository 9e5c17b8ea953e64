//! Resolves the target file of an upload that adds a version to an existing file.

use crate::{
    app::{
        App, Error,
        access::{check_can_write, require_visible},
        audit,
    },
    db::{TenantTx, Viewer, audit_entries::AuditAction, files},
    domain::{caller::Caller, file::File, ids::FileId, upload_spec::CheckedSpec},
};

/// Resolves the file that the upload adds a version to, before any bytes are received, and completes the spec
/// with the file's category and name. The commit checks again under the file's lock, because the file may be
/// deleted in the meantime.
///
/// # Errors
/// Returns `NotFound`, `NotAllowed`, `FileDeleted`, or `FileNotAvailable` if the file is archived.
pub(super) async fn resolve_target_file(
    app: &App,
    caller: &Caller,
    spec: CheckedSpec,
) -> Result<CheckedSpec, Error> {
    let Some(id) = spec.file else { return Ok(spec) };
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let found = load_target_file(&mut tx, caller, id).await;
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

async fn load_target_file(tx: &mut TenantTx, caller: &Caller, id: FileId) -> Result<File, Error> {
    let file = require_visible(caller, files::get(tx, id).await?)?;
    check_can_write(caller, &file)?;
    file.state().check_accepts_version()?;
    Ok(file)
}
