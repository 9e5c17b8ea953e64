//! A circuit breaker: after several failures of a store in a row, calls fail at once instead of waiting for it.
//! After a pause, one call at a time probes the store. A probe that succeeds closes the breaker; one that fails
//! opens it for twice as long, up to a limit.
//!
//! Only failures of the store count, such as an unreachable server. A response that reports a missing object
//! shows that the store works.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{StorageError, StorageErrorKind};
use crate::domain::{breaker::BreakerState, error_text::with_causes};

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct BreakerOptions {
    /// The number of consecutive failures that opens the breaker. At least 1.
    pub failures_max: u32,
    /// The first pause. It doubles with each probe that fails.
    pub backoff_base: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
}

/// A breaker at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerStatus {
    pub state: BreakerState,
    /// The number of consecutive failures.
    pub failures: u32,
    /// The last of these failures, or empty.
    pub last_error: String,
}

/// The breaker of one store.
#[derive(Debug)]
pub struct Breaker {
    options: BreakerOptions,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    position: Position,
    failures: u32,
    last_error: String,
}

#[derive(Debug, Clone, Copy)]
enum Position {
    Closed,
    /// Calls fail until this time.
    Open {
        until: Instant,
        pause: Duration,
    },
    /// A probe is on its way.
    Probing {
        pause: Duration,
    },
}

/// The breaker is open: the call must not reach the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{failures} calls of background work failed in a row, the last one with: {last_error}; the store is probed again in {} s", retry_after.as_secs())]
pub(super) struct Rejected {
    failures: u32,
    last_error: String,
    retry_after: Duration,
}

/// A call that the breaker admitted. Its outcome must be recorded; a call that is dropped instead leaves the
/// state of the store open, and a probe that is dropped may be repeated at once.
#[derive(Debug)]
pub(super) struct AdmittedCall<'a> {
    breaker: &'a Breaker,
    is_probe: bool,
    is_recorded: bool,
}

impl Breaker {
    pub(super) fn new(options: BreakerOptions) -> Self {
        let inner = Inner { position: Position::Closed, failures: 0, last_error: String::new() };
        Self { options, inner: Mutex::new(inner) }
    }

    /// Returns the state, the number of failures and the last error.
    pub fn status(&self) -> BreakerStatus {
        let inner = self.inner();
        let state = match inner.position {
            Position::Closed => BreakerState::Closed,
            Position::Open { until, .. } if until > Instant::now() => BreakerState::Open,
            Position::Open { .. } | Position::Probing { .. } => BreakerState::HalfOpen,
        };
        BreakerStatus { state, failures: inner.failures, last_error: inner.last_error.clone() }
    }

    /// Returns whether a call would be rejected now: the breaker is open, or another call probes the store.
    pub fn rejects_calls(&self) -> bool {
        match self.inner().position {
            Position::Closed => false,
            Position::Open { until, .. } => until > Instant::now(),
            Position::Probing { .. } => true,
        }
    }

    /// Admits a call, or rejects it at once.
    pub(super) fn admit(&self) -> Result<AdmittedCall<'_>, Rejected> {
        let mut inner = self.inner();
        let now = Instant::now();
        let is_probe = match inner.position {
            Position::Closed => false,
            Position::Open { until, pause } if until <= now => {
                inner.position = Position::Probing { pause };
                true
            }
            Position::Open { until, .. } => return Err(inner.reject(until - now)),
            Position::Probing { .. } => return Err(inner.reject(Duration::ZERO)),
        };
        Ok(AdmittedCall { breaker: self, is_probe, is_recorded: false })
    }

    /// Records the result of a call outside of an admission, such as a later piece of a download.
    pub(super) fn record<T>(&self, result: &Result<T, StorageError>) {
        match failure_of(result) {
            Some(error) => self.record_failure(&with_causes(error), false),
            None => self.record_success(false),
        }
    }

    fn record_success(&self, is_probe: bool) {
        let mut inner = self.inner();
        // The success of a call from before the breaker opened does not show that the store works now.
        if is_probe || matches!(inner.position, Position::Closed) {
            if is_probe {
                tracing::info!(failures = inner.failures, "closed the circuit breaker of a store");
            }
            *inner = Inner { position: Position::Closed, failures: 0, last_error: String::new() };
        }
    }

    fn record_failure(&self, error: &str, is_probe: bool) {
        let mut inner = self.inner();
        inner.failures = inner.failures.saturating_add(1);
        error.clone_into(&mut inner.last_error);
        let pause = match inner.position {
            Position::Probing { pause } if is_probe => pause.saturating_mul(2).min(self.options.backoff_max),
            Position::Closed if inner.failures >= self.options.failures_max => self.options.backoff_base,
            _ => return,
        };
        tracing::warn!(failures = inner.failures, ?pause, error, "opened the circuit breaker of a store");
        inner.position = Position::Open { until: Instant::now() + pause, pause };
    }

    /// Allows another probe at once, because the last one ended without a result.
    fn release_probe(&self) {
        let mut inner = self.inner();
        if let Position::Probing { pause } = inner.position {
            inner.position = Position::Open { until: Instant::now(), pause };
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // The state is consistent after every statement.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn reject(&self, retry_after: Duration) -> Rejected {
        Rejected { failures: self.failures, last_error: self.last_error.clone(), retry_after }
    }
}

