//! Ends uploads that stand still or drip.

use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::time::Instant;

use super::message::UploadMessage;
use crate::app::{App, Error, Stall};

/// Only time spent waiting for the client counts, in windows of the grace period: what came fast at first does not pay for
/// dripping later, and waiting for our own budget is nobody's fault.
pub(super) struct Pace<'a> {
    app: &'a App,
    waited: Duration,
    window_began_bytes: u64,
}

impl<'a> Pace<'a> {
    pub(super) fn new(app: &'a App) -> Self {
        Self { app, waited: Duration::ZERO, window_began_bytes: 0 }
    }

    /// The next message, of a stream that has brought so many bytes.
    pub(super) async fn next<S>(
        &mut self,
        messages: &mut S,
        received_bytes: u64,
    ) -> Result<Option<UploadMessage>, Error>
    where
        S: Stream<Item = UploadMessage> + Send + Unpin,
    {
        let limits = &self.app.limits.uploads;
        let idle = limits.idle_timeout();
        let asked = Instant::now();
        let next = tokio::time::timeout(idle, messages.next())
            .await
            .map_err(|_| Error::UploadStalled(Stall::Idle(idle)))?;
        self.waited += asked.elapsed();
        if self.waited >= limits.rate_grace() {
            let rate = limits.rate_min_bytes_per_second;
            if received_bytes - self.window_began_bytes < rate.saturating_mul(self.waited.as_secs()) {
                return Err(Error::UploadStalled(Stall::Slow(rate)));
            }
            (self.waited, self.window_began_bytes) = (Duration::ZERO, received_bytes);
        }
        Ok(next)
    }
}
