//! The stream of a download: the header, then the bytes in chunks.
//!
//! A task reads from the store and waits for the client, with few chunks between them. It ends when
//! everything is sent, when the client goes away, and when the client takes nothing for too long; then it
//! also throws away the chunks that wait, because the transport never asks for them again.

use std::{
    ops::ControlFlow,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, stream::BoxStream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};
use tonic::Status;
use tracing::Instrument;

use super::{convert, status};
use crate::{
    app::{Error, files::download::Download},
    config::DownloadsConfig,
    domain::caller::Origin,
    proto::v1::DownloadFileResponse,
    telemetry::Metrics,
};

/// Sends downloads.
pub(super) struct Downloads {
    config: DownloadsConfig,
    slots: Arc<Semaphore>,
    metrics: Metrics,
}

/// The right to one download. Held until its last chunk is on its way.
pub(super) struct Slot {
    _permit: OwnedSemaphorePermit,
}

impl Downloads {
    pub(super) fn new(config: DownloadsConfig, metrics: Metrics) -> Self {
        Self { slots: Arc::new(Semaphore::new(config.streams_max)), config, metrics }
    }

    /// Room for one more download, or at once an answer that says to come again.
    pub(super) fn slot(&self, origin: &Origin) -> Result<Slot, Status> {
        let permit = Arc::clone(&self.slots).try_acquire_owned();
        permit
            .map(|permit| Slot { _permit: permit })
            .map_err(|_| status::status(&Error::Overloaded("downloads"), &origin.call_id))
    }

    /// Begins to send.
    pub(super) fn send(&self, slot: Slot, download: Download, origin: &Origin) -> DownloadStream {
        let header = convert::download::header(&download);
        let (chunks, queue) = mpsc::channel(self.config.chunks_in_flight_max);
        let queue = Arc::new(Mutex::new(queue));
        let (ended, end) = oneshot::channel();
        let pump = Pump {
            bytes: download.bytes,
            offset: download.range.start,
            end: download.range.end,
            chunks,
            chunk_size_bytes: self.config.chunk_size_bytes,
            idle_timeout: self.config.idle_timeout(),
            metrics: self.metrics.clone(),
        };
        let (call_id, waiting) = (origin.call_id.clone(), Arc::clone(&queue));
        let work = async move {
            let outcome = match pump.run().await {
                Ok(()) => Ok(()),
                Err(Stop::Failed(error)) => Err(status::status(&error, &call_id)),
                Err(Stop::Idle) => {
                    discard(&waiting);
                    let why = "the client took nothing for longer than a download may pause";
                    Err(status::deadline_exceeded(why, &call_id))
                }
            };
            drop(slot);
            // Nobody waits for it where the client has gone.
            drop(ended.send(outcome));
        };
        tokio::spawn(work.in_current_span());
        DownloadStream { header: Some(header), queue, end: Some(end), call_id: origin.call_id.clone() }
    }
}

type Queue = Arc<Mutex<mpsc::Receiver<DownloadFileResponse>>>;

fn discard(queue: &Queue) {
    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    queue.close();
    while queue.try_recv().is_ok() {}
}

/// Why a download stopped before its end.
enum Stop {
    /// It failed.
    Failed(Error),
    /// The client took nothing for too long.
    Idle,
}

/// Moves bytes from the store to the client.
struct Pump {
    bytes: BoxStream<'static, Result<Bytes, Error>>,
    offset: u64,
    end: u64,
    chunks: mpsc::Sender<DownloadFileResponse>,
    chunk_size_bytes: usize,
    idle_timeout: Duration,
    metrics: Metrics,
}

impl Pump {
    async fn run(mut self) -> Result<(), Stop> {
        loop {
            let next = tokio::select! {
                // The client has gone, also while the store is slow: nothing more to do.
                () = self.chunks.closed() => return Ok(()),
                next = self.bytes.next() => next,
            };
            let Some(piece) = next else { break };
            if self.send(piece.map_err(Stop::Failed)?).await?.is_break() {
                return Ok(());
            }
        }
        // The client counts as well, but an end without an error must mean that everything was sent.
        if self.offset == self.end { Ok(()) } else { Err(Stop::Failed(Error::ObjectDamaged)) }
    }

    /// Sends a piece in chunks; breaks where the client has gone.
    async fn send(&mut self, mut piece: Bytes) -> Result<ControlFlow<()>, Stop> {
        while !piece.is_empty() {
            let data = piece.split_to(piece.len().min(self.chunk_size_bytes));
            let length = data.len() as u64;
            if length > self.end.saturating_sub(self.offset) {
                return Err(Stop::Failed(Error::ObjectDamaged));
            }
            let room = timeout(self.idle_timeout, self.chunks.reserve()).await.map_err(|_| Stop::Idle)?;
            let Ok(room) = room else { return Ok(ControlFlow::Break(())) };
            room.send(convert::download::chunk(self.offset, data));
            self.offset += length;
            self.metrics.downloaded_bytes(length);
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// What tonic sends to the client.
pub(super) struct DownloadStream {
    header: Option<DownloadFileResponse>,
    queue: Queue,
    /// How the download ended; taken when it was told.
    end: Option<oneshot::Receiver<Result<(), Status>>>,
    call_id: String,
}

impl Drop for DownloadStream {
    /// The client has gone, or has everything. The task shares the queue, so that only closing it tells the
    /// task.
    fn drop(&mut self) {
        discard(&self.queue);
    }
}

impl Stream for DownloadStream {
    type Item = Result<DownloadFileResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(header) = self.header.take() {
            return Poll::Ready(Some(Ok(header)));
        }
        let chunk = self.queue.lock().unwrap_or_else(PoisonError::into_inner).poll_recv(context);
        if let Some(chunk) = ready!(chunk) {
            return Poll::Ready(Some(Ok(chunk)));
        }
        let Some(end) = self.end.as_mut() else { return Poll::Ready(None) };
        let told = ready!(end.poll_unpin(context));
        self.end = None;
        match told {
            Ok(Ok(())) => Poll::Ready(None),
            Ok(Err(status)) => Poll::Ready(Some(Err(status))),
            // The task is gone without a word: it panicked. An end without an error would pass for a whole
            // file.
            Err(_) => Poll::Ready(Some(Err(status::internal(&self.call_id)))),
        }
    }
}

#[cfg(test)]
#[path = "downloads_tests.rs"]
mod tests;
