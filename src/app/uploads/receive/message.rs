//! The messages of an upload after its spec, and the pace at which they must arrive.

use std::{any::Any, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::time::Instant;

use crate::app::{
    App, Error,
    uploads::{Stall, UploadError, UploadStreamOrder},
};

/// A message of an upload stream after its spec.
#[derive(Debug)]
pub enum UploadMessage {
    /// A chunk of the file.
    Chunk {
        /// The offset in the file, in bytes.
        offset: i64,
        data: Bytes,
        /// The CRC32C of `data`, if the client sent it.
        crc32c: Option<u32>,
    },
    /// The end of the file.
    Finish {
        /// The size of the file.
        size_bytes: i64,
        /// The SHA-256 of the file, if the client sent it.
        sha256: Option<Vec<u8>>,
    },
    /// A message that is not allowed here.
    OutOfOrder(UploadStreamOrder),
}

/// A part of an upload as received.
#[derive(Debug)]
pub struct PartMessage {
    /// The offset in the file, in bytes.
    pub offset: i64,
    pub data: Bytes,
    /// The CRC32C of `data`, if the client sent it.
    pub crc32c: Option<u32>,
    /// Holds the memory of `data` in the budget of decoded messages. Dropped when the budget of the buffers
    /// counts it.
    pub held: Option<Box<dyn Any + Send>>,
}

/// The client's request to complete an upload.
#[derive(Debug)]
pub struct Completion {
    /// The size of the file. Optional for a direct upload, whose size was declared.
    pub size_bytes: Option<i64>,
    /// The raw SHA-256 of the file.
    pub sha256: Option<Vec<u8>>,
    /// The parts of a direct upload.
    pub parts: Vec<CompletedPart>,
}

/// A part of a direct upload, as the client names it. Neither field is checked.
#[derive(Debug)]
pub struct CompletedPart {
    pub number: i32,
    /// The etag that the store returned for the part.
    pub etag: String,
}

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
    /// Returns `Stalled` if no message arrives within the idle timeout, or if the rate is below the
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
