//! Runs one attempt at one job while renewing its lease, then finishes the job, schedules a retry, parks it,
//! or releases it. A worker that loses the lease drops the handler and records nothing.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{catch_panic, dispatch::dispatch_job};
use crate::{
    app::{self, App},
    config::WorkerConfig,
    db::{
        DbError,
        jobs::{self as queue, ClaimedJob, JobLease, LeaseState, NextAttempt},
    },
    domain::error_text::with_causes,
    jobs,
    telemetry::metrics::AttemptOutcome,
};

/// The maximum length of a job's stored error, in characters.
const ERROR_CHARACTERS_MAX: usize = 1_000;

/// Why a handler did not complete its job.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error("this version of the service cannot read the job: {0}")]
    Unreadable(serde_json::Error),
    /// Contains the message of the panic.
    #[error("{0}")]
    Panicked(String),
    #[error("{}", with_causes(.0))]
    Failed(app::Error),
}

impl AttemptError {
    /// Returns whether a dependency failed, so that the attempt does not count.
    fn is_dependency_failure(&self) -> bool {
        match self {
            Self::Failed(error) => error.is_dependency_failure(),
            Self::Unreadable(_) | Self::Panicked(_) => false,
        }
    }
}

/// Attempts a job and returns the outcome. If `abort` is cancelled, the job is released for another worker.
pub(super) async fn attempt_job(app: &App, claimed: ClaimedJob, abort: &CancellationToken) -> AttemptOutcome {
    let JobLease { tenant, id, .. } = claimed.lease;
    let span = tracing::info_span!("job", kind = claimed.kind, job = %id, %tenant, attempt = claimed.attempt);
    attempt_under_lease(app, &claimed, abort).instrument(span).await
}

async fn attempt_under_lease(app: &App, claimed: &ClaimedJob, abort: &CancellationToken) -> AttemptOutcome {
    let started = Instant::now();
    let outcome = tokio::select! {
        result = run_handler(app, claimed) => record_outcome(app, claimed, result).await,
        () = keep_lease(app, claimed.lease, started) => {
            tracing::warn!("lost the lease of the job");
            Ok(AttemptOutcome::Fenced)
        }
        () = abort.cancelled() => release_job(app, claimed.lease).await,
    };
    let outcome = outcome.unwrap_or_else(|error| {
        // The lease expires and the job is run again.
        tracing::warn!(%error, "failed to record the outcome of a job");
        AttemptOutcome::Unknown
    });
    app.metrics().record_job_attempt(&claimed.kind, outcome, Some(started.elapsed()));
    outcome
}

/// Runs the handler, and turns its panic into an error.
async fn run_handler(app: &App, claimed: &ClaimedJob) -> Result<(), AttemptError> {
    let job = jobs::parse_job(&claimed.payload).map_err(AttemptError::Unreadable)?;
    let handled = catch_panic(dispatch_job(app, claimed.lease.tenant, job)).await;
    handled.map_err(AttemptError::Panicked)?.map_err(AttemptError::Failed)
}

/// Sends heartbeats. Returns when the lease is lost: another worker holds it, or it expired before a
/// heartbeat succeeded.
async fn keep_lease(app: &App, lease: JobLease, claimed_at: Instant) {
    let config = &app.limits().worker;
    let mut lease_end = claimed_at + config.lease_duration();
    while Instant::now() < lease_end {
        sleep(config.heartbeat_interval()).await;
        let sent_at = Instant::now();
        match timeout_at(lease_end, send_heartbeat(app, lease, config.lease_seconds)).await {
            Ok(Ok(LeaseState::Held)) => lease_end = sent_at + config.lease_duration(),
            Ok(Ok(LeaseState::Lost)) | Err(_) => return,
            Ok(Err(error)) => tracing::warn!(%error, "failed to send heartbeat"),
        }
    }
}

async fn send_heartbeat(app: &App, lease: JobLease, lease_seconds: u64) -> Result<LeaseState, DbError> {
    let mut tx = app.db().system_tx().await?;
    let state = queue::extend_lease(&mut tx, lease, lease_seconds).await?;
    tx.commit().await?;
    Ok(state)
}

