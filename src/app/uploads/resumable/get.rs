//! Returns the state and the progress of an upload.

use crate::{
    app::{App, Error, Resource},
    db::{TenantTx, Viewer, resumable_uploads},
    domain::{
        caller::{Caller, Role},
        ids::UploadId,
        upload::Upload,
    },
};

/// Returns an upload to its creator or to an admin of the tenant.
///
/// # Errors
/// Returns `NotFound`, also for an upload that was cancelled or whose lease expired.
pub async fn get_upload(app: &App, caller: &Caller, id: UploadId) -> Result<Upload, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let upload = get_visible_upload(&mut tx, caller, id).await;
    tx.finish(upload).await
}

/// Returns the upload if the caller may see it.
pub(super) async fn get_visible_upload(
    tx: &mut TenantTx,
    caller: &Caller,
    id: UploadId,
) -> Result<Upload, Error> {
    let stored = resumable_uploads::get(tx, id).await?;
    stored
        .map(|stored| stored.upload)
        .filter(|upload| caller.role >= Role::Admin || upload.created_by == caller.actor.id)
        .ok_or(Error::NotFound(Resource::Upload))
}
