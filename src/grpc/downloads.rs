//! The stream of a download: the header, then the bytes in chunks.
//!
//! A task reads from the store and sends chunks through a short queue. It ends when all bytes are sent, when
//! the client disconnects, or when the client receives nothing for the idle timeout. After an idle timeout it
//! also discards the queued chunks, because the transport does not poll the stream again.

use std::{
    ops::{ControlFlow, Range},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt, stream::BoxStream};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tonic::Status;
use tracing::Instrument;

use super::{convert, status};
use crate::{
    admission::{Holder, ShareLimits, Shares, Slot},
    app::{Error, Workload, files::DownloadPiece},
    config::DownloadsConfig,
    domain::caller::{Caller, Origin},
    proto::v1::DownloadChunk,
    telemetry::Metrics,
};

/// The bytes of a download.
pub(super) struct StreamedBytes {
    /// The range of the bytes in their file.
    pub(super) range: Range<u64>,
    /// Exactly the bytes of the range, or an error.
    pub(super) bytes: BoxStream<'static, Result<DownloadPiece, Error>>,
}

/// Starts downloads, limits their number, and shares it fairly. Cheap to clone.
#[derive(Clone)]
pub(super) struct Downloads {
    config: DownloadsConfig,
    slots: Arc<Shares>,
    metrics: Metrics,
}

impl Downloads {
    pub(super) fn new(config: DownloadsConfig, metrics: Metrics) -> Self {
        let slots = Shares::new(ShareLimits::slots(config.streams_max));
        let observed = Arc::clone(&slots);
        metrics.observe_shares("downloads", move || observed.status().into());
        Self { slots, config, metrics }
    }

    /// Acquires a slot without waiting. Returns OVERLOADED if all slots, or those of the caller's share, are in
    /// use. The slot is held until the last chunk is in the queue.
    pub(super) fn acquire_slot(&self, caller: &Caller) -> Result<Slot, Status> {
        let slot = self.acquire_slot_of(Holder::of_caller(caller));
        slot.map_err(|error| status::status(&error, &caller.origin.call_id))
    }

    /// Acquires a slot for a holder, as [`Self::acquire_slot`] does.
    pub(super) fn acquire_slot_of(&self, holder: Holder) -> Result<Slot, Error> {
        self.slots.try_acquire(holder, 1).map_err(|_| Error::Overloaded(Workload::Downloads))
    }

    /// Starts the task that sends a download, and returns the stream of its messages. `header` is the first.
    pub(super) fn start_sending<M: From<DownloadChunk> + Send + 'static>(
        &self,
        slot: Slot,
        header: M,
        download: StreamedBytes,
        origin: &Origin,
    ) -> DownloadStream<M> {
        let (chunks, queue) = mpsc::channel(self.config.chunks_in_flight_max);
        let queue = Arc::new(Mutex::new(queue));
        let (outcome_sender, outcome_receiver) = oneshot::channel();
        let sender = ChunkSender {
            bytes: download.bytes,
            offset: download.range.start,
            end_offset: download.range.end,
            chunks,
            chunk_size_bytes: self.config.chunk_size_bytes,
            idle_timeout: self.config.idle_timeout(),
            metrics: self.metrics.clone(),
        };
        let (call_id, task_queue) = (origin.call_id.clone(), Arc::clone(&queue));
        let task = async move {
            let outcome = match sender.send_all().await {
                Ok(()) => Ok(()),
                Err(Stop::Failed(error)) => Err(status::status(&error, &call_id)),
                Err(Stop::Idle) => {
                    discard_chunks(&task_queue);
                    let message = "client received nothing for longer than the idle timeout of downloads";
                    Err(status::deadline_exceeded(message, &call_id))
                }
            };
            drop(slot);
            // The receiver is gone if the client has disconnected.
            drop(outcome_sender.send(outcome));
        };
        tokio::spawn(task.in_current_span());
        DownloadStream {
            header: Some(header),
            queue,
            outcome: Some(outcome_receiver),
            call_id: origin.call_id.clone(),
        }
    }
}

