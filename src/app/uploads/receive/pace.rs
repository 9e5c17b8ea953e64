//! Ends uploads that stall or are too slow.

use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::time::Instant;

use super::message::UploadMessage;
use crate::app::{
    App, Error,
    uploads::{Stall, UploadError},
};

/// Measures the pace of a client. Only time spent waiting for the client counts, in windows of the grace
/// period: fast bytes at the start do not compensate for a slow rest, and waiting for our own byte budget is
/// not the client's fault.
pub(super) struct PaceMonitor<'a> {
    app: &'a App,
    waited: Duration,
    window_start_bytes: u64,
}

impl<'a> PaceMonitor<'a> {
    pub(super) fn new(app: &'a App) -> Self {
        Self { app, waited: Duration::ZERO, window_start_bytes: 0 }
    }

    /// Returns the next message. `received_bytes` is the number of bytes that the stream has received so far.
    ///
    /// # Errors
    /// Returns `UploadStalled` if no message arrives within the idle timeout, or if the rate is below the
    /// minimum.
    pub(super) async fn next_message<S>(
        &mut self,
        messages: &mut S,
        received_bytes: u64,
    ) -> Result<Option<UploadMessage>, Error>
    where
        S: Stream<Item = UploadMessage> + Send + Unpin,
    {
        let limits = &self.app.limits.uploads;
        let idle = limits.idle_timeout();
        let start = Instant::now();
        let next = tokio::time::timeout(idle, messages.next())
            .await
            .map_err(|_| UploadError::Stalled(Stall::Idle(idle)))?;
        self.waited += start.elapsed();
        if self.waited >= limits.rate_grace() {
            let rate_min_bytes_per_second = limits.rate_min_bytes_per_second;
            let (window_bytes, seconds) = (received_bytes - self.window_start_bytes, self.waited.as_secs());
            if window_bytes < rate_min_bytes_per_second.saturating_mul(seconds) {
                let stall = Stall::Slow { received_bytes: window_bytes, seconds, rate_min_bytes_per_second };
                return Err(UploadError::Stalled(stall).into());
            }
            (self.waited, self.window_start_bytes) = (Duration::ZERO, received_bytes);
        }
        Ok(next)
    }
}
