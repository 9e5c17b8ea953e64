//! Background work on claimed blobs. A process claims the blob that it works on, so that no other process does the
//! same. It renews the claim while it works; after a crash the claim expires, and another process continues.
//!
//! Work goes on for as long as it takes, while bytes are read or written. Work that makes no progress for
//! `scrub.stall_seconds` fails. Work whose claim is lost ends: this process was paused, or could not reach the
//! database, until another one claimed the blob.
//!
//! Work that fails is attempted again after a pause, which doubles with each failure of the blob. Failures of a
//! dependency do not count: while a store fails, its circuit breaker makes the work wait, and afterwards no blob waits
//! for longer. A panic is a failure of its blob, so that it does not end the round of the others.

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use tokio::time::sleep;

use super::{App, Error, rounds::ItemOutcome};
use crate::{
    db::{
        SystemTx,
        blob_claims::{self, BlobClaim, BlobWork, ClaimPause},
    },
    domain::ids::{BlobId, ClaimId, TenantId},
    storage::Progress,
};

/// Claims the work on a blob. Returns `None` if another process has claimed it, or the blob is being deleted.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable.
pub(super) async fn claim_blob(
    app: &App,
    tx: &mut SystemTx,
    work: BlobWork,
    tenant: TenantId,
    blob: BlobId,
) -> Result<Option<BlobClaim>, Error> {
    let seconds = app.limits.scrub.claim_seconds;
    Ok(blob_claims::claim(tx, work, &[(tenant, blob)], new_claim_id(app), seconds).await?.pop())
}

/// Returns an unused id of a claim.
pub(super) fn new_claim_id(app: &App) -> ClaimId {
    ClaimId::from_uuid(app.ids.uuid())
}

/// Works on a claimed blob, and keeps the claim until the work ends. If the work fails, the claim delays the next
/// attempt. Work that succeeds must finish the claim itself, in the transaction that records its result.
///
/// # Errors
/// Returns the error of the work, and `Internal` if it panicked or made no progress.
pub(super) async fn work_on_claimed(
    app: &App,
    claim: BlobClaim,
    progress: &Progress,
    work: impl Future<Output = Result<ItemOutcome, Error>> + Send,
) -> Result<ItemOutcome, Error> {
    progress.note();
    let limit = app.limits.scrub.stall_limit();
    // All progress all the time: a renewal may wait for a connection or a lock of the work. Work that has ended comes
    // first, because a renewal does not find the claim that the work has finished.
    let worked = tokio::select! {
        biased;
        ended = AssertUnwindSafe(work).catch_unwind() => ended.unwrap_or_else(|_panic| {
            // The hook of panics has written the message and the place.
            tracing::error!(
                tenant = %claim.tenant, blob = %claim.blob, work = claim.work.name(), "work on a blob panicked"
            );
            Err(Error::internal("the work on the blob panicked"))
        }),
        () = keep_until_lost(app, claim) => {
            tracing::warn!(
                tenant = %claim.tenant, blob = %claim.blob, work = claim.work.name(),
                "ended the work on a blob, because another process has claimed it"
            );
            return Ok(ItemOutcome::Skipped);
        }
        () = progress.stalled(limit) => {
            let seconds = limit.as_secs();
            Err(Error::internal(format!("no byte was read or written within {seconds} s (scrub.stall_seconds)")))
        }
    };
    match &worked {
        Err(error) if error.is_dependency_failure() => {
            // Waits for the dependency for the shortest pause.
            renew(app, claim, app.limits.worker.backoff_base_seconds).await?;
        }
        Err(_) => delay(app, claim).await?,
        Ok(_) => {}
    }
    worked
}

/// Renews a claim until it is lost.
async fn keep_until_lost(app: &App, claim: BlobClaim) {
    let interval = app.limits.scrub.claim_renewal_interval();
    loop {
        sleep(interval).await;
        match renew(app, claim, app.limits.scrub.claim_seconds).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(tenant = %claim.tenant, blob = %claim.blob, %error, "failed to renew claim");
            }
        }
    }
}

/// Lets a claim expire after a time in seconds. Returns false if it is lost.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable.
pub(super) async fn renew(app: &App, claim: BlobClaim, seconds: u64) -> Result<bool, Error> {
    let mut tx = app.db.system_tx().await?;
    let is_renewed = blob_claims::renew(&mut tx, claim, seconds).await?;
    tx.commit().await?;
    Ok(is_renewed)
}

/// Ends a claim without a result.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable.
pub(super) async fn release(app: &App, claim: BlobClaim) -> Result<(), Error> {
    let mut tx = app.db.system_tx().await?;
    blob_claims::finish(&mut tx, claim).await?;
    Ok(tx.commit().await?)
}

/// Delays the next attempt at work that failed.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable.
pub(super) async fn delay(app: &App, claim: BlobClaim) -> Result<(), Error> {
    let worker = &app.limits.worker;
    let pause =
        ClaimPause { base_seconds: worker.backoff_base_seconds, max_seconds: worker.backoff_max_seconds };
    let mut tx = app.db.system_tx().await?;
    blob_claims::fail(&mut tx, claim, pause).await?;
    Ok(tx.commit().await?)
}