type Queue<M> = Arc<Mutex<mpsc::Receiver<M>>>;

fn discard_chunks<M>(queue: &Queue<M>) {
    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    queue.close();
    while queue.try_recv().is_ok() {}
}

/// The reason why a download stopped before its end.
enum Stop {
    Failed(Error),
    /// The client received nothing for the idle timeout.
    Idle,
}

/// Reads bytes from the store and sends them to the queue in chunks.
struct ChunkSender<M> {
    bytes: BoxStream<'static, Result<DownloadPiece, Error>>,
    offset: u64,
    end_offset: u64,
    chunks: mpsc::Sender<M>,
    chunk_size_bytes: usize,
    idle_timeout: Duration,
    metrics: Metrics,
}

impl<M: From<DownloadChunk> + Send> ChunkSender<M> {
    async fn send_all(mut self) -> Result<(), Stop> {
        loop {
            let next = tokio::select! {
                // The client has disconnected. This is also detected while the store is slow.
                () = self.chunks.closed() => return Ok(()),
                next = self.bytes.next() => next,
            };
            let Some(piece) = next else { break };
            if self.send_piece(piece.map_err(Stop::Failed)?).await?.is_break() {
                return Ok(());
            }
        }
        // The client counts the bytes too, but an end without an error must mean that all bytes were sent.
        if self.offset == self.end_offset { Ok(()) } else { Err(Stop::Failed(Error::ObjectDamaged)) }
    }

    /// Sends a piece in chunks. Returns `Break` if the client has disconnected.
    async fn send_piece(&mut self, piece: DownloadPiece) -> Result<ControlFlow<()>, Stop> {
        let DownloadPiece { data: mut rest, crc32c } = piece;
        let crc32c = crc32c.filter(|_| rest.len() <= self.chunk_size_bytes);
        while !rest.is_empty() {
            let data = rest.split_to(rest.len().min(self.chunk_size_bytes));
            let length = data.len() as u64;
            if length > self.end_offset.saturating_sub(self.offset) {
                return Err(Stop::Failed(Error::ObjectDamaged));
            }
            let permit = timeout(self.idle_timeout, self.chunks.reserve()).await.map_err(|_| Stop::Idle)?;
            let Ok(permit) = permit else { return Ok(ControlFlow::Break(())) };
            let chunk = convert::download::chunk_to_proto(self.offset, DownloadPiece { data, crc32c });
            permit.send(chunk.into());
            self.offset += length;
            self.metrics.add_downloaded_bytes(length);
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// The messages of a download.
pub(super) struct DownloadStream<M> {
    header: Option<M>,
    queue: Queue<M>,
    /// The outcome of the download. `None` once it was returned.
    outcome: Option<oneshot::Receiver<Result<(), Status>>>,
    call_id: String,
}

impl<M> Drop for DownloadStream<M> {
    /// Closes the queue, which ends the task: the client has disconnected or has received everything.
    /// Dropping the receiver is not enough, because the task shares it.
    fn drop(&mut self) {
        discard_chunks(&self.queue);
    }
}

impl<M: Unpin> Stream for DownloadStream<M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(header) = self.header.take() {
            return Poll::Ready(Some(Ok(header)));
        }
        let chunk = self.queue.lock().unwrap_or_else(PoisonError::into_inner).poll_recv(context);
        if let Some(chunk) = ready!(chunk) {
            return Poll::Ready(Some(Ok(chunk)));
        }
        let Some(receiver) = self.outcome.as_mut() else { return Poll::Ready(None) };
        let outcome = ready!(receiver.poll_unpin(context));
        self.outcome = None;
        match outcome {
            Ok(Ok(())) => Poll::Ready(None),
            Ok(Err(status)) => Poll::Ready(Some(Err(status))),
            // The task panicked. Without an error, the client would treat the file as complete.
            Err(_) => Poll::Ready(Some(Err(status::internal(&self.call_id)))),
        }
    }
}

#[cfg(test)]
#[path = "downloads_tests.rs"]
mod tests;
