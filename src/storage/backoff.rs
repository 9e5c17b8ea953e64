//! The retry policy: exponential backoff with full jitter, a limit on attempts, and a retry budget shared by
//! all operations, so that retries do not add load to a store that is down.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;

use super::{StorageError, StorageOptions};
use crate::domain::clock::IdSource;

/// The budget in tenths of a retry. A full budget pays for 100 retries in a row; afterwards, every 10
/// successful operations pay for one. The "standard" retry mode of the AWS SDKs has the same capacity.
const BUDGET_TENTHS_MAX: u32 = 1_000;
const RETRY_COST_TENTHS: u32 = 10;

pub(super) struct Backoff {
    attempts_max: u32,
    base: Duration,
    max: Duration,
    budget_tenths: AtomicU32,
    ids: Arc<dyn IdSource>,
}

/// An operation that failed after all its attempts.
pub(super) struct FailedAttempts {
    /// The number of attempts that were made, at least 1.
    pub(super) attempts: u32,
    /// The error of the last attempt.
    pub(super) last_error: StorageError,
}

impl From<FailedAttempts> for StorageError {
    fn from(failed: FailedAttempts) -> Self {
        failed.last_error
    }
}

impl Backoff {
    pub(super) fn new(options: &StorageOptions, ids: Arc<dyn IdSource>) -> Self {
        Self {
            attempts_max: options.retry_attempts_max,
            base: options.retry_backoff_base,
            max: options.retry_backoff_max,
            budget_tenths: AtomicU32::new(BUDGET_TENTHS_MAX),
            ids,
        }
    }

    /// Performs an operation until it succeeds or must not be retried.
    ///
    /// # Errors
    /// Returns the error of the last attempt, see [`Self::wait_before_retry`].
    pub(super) async fn retry<'a, T>(
        &self,
        attempt: impl Fn() -> BoxFuture<'a, Result<T, StorageError>> + Send,
    ) -> Result<T, StorageError> {
        Ok(self.try_attempts(attempt).await?)
    }

    /// Performs an operation as [`Self::retry`] does. The failure contains the number of attempts.
    pub(super) async fn try_attempts<'a, T>(
        &self,
        attempt: impl Fn() -> BoxFuture<'a, Result<T, StorageError>> + Send,
    ) -> Result<T, FailedAttempts> {
        let mut attempts = 1;
        loop {
            let error = match attempt().await {
                Ok(value) => {
                    self.record_success();
                    return Ok(value);
                }
                Err(error) => error,
            };
            if let Err(last_error) = self.wait_before_retry(attempts, error).await {
                return Err(FailedAttempts { attempts, last_error });
            }
            attempts += 1;
        }
    }

    /// Refills the budget by a tenth of a retry after a successful operation.
    fn record_success(&self) {
        let earn = |tenths: u32| (tenths < BUDGET_TENTHS_MAX).then_some(tenths + 1);
        // The update fails only if the budget is already full.
        let _ = self.budget_tenths.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earn);
    }

    /// Waits before attempt `attempt + 1`.
    ///
    /// # Errors
    /// Returns the error unchanged if it is not retryable, the attempts are used up, or the budget is empty.
    pub(super) async fn wait_before_retry(
        &self,
        attempt: u32,
        error: StorageError,
    ) -> Result<(), StorageError> {
        if !error.is_retryable() || attempt >= self.attempts_max {
            return Err(error);
        }
        let pay = |tenths: u32| tenths.checked_sub(RETRY_COST_TENTHS);
        if self.budget_tenths.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).is_err() {
            tracing::warn!(operation = error.operation, "retry budget is empty; not retrying");
            return Err(error);
        }
        let pause = apply_jitter(max_pause(self.base, self.max, attempt), self.random());
        tracing::debug!(operation = error.operation, attempt, ?pause, %error, "retrying storage operation");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// The last four bytes of a UUIDv7 are random.
    fn random(&self) -> u32 {
        let [.., a, b, c, d] = self.ids.uuid().into_bytes();
        u32::from_be_bytes([a, b, c, d])
    }
}

/// The longest pause after this many attempts: base, 2 × base, 4 × base …, up to the maximum.
fn max_pause(base: Duration, max: Duration, attempt: u32) -> Duration {
    let factor = 1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
    base.saturating_mul(factor).min(max)
}

/// A pause between zero and the ceiling, so that clients that failed together do not retry together.
fn apply_jitter(ceiling: Duration, random: u32) -> Duration {
    ceiling.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

impl fmt::Debug for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backoff")
            .field("attempts_max", &self.attempts_max)
            .field("base", &self.base)
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_maximum() {
        let (base, max) = (Duration::from_millis(100), Duration::from_secs(1));
        let ceilings: Vec<_> = (1..=6).map(|attempt| max_pause(base, max, attempt).as_millis()).collect();
        assert_eq!(ceilings, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(max_pause(base, max, u32::MAX), max);
    }

    #[test]
    fn jitter_covers_zero_to_the_ceiling() {
        let ceiling = Duration::from_secs(1);
        assert_eq!(apply_jitter(ceiling, 0), Duration::ZERO);
        assert_eq!(apply_jitter(ceiling, u32::MAX), ceiling);
    }
}
