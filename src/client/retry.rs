//! Retries: which errors are retried, how often, and after which delay.

use std::{future::Future, time::Duration};

use tonic::Code;

use super::{error::ClientError, randomness};

/// The number of retries of a call, and the delays before them.
///
/// Transport errors, UNAVAILABLE, and all errors with a `RetryInfo` from the server are retried. Only calls
/// that are safe to retry are retried: reads, and changes with a request id.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// The maximum number of attempts, including the first. 1 disables retries. 3 by default.
    pub attempts_max: u32,
    /// The delay before the second attempt. It doubles with each further attempt; a random jitter reduces it
    /// by up to half. 200 ms by default.
    pub backoff: Duration,
    /// The maximum delay. If the server asks for a longer one, the call is not retried, and the caller
    /// decides. 10 s by default.
    pub wait_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts_max: 3, backoff: Duration::from_millis(200), wait_max: Duration::from_secs(10) }
    }
}

impl RetryPolicy {
    /// Calls `attempt` until it succeeds, until it fails with an error that is not retried, or until
    /// `attempts_max` is reached.
    pub(super) async fn call<T, F, Fut>(&self, mut attempt: F) -> Result<T, ClientError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, ClientError>>,
    {
        let mut attempts = 1;
        loop {
            match attempt().await {
                Err(error) => match self.delay_after_error(&error, attempts) {
                    Some(delay) => tokio::time::sleep(delay).await,
                    None => return Err(error),
                },
                success => return success,
            }
            attempts += 1;
        }
    }

    /// Returns the delay after attempt number `attempts` failed with `error`, or `None` if it is not retried.
    pub(super) fn delay_after_error(&self, error: &ClientError, attempts: u32) -> Option<Duration> {
        match error {
            ClientError::Transport { .. } => self.backoff_after(attempts),
            ClientError::Rejected(rejection) => match rejection.retry_after {
                Some(retry_after) => {
                    self.backoff_after(attempts)?;
                    (retry_after <= self.wait_max).then_some(retry_after)
                }
                None if rejection.code == Code::Unavailable => self.backoff_after(attempts),
                None => None,
            },
            _ => None,
        }
    }

    /// Returns the backoff after attempt number `attempts`, or `None` if it was the last one.
    pub(super) fn backoff_after(&self, attempts: u32) -> Option<Duration> {
        let backoff = self.backoff.saturating_mul(1 << (attempts - 1).min(16));
        (attempts < self.attempts_max).then(|| randomness::add_jitter(backoff).min(self.wait_max))
    }
}
