//! An upload that is a further version of a file that there is.

use crate::{
    app::{
        App, Error,
        access::{can_write, seen},
        audit,
        preconditions::check_etag,
    },
    db::{TenantTx, Viewer, audit_entries::AuditAction, files},
    domain::{caller::Caller, file::File, ids::FileId, upload_spec::CheckedSpec},
};

/// Looks for the file that an upload is a version of, before a byte travels. The commit asks again, under the file's lock:
/// it may be deleted meanwhile.
///
/// # Errors
/// `NotFound`, `NotAllowed`, `FileDeleted`, `FileNotAvailable` of an archived file, `EtagMismatch`.
pub(super) async fn of_file(app: &App, caller: &Caller, spec: CheckedSpec) -> Result<CheckedSpec, Error> {
    let Some(id) = spec.file else { return Ok(spec) };
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let found = find(&mut tx, caller, id, &spec.if_etag).await;
    match tx.finish(found).await {
        // Its objects lie with those of its category, and the policy's rules of it hold for them.
        Ok(file) => {
            let types = caller.tenant.policy.taken_types(&file.category);
            Ok(CheckedSpec { category: file.category, types, judged_name: file.name, ..spec })
        }
        Err(why @ Error::NotAllowed(_)) => {
            Err(audit::denied(app, caller, AuditAction::FileUpload, Some(id), why).await)
        }
        Err(error) => Err(error),
    }
}

async fn find(tx: &mut TenantTx, caller: &Caller, id: FileId, if_etag: &str) -> Result<File, Error> {
    let file = seen(caller, files::get(tx, id).await?)?;
    can_write(caller, &file)?;
    check_etag(if_etag, &file.etag())?;
    file.state().may_get_a_version()?;
    Ok(file)
}
