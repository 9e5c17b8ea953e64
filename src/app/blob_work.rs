//! Background work on claimed blobs. A process claims the blobs that it works on, so that no other process does the
//! same. It renews the claim while it works; after a crash the claim expires, and another process continues.
//!
//! Work that fails is attempted again after a pause, which doubles with each failure of the blob. Failures of a
//! dependency do not count: while a store fails, its circuit breaker makes the work wait, and afterwards no blob waits
//! for longer. A panic is a failure of its blob, so that it does not end the round of the others.

use std::{convert::Infallible, panic::AssertUnwindSafe};

use futures::FutureExt as _;

use super::{App, Error, rounds::ItemOutcome};
use crate::db::{
    SystemTx,
    blob_claims::{self, BlobClaim, BlobWork, ClaimPause},
};

/// Claims a kind of work on blobs. Returns the blobs that this process may work on: no other one has claimed them.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable.
pub(super) async fn claim_blobs<T: Send + Sync>(
    app: &App,
    tx: &mut SystemTx,
    work: BlobWork,
    mut blobs: Vec<T>,
    claim_of: impl Fn(&T) -> BlobClaim + Send,
) -> Result<Vec<T>, Error> {
    if blobs.is_empty() {
        return Ok(blobs);
    }
    let ids: Vec<_> = blobs.iter().map(&claim_of).map(|claim| (claim.tenant, claim.blob)).collect();
    let claims = blob_claims::claim(tx, work, &ids, app.limits.scrub.claim_seconds).await?;
    blobs.retain(|blob| claims.contains(&claim_of(blob)));
    Ok(blobs)
}

/// Works on a claimed blob, and keeps the claim until the work ends. If the work fails, the claim delays the next
/// attempt. Work that succeeds must finish the claim itself, in the transaction that records its result.
///
/// # Errors
/// Returns the error of the work, and `Internal` if it panicked.
pub(super) async fn work_on_claimed(
    app: &App,
    claim: BlobClaim,
    work: impl Future<Output = Result<ItemOutcome, Error>> + Send,
) -> Result<ItemOutcome, Error> {
    // Both progress all the time: a renewal may wait for a connection or a lock of the work.
    let ended = tokio::select! {
        ended = AssertUnwindSafe(work).catch_unwind() => ended,
        never = keep(app, claim) => match never {},
    };
    let worked = ended.unwrap_or_else(|_panic| {
        // The hook of panics has written the message and the place.
        tracing::error!(tenant = %claim.tenant, blob = %claim.blob, work = claim.work.name(), "work on a blob panicked");
        Err(Error::internal("the work on the blob panicked"))
    });
    match &worked {
        Err(error) if error.is_dependency_failure() => postpone(app, claim).await?,
        Err(_) => delay(app, claim).await?,
        Ok(_) => {}
    }
    worked
}

/// Renews a claim without an end.
async fn keep(app: &App, claim: BlobClaim) -> Infallible {
    let interval = app.limits.scrub.claim_renewal_interval();
    loop {
        tokio::time::sleep(interval).await;
        if let Err(error) = extend(app, claim, app.limits.scrub.claim_seconds).await {
            tracing::warn!(tenant = %claim.tenant, blob = %claim.blob, %error, "failed to renew claim");
        }
    }
}

/// Lets the work wait for a dependency for the shortest pause.
async fn postpone(app: &App, claim: BlobClaim) -> Result<(), Error> {
    extend(app, claim, app.limits.worker.backoff_base_seconds).await
}

/// Lets a claim expire after a time in seconds.
async fn extend(app: &App, claim: BlobClaim, seconds: u64) -> Result<(), Error> {
    let mut tx = app.db.system_tx().await?;
    blob_claims::renew(&mut tx, claim, seconds).await?;
    Ok(tx.commit().await?)
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
pub(super) async fn delay(app: &App, claim: BlobClaim) -> Result<(), Error> {
    let worker = &app.limits.worker;
    let pause =
        ClaimPause { base_seconds: worker.backoff_base_seconds, max_seconds: worker.backoff_max_seconds };
    let mut tx = app.db.system_tx().await?;
    blob_claims::fail(&mut tx, claim, pause).await?;
    Ok(tx.commit().await?)
}
