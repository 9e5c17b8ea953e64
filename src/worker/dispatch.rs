//! Maps each job to its use case. A job without a handler does not compile.

use crate::{
    app::{
        App, Error, files::delete_expired::delete_expired_files, quotas::recalculate::recalculate_usage,
        quotas::send_alert::send_quota_alert, storage::apply_storage_class::apply_storage_class,
        uploads::direct::verify::verify_upload,
    },
    domain::ids::TenantId,
    jobs::Job,
};

/// Runs a job of a tenant.
///
/// # Errors
/// Returns the error of the use case. The job is then retried.
pub(super) async fn dispatch_job(app: &App, tenant: TenantId, job: Job) -> Result<(), Error> {
    // Boxed: these futures are large, and the future of the worker would contain them.
    match job {
        Job::VerifyUpload { file, version, sha256, sniffed, uploader } => {
            let (sniffed, uploader) = (sniffed.as_deref(), uploader.as_ref());
            Box::pin(verify_upload(app, tenant, file, version, sha256, sniffed, uploader)).await
        }
        Job::DeleteExpiredFiles {} => Box::pin(delete_expired_files(app, tenant)).await,
        Job::SendQuotaAlert { number } => Box::pin(send_quota_alert(app, tenant, number)).await,
        Job::RecalculateUsage {} => Box::pin(recalculate_usage(app, tenant)).await,
        Job::ApplyStorageClass { file } => Box::pin(apply_storage_class(app, tenant, file)).await,
    }
}
