//! When a call is sent again, and after how long.

use std::{future::Future, time::Duration};

use tonic::Code;

use super::{error::ClientError, randomness};

/// How often and how patiently a call is repeated.
///
/// Repeated are: calls that never reached the server or lost its answer, UNAVAILABLE, and whatever else the
/// server itself asks to repeat with a RetryInfo. Only calls that are safe to repeat come here.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// How often a call is sent in all. 1 turns retries off.
    pub tries_max: u32,
    /// The wait before the second try; it doubles with each further one. Jitter takes up to half of it away.
    pub backoff: Duration,
    /// The longest wait. Where the server asks for a longer one, its answer goes to the caller, who knows
    /// whether that is worth it.
    pub wait_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { tries_max: 3, backoff: Duration::from_millis(200), wait_max: Duration::from_secs(10) }
    }
}

impl RetryPolicy {
    /// Runs `attempt` until it succeeds, fails in a way that a repetition cannot help, or the tries are used
    /// up.
    pub(super) async fn run<T, F, Fut>(&self, mut attempt: F) -> Result<T, ClientError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, ClientError>>,
    {
        let mut tries = 1;
        loop {
            match attempt().await {
                Err(error) => match self.wait_before_retry(&error, tries) {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => return Err(error),
                },
                done => return done,
            }
            tries += 1;
        }
    }

    /// How long to wait after try number `tries` failed; nothing where another try makes no sense.
    pub(super) fn wait_before_retry(&self, error: &ClientError, tries: u32) -> Option<Duration> {
        if tries >= self.tries_max {
            return None;
        }
        let own =
            || randomness::jittered(self.backoff.saturating_mul(1 << (tries - 1).min(16))).min(self.wait_max);
        match error {
            ClientError::Transport { .. } => Some(own()),
            ClientError::Rejected(rejection) => match rejection.retry_after {
                Some(wait) => (wait <= self.wait_max).then_some(wait),
                None => (rejection.code == Code::Unavailable).then(own),
            },
            _ => None,
        }
    }
}
