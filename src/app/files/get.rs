//! Reads the record of one file.

use super::load_file_details;
use crate::{
    app::{App, Error, access::require_visible},
    db::{TenantTx, Viewer, files},
    domain::{caller::Caller, file::File, ids::FileId},
};

/// Returns the record of a file, which may be in the trash.
///
/// # Errors
/// Returns `NotFound` if the file does not exist or the caller may not see it.
pub async fn get_file(app: &App, caller: &Caller, id: FileId) -> Result<File, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let file = get_in_tx(&mut tx, caller, id).await;
    tx.finish(file).await
}

async fn get_in_tx(tx: &mut TenantTx, caller: &Caller, id: FileId) -> Result<File, Error> {
    let file = require_visible(caller, files::get(tx, id).await?)?;
    Ok(load_file_details(tx, file).await?)
}
