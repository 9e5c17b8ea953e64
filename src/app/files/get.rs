//! Reads the record of one file.

use super::filled;
use crate::{
    app::{App, Error, access::seen},
    db::{TenantTx, Viewer, files},
    domain::{caller::Caller, file::File, ids::FileId},
};

/// The record of a file, also of one in the trash.
///
/// # Errors
/// `NotFound` when there is none, or none that the caller may see.
pub async fn get(app: &App, caller: &Caller, id: FileId) -> Result<File, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let file = read(&mut tx, caller, id).await;
    tx.finish(file).await
}

async fn read(tx: &mut TenantTx, caller: &Caller, id: FileId) -> Result<File, Error> {
    let file = seen(caller, files::get(tx, id).await?)?;
    Ok(filled(tx, file).await?)
}
