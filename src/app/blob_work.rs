//! Background work on claimed blobs. A process claims the blobs that it works on, so that no other process does the
//! same. It renews the claim while it works; after a crash the claim expires, and another process continues.

use std::pin::pin;

use super::{App, Error, rounds::ItemOutcome};
use crate::db::blob_claims::{self, BlobClaim, ClaimPause};

/// Works on a claimed blob, and keeps the claim until the work ends. If the work fails, the claim delays the next
/// attempt. Work that succeeds must finish the claim itself, in the transaction that records its result.
///
/// # Errors
/// Returns the error of the work.
pub(super) async fn work_on_claimed(
    app: &App,
    claim: BlobClaim,
    work: impl Future<Output = Result<ItemOutcome, Error>> + Send,
) -> Result<ItemOutcome, Error> {
    let mut work = pin!(work);
    let interval = app.limits.scrub.claim_renewal_interval();
    let worked = loop {
        tokio::select! {
            worked = &mut work => break worked,
            () = tokio::time::sleep(interval) => {
                if let Err(error) = renew(app, claim).await {
                    tracing::warn!(tenant = %claim.tenant, blob = %claim.blob, %error, "failed to renew claim");
                }
            }
        }
    };
    if worked.is_err() {
        delay(app, claim).await?;
    }
    worked
}

async fn renew(app: &App, claim: BlobClaim) -> Result<(), Error> {
    let mut tx = app.db.system_tx().await?;
    blob_claims::renew(&mut tx, claim, app.limits.scrub.claim_seconds).await?;
    Ok(tx.commit().await?)
}

/// Delays the next attempt at work that failed.
pub(super) async fn delay(app: &App, claim: BlobClaim) -> Result<(), Error> {
    let worker = &app.limits.worker;
    let pause =
        ClaimPause { base_seconds: worker.backoff_base_seconds, max_seconds: worker.backoff_max_seconds };
    let mut tx = app.db.system_tx().await?;
    blob_claims::fail(&mut tx, claim, pause).await?;
    Ok(tx.commit().await?)
}
