//! One attempt at one job: it is done while its lease is kept alive, and then it is finished, tried again later, parked, or
//! given back. A worker that lost the lease drops what it was doing and says nothing more about the job.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{dispatch::dispatch, shielded};
use crate::{
    app::App,
    config::WorkerConfig,
    db::{
        DbError,
        jobs::{self as queue, ClaimedJob, JobLease, Next},
    },
    jobs,
};

/// How much of an error is kept with its job, in characters.
const ERROR_CHARACTERS_MAX: usize = 1_000;

/// Tries a job; answers whether it was done and counts as done. `cut` gives it back where it stands.
pub(super) async fn attempt(app: &App, claimed: ClaimedJob, cut: &CancellationToken) -> bool {
    let JobLease { tenant, id, .. } = claimed.lease;
    let span = tracing::info_span!("job", kind = claimed.kind, job = %id, %tenant, attempt = claimed.attempt);
    run(app, &claimed, cut).instrument(span).await
}

async fn run(app: &App, claimed: &ClaimedJob, cut: &CancellationToken) -> bool {
    let started = Instant::now();
    let outcome = tokio::select! {
        ended = perform(app, claimed) => settle(app, claimed, ended).await,
        () = keep(app, claimed.lease, started) => {
            tracing::warn!("the lease was lost; another worker has the job");
            Ok("fenced")
        }
        () = cut.cancelled() => release(app, claimed.lease).await,
    };
    let outcome = outcome.unwrap_or_else(|error| {
        // Its lease runs out, and it is done again.
        tracing::warn!(%error, "say what became of a job");
        "unknown"
    });
    app.metrics().job_attempted(&claimed.kind, outcome, Some(started.elapsed()));
    outcome == "done"
}

/// Does the job; answers why it could not be done. A panic is a failure like any other.
async fn perform(app: &App, claimed: &ClaimedJob) -> Result<(), String> {
    let job = jobs::read(&claimed.payload)
        .map_err(|error| format!("this version of the service cannot read it: {error}"))?;
    shielded(dispatch(app, claimed.lease.tenant, job)).await?.map_err(|error| {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(source) = cause {
            text.push_str(": ");
            text.push_str(&source.to_string());
            cause = source.source();
        }
        text
    })
}

/// Sends heartbeats; ends when the lease is lost: somebody else has it, or it ran out before one came through.
async fn keep(app: &App, lease: JobLease, claimed_at: Instant) {
    let config = &app.limits().worker;
    let mut held_until = claimed_at + config.lease();
    while Instant::now() < held_until {
        sleep(config.heartbeat()).await;
        let asked_at = Instant::now();
        match timeout_at(held_until, beat(app, lease, config.lease_seconds)).await {
            Ok(Ok(true)) => held_until = asked_at + config.lease(),
            Ok(Ok(false)) | Err(_) => return,
            Ok(Err(error)) => tracing::warn!(%error, "heartbeat"),
        }
    }
}

async fn beat(app: &App, lease: JobLease, lease_seconds: u64) -> Result<bool, DbError> {
    let mut tx = app.db().system_tx().await?;
    let is_held = queue::beat(&mut tx, lease, lease_seconds).await?;
    tx.commit().await?;
    Ok(is_held)
}

/// Says what became of the job; answers that in a word.
async fn settle(app: &App, claimed: &ClaimedJob, ended: Result<(), String>) -> Result<&'static str, DbError> {
    let config = &app.limits().worker;
    let lease = claimed.lease;
    let mut tx = app.db().system_tx().await?;
    let (is_held, outcome) = match &ended {
        Ok(()) => (queue::finish(&mut tx, lease).await?, "done"),
        Err(error) => {
            let error: String = error.chars().take(ERROR_CHARACTERS_MAX).collect();
            let next = next(config, claimed.attempt, random(app));
            let outcome = if next == Next::Park { "parked" } else { "failed" };
            (queue::fail(&mut tx, lease, &error, next).await?, outcome)
        }
    };
    tx.commit().await?;
    match (is_held, ended) {
        (false, _) => {
            tracing::warn!("the lease was lost; what this attempt says does not count");
            return Ok("fenced");
        }
        (true, Err(error)) if outcome == "parked" => {
            tracing::warn!(error, "parked: it failed too often; see `strongroom jobs`");
        }
        (true, Err(error)) => tracing::info!(error, "failed; it will be tried again"),
        (true, Ok(())) => tracing::debug!("done"),
    }
    Ok(outcome)
}

async fn release(app: &App, lease: JobLease) -> Result<&'static str, DbError> {
    let mut tx = app.db().system_tx().await?;
    let is_held = queue::release(&mut tx, lease).await?;
    tx.commit().await?;
    Ok(if is_held { "released" } else { "fenced" })
}

/// What comes after this many failed attempts: pauses double up to the longest, and lie anywhere in the upper half of that, so
/// that jobs that failed together do not come back together.
fn next(config: &WorkerConfig, attempts: i32, random: u32) -> Next {
    let attempts = u32::try_from(attempts).unwrap_or_default();
    if attempts >= config.attempts_max {
        return Next::Park;
    }
    let factor = 1_u64.checked_shl(attempts.saturating_sub(1)).unwrap_or(u64::MAX);
    let seconds = config.backoff_base_seconds.saturating_mul(factor).min(config.backoff_max_seconds);
    let half = Duration::from_secs(seconds) / 2;
    Next::Retry(half + half.mul_f64(f64::from(random) / f64::from(u32::MAX)))
}

/// The last four bytes of a UUIDv7 are random.
fn random(app: &App) -> u32 {
    let [.., a, b, c, d] = app.ids().uuid().into_bytes();
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn pauses_double_up_to_the_longest_and_after_the_last_attempt_there_is_none() {
        let config = WorkerConfig {
            attempts_max: 6,
            backoff_base_seconds: 10,
            backoff_max_seconds: 60,
            ..Config::defaults().unwrap().worker
        };
        let seconds = |attempts, random| match next(&config, attempts, random) {
            Next::Retry(pause) => Some(pause.as_secs()),
            Next::Park => None,
        };
        let longest: Vec<_> = (1..=6).map(|attempts| seconds(attempts, u32::MAX)).collect();
        assert_eq!(longest, [Some(10), Some(20), Some(40), Some(60), Some(60), None]);
        let shortest: Vec<_> = (1..=6).map(|attempts| seconds(attempts, 0)).collect();
        assert_eq!(shortest, [Some(5), Some(10), Some(20), Some(30), Some(30), None]);
    }
}