impl AdmittedCall<'_> {
    /// Records the result of the call.
    pub(super) fn record<T>(self, result: &Result<T, StorageError>) {
        self.record_failure_or_success(failure_of(result));
    }

    /// Records the failure of the call, or its success.
    pub(super) fn record_failure_or_success(mut self, failure: Option<&StorageError>) {
        self.is_recorded = true;
        match failure {
            Some(error) => self.breaker.record_failure(&with_causes(error), self.is_probe),
            None => self.breaker.record_success(self.is_probe),
        }
    }
}

impl Drop for AdmittedCall<'_> {
    fn drop(&mut self) {
        if self.is_probe && !self.is_recorded {
            self.breaker.release_probe();
        }
    }
}

/// Returns the error of a result if it shows that the store does not work.
pub(super) fn failure_of<T>(result: &Result<T, StorageError>) -> Option<&StorageError> {
    result.as_ref().err().filter(|error| is_store_failure(error.kind))
}

/// Returns whether an error of this kind shows that the store does not work.
const fn is_store_failure(kind: StorageErrorKind) -> bool {
    matches!(kind, StorageErrorKind::Transient | StorageErrorKind::Unavailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: BreakerOptions = BreakerOptions {
        failures_max: 3,
        backoff_base: Duration::from_secs(10),
        backoff_max: Duration::from_secs(30),
    };

    fn result(kind: Option<StorageErrorKind>) -> Result<(), StorageError> {
        kind.map_or(Ok(()), |kind| Err(StorageError::new(kind, "delete object")))
    }

    fn call(breaker: &Breaker, kind: Option<StorageErrorKind>) {
        breaker.admit().unwrap().record(&result(kind));
    }

    fn open(breaker: &Breaker) {
        for _ in 0..OPTIONS.failures_max {
            call(breaker, Some(StorageErrorKind::Unavailable));
        }
        assert_eq!(breaker.status().state, BreakerState::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn opens_after_consecutive_failures_of_the_store() {
        let breaker = Breaker::new(OPTIONS);
        let (down, absent) = (Some(StorageErrorKind::Transient), Some(StorageErrorKind::NotFound));
        for kind in [down, down, None, down, down, absent, down, down] {
            call(&breaker, kind);
        }
        assert_eq!((breaker.status().state, breaker.status().failures), (BreakerState::Closed, 2));
        call(&breaker, down);
        let rejected = breaker.admit().unwrap_err();
        assert_eq!((rejected.failures, rejected.retry_after), (3, Duration::from_secs(10)));
        assert!(rejected.to_string().contains("delete object: temporary failure"), "{rejected}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_probe_at_a_time_closes_or_reopens() {
        let breaker = Breaker::new(OPTIONS);
        open(&breaker);
        for pause_seconds in [10, 20, 30, 30] {
            tokio::time::advance(Duration::from_secs(pause_seconds) - Duration::from_millis(1)).await;
            assert!(breaker.admit().is_err(), "the pause of {pause_seconds} s has not passed");
            tokio::time::advance(Duration::from_millis(1)).await;
            assert_eq!(breaker.status().state, BreakerState::HalfOpen);
            assert!(!breaker.rejects_calls());
            let probe = breaker.admit().unwrap();
            assert!(breaker.rejects_calls() && breaker.admit().is_err(), "a probe is on its way");
            probe.record(&result(Some(StorageErrorKind::Unavailable)));
            assert_eq!(breaker.status().state, BreakerState::Open);
        }
        tokio::time::advance(OPTIONS.backoff_max).await;
        call(&breaker, None);
        let closed = BreakerStatus { state: BreakerState::Closed, failures: 0, last_error: String::new() };
        assert_eq!(breaker.status(), closed);
    }

    #[tokio::test(start_paused = true)]
    async fn dropped_probe_may_be_repeated_at_once() {
        let breaker = Breaker::new(OPTIONS);
        open(&breaker);
        tokio::time::advance(OPTIONS.backoff_base).await;
        drop(breaker.admit().unwrap());
        call(&breaker, None);
        assert_eq!(breaker.status().state, BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn late_success_does_not_close_an_open_breaker() {
        let breaker = Breaker::new(OPTIONS);
        let late = breaker.admit().unwrap();
        open(&breaker);
        late.record(&result(None));
        assert_eq!(breaker.status().state, BreakerState::Open);
    }
}
