//! Which use case does which job. A job without one does not compile.

use crate::{
    app::{
        App, Error, files::delete_expired::delete_expired, storage::settle_class::settle_class,
        uploads::verify::verify,
    },
    domain::ids::TenantId,
    jobs::Job,
};

/// Does a job of a tenant.
///
/// # Errors
/// Whatever kept it from being done; it is tried again.
pub(super) async fn dispatch(app: &App, tenant: TenantId, job: Job) -> Result<(), Error> {
    match job {
        Job::VerifyUpload { file, version, sha256, sniffed } => {
            verify(app, tenant, (file, version), sha256, sniffed.as_deref()).await
        }
        Job::DeleteExpiredFiles {} => delete_expired(app, tenant).await,
        Job::SettleStorageClass { file } => settle_class(app, tenant, file).await,
    }
}
