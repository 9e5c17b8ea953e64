//! The pace at which a client must send. It is judged by the bytes as they arrive and not by whole messages,
//! because a large message of a slow client takes long.

use std::{
    future::poll_fn,
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt};
use tokio::time::{Instant, sleep_until};

use crate::{
    app::{
        Error,
        uploads::{Stall, UploadError, UploadMessage},
    },
    config::UploadsConfig,
};

/// The bytes of a stream of messages that have arrived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arrived {
    /// The bytes of all messages, with their framing.
    pub total_bytes: u64,
    /// The bytes of the message that is not complete.
    pub incomplete_bytes: u64,
}

/// The messages of an upload after its spec.
pub trait UploadStream: Stream<Item = UploadMessage> + Send + Unpin {
    /// Returns the bytes that have arrived. By default none: each message arrives at once.
    fn arrived(&self) -> Arrived {
        Arrived::default()
    }
}

impl<S: UploadStream> UploadStream for &mut S {
    fn arrived(&self) -> Arrived {
        (**self).arrived()
    }
}

/// Messages that are complete before the upload starts.
impl<I: Iterator<Item = UploadMessage> + Send> UploadStream for futures::stream::Iter<I> {}

/// The limits for the pace of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaceLimits {
    /// The time without any byte after which the client has stalled.
    pub idle: Duration,
    /// The length of the windows in which the rate is measured.
    pub window: Duration,
    /// The minimum rate in each window; 0 disables it.
    pub rate_min_bytes_per_second: u64,
}

impl PaceLimits {
    /// Returns the limits for the messages after the first one.
    pub fn of_upload(config: &UploadsConfig) -> Self {
        let rate_min_bytes_per_second = config.rate_min_bytes_per_second;
        Self { idle: config.idle_timeout(), window: config.rate_grace(), rate_min_bytes_per_second }
    }

    /// Returns the limits for the first message, which usually arrives in one piece.
    pub fn of_first_message(config: &UploadsConfig) -> Self {
        let time = config.first_message_timeout();
        Self { idle: time, window: time, ..Self::of_upload(config) }
    }
}

/// Measures the pace of a client. Only time spent waiting for the client counts, in windows: fast bytes at the
/// start do not compensate for a slow rest, and waiting for our own byte budget is not the client's fault.
pub struct PaceMonitor {
    limits: PaceLimits,
    /// The time that was spent waiting in the current window.
    waited: Duration,
    window_start_bytes: u64,
}

impl PaceMonitor {
    /// Creates a monitor at the start of its first window.
    pub fn new(limits: PaceLimits) -> Self {
        Self { limits, waited: Duration::ZERO, window_start_bytes: 0 }
    }

    /// Returns the next message. `complete_bytes` is the data of all complete messages so far.
    ///
    /// # Errors
    /// Returns `Stalled` if the client is too slow; see [`Self::wait`].
    pub(super) async fn next_message<S: UploadStream>(
        &mut self,
        messages: &mut S,
        complete_bytes: u64,
    ) -> Result<Option<UploadMessage>, Error> {
        let next =
            self.wait(complete_bytes, |context| (messages.poll_next_unpin(context), messages.arrived()));
        next.await.map_err(|stall| UploadError::Stalled(stall).into())
    }

    /// Waits until `poll` is ready. It also returns what has arrived so far. `complete_bytes` is the data of all
    /// complete messages so far.
    ///
    /// # Errors
    /// Returns `Idle` if no byte arrives within the idle time, and `Slow` if the rate of a window is below the
    /// minimum.
    pub async fn wait<T>(
        &mut self,
        complete_bytes: u64,
        mut poll: impl FnMut(&mut Context<'_>) -> (Poll<T>, Arrived),
    ) -> Result<T, Stall> {
        let mut since = Instant::now();
        let mut idle_end = since + self.limits.idle;
        let mut total_bytes = None;
        // It is never reset to an earlier time, because both ends only move forward.
        let mut timer = pin!(sleep_until(idle_end.min(self.window_end(since))));
        poll_fn(|context| {
            let (polled, arrived) = poll(context);
            if let Poll::Ready(ready) = polled {
                self.waited += since.elapsed();
                return Poll::Ready(Ok(ready));
            }
            let before = total_bytes.replace(arrived.total_bytes);
            if before.is_some_and(|before| before != arrived.total_bytes) {
                idle_end = Instant::now() + self.limits.idle;
            }
            while timer.as_mut().poll(context).is_ready() {
                let now = Instant::now();
                if now >= idle_end {
                    return Poll::Ready(Err(Stall::Idle(self.limits.idle)));
                }
                if now >= self.window_end(since) {
                    self.waited += now - since;
                    since = now;
                    self.end_window(complete_bytes + arrived.incomplete_bytes)?;
                }
                timer.as_mut().reset(idle_end.min(self.window_end(since)));
            }
            Poll::Pending
        })
        .await
    }

    /// Returns the end of the current window, if the client is waited for since this time.
    fn window_end(&self, since: Instant) -> Instant {
        since + self.limits.window.saturating_sub(self.waited)
    }

    /// Checks the rate of the current window, and starts the next one.
    fn end_window(&mut self, bytes: u64) -> Result<(), Stall> {
        let rate_min_bytes_per_second = self.limits.rate_min_bytes_per_second;
        let seconds = self.waited.as_secs();
        let received_bytes = bytes.saturating_sub(self.window_start_bytes);
        if received_bytes < rate_min_bytes_per_second.saturating_mul(seconds) {
            return Err(Stall::Slow { received_bytes, seconds, rate_min_bytes_per_second });
        }
        (self.waited, self.window_start_bytes) = (Duration::ZERO, bytes);
        Ok(())
    }
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