/// Records the outcome of the attempt and returns it.
async fn record_outcome(
    app: &App,
    claimed: &ClaimedJob,
    result: Result<(), AttemptError>,
) -> Result<AttemptOutcome, DbError> {
    let config = &app.limits().worker;
    let lease = claimed.lease;
    let mut tx = app.db().system_tx().await?;
    let Err(error) = result else {
        let state = queue::finish(&mut tx, lease).await?;
        tx.commit().await?;
        return Ok(match state {
            LeaseState::Held => {
                tracing::debug!("job finished");
                AttemptOutcome::Done
            }
            LeaseState::Lost => discard_outcome(),
        });
    };
    let next = match error.is_dependency_failure() {
        true => NextAttempt::Wait(dependency_delay(config, claimed.dependency_failures, random_u32(app))),
        false => next_attempt(config, claimed.attempt, random_u32(app)),
    };
    let error = error.to_string();
    let stored: String = error.chars().take(ERROR_CHARACTERS_MAX).collect();
    let state = queue::fail(&mut tx, lease, &stored, next).await?;
    tx.commit().await?;
    Ok(match (state, next) {
        (LeaseState::Lost, _) => discard_outcome(),
        (LeaseState::Held, NextAttempt::Park) => {
            tracing::warn!(error, "parked job after its last attempt failed; see `strongroom jobs`");
            AttemptOutcome::Parked
        }
        (LeaseState::Held, NextAttempt::Retry(_)) => {
            tracing::info!(error, "job failed and will be retried");
            AttemptOutcome::Failed
        }
        (LeaseState::Held, NextAttempt::Wait(_)) => {
            tracing::info!(error, "job waits because a dependency failed; the attempt does not count");
            AttemptOutcome::Waiting
        }
    })
}

fn discard_outcome() -> AttemptOutcome {
    tracing::warn!("lost the lease; discarded the outcome of this attempt");
    AttemptOutcome::Fenced
}

async fn release_job(app: &App, lease: JobLease) -> Result<AttemptOutcome, DbError> {
    let mut tx = app.db().system_tx().await?;
    let state = queue::release(&mut tx, lease).await?;
    tx.commit().await?;
    Ok(match state {
        LeaseState::Held => AttemptOutcome::Released,
        LeaseState::Lost => AttemptOutcome::Fenced,
    })
}

/// Returns the next step after `attempts` failed attempts.
fn next_attempt(config: &WorkerConfig, attempts: i32, random: u32) -> NextAttempt {
    let attempts = u32::try_from(attempts).unwrap_or_default();
    if attempts >= config.attempts_max {
        return NextAttempt::Park;
    }
    NextAttempt::Retry(retry_delay(config, attempts, config.backoff_max_seconds, random))
}

/// Returns the delay after a failure of a dependency that followed `failures` of them.
fn dependency_delay(config: &WorkerConfig, failures: i32, random: u32) -> Duration {
    let failures = u32::try_from(failures).unwrap_or_default().saturating_add(1);
    retry_delay(config, failures, config.dependency_backoff_max_seconds, random)
}

/// Returns the delay after failure number `failures`. Delays double up to the maximum and are randomized within
/// their upper half, so that jobs that failed together are not retried together.
fn retry_delay(config: &WorkerConfig, failures: u32, seconds_max: u64, random: u32) -> Duration {
    let factor = 1_u64.checked_shl(failures.saturating_sub(1)).unwrap_or(u64::MAX);
    let seconds = config.backoff_base_seconds.saturating_mul(factor).min(seconds_max);
    let half = Duration::from_secs(seconds) / 2;
    half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// Returns a random number: the last four bytes of a UUIDv7 are random.
fn random_u32(app: &App) -> u32 {
    let [.., a, b, c, d] = app.ids().uuid().into_bytes();
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn retry_delays_double_until_the_job_is_parked() {
        let config = WorkerConfig {
            attempts_max: 6,
            backoff_base_seconds: 10,
            backoff_max_seconds: 60,
            ..Config::defaults().unwrap().worker
        };
        let seconds = |attempts, random| match next_attempt(&config, attempts, random) {
            NextAttempt::Retry(delay) => Some(delay.as_secs()),
            NextAttempt::Wait(_) | NextAttempt::Park => None,
        };
        let longest: Vec<_> = (1..=6).map(|attempts| seconds(attempts, u32::MAX)).collect();
        assert_eq!(longest, [Some(10), Some(20), Some(40), Some(60), Some(60), None]);
        let shortest: Vec<_> = (1..=6).map(|attempts| seconds(attempts, 0)).collect();
        assert_eq!(shortest, [Some(5), Some(10), Some(20), Some(30), Some(30), None]);
    }

    #[test]
    fn delays_after_failures_of_dependencies_have_a_limit() {
        let config = WorkerConfig {
            backoff_base_seconds: 5,
            dependency_backoff_max_seconds: 60,
            ..Config::defaults().unwrap().worker
        };
        let longest = [0, 1, 2, 3, 4, 1_000, i32::MAX]
            .map(|failures| dependency_delay(&config, failures, u32::MAX).as_secs());
        assert_eq!(longest, [5, 10, 20, 40, 60, 60, 60]);
    }
}
