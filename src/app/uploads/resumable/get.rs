//! Tells how far an upload has come.

use crate::{
    app::{App, Error},
    db::{TenantTx, Viewer, resumable_uploads},
    domain::{
        caller::{Caller, Role},
        ids::UploadId,
        upload::Upload,
    },
};

/// One upload: of its creator, or for an admin of anyone in the tenant.
///
/// # Errors
/// `NotFound`, also for one that was given up or whose lease ran out.
pub async fn get(app: &App, caller: &Caller, id: UploadId) -> Result<Upload, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let upload = seen(&mut tx, caller, id).await;
    tx.finish(upload).await
}

/// An upload that the caller may see.
pub(super) async fn seen(tx: &mut TenantTx, caller: &Caller, id: UploadId) -> Result<Upload, Error> {
    let stored = resumable_uploads::get(tx, id).await?;
    stored
        .map(|stored| stored.upload)
        .filter(|upload| caller.role >= Role::Admin || upload.created_by == caller.actor.id)
        .ok_or(Error::NotFound("upload"))
}
