//! Limits the memory of responses that clients have not read yet, for methods with one response.
//!
//! The transport buffers a whole message for a client that does not read it. So a large response is sent in
//! small pieces, and the rest is kept here: under a budget, for as long as the client makes progress, and not
//! longer than a deadline. A response that is dropped leaves one piece in the transport; its request counts
//! as in flight until the client resets the stream.
//!
//! If the budget has no space, a read is rejected and can be retried: a response that waits would take memory
//! too. A response of a method with side effects is always sent: it is one record, and its effect cannot be
//! undone.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, sleep_until},
};
use tonic::{Status, body::Body};
use tracing::Instrument as _;

use super::{Around, Inner, Next};
use crate::{
    app::{Error, Workload},
    config::ServerConfig,
    grpc::{
        call::request_origin,
        methods::{self, Responses},
        status,
    },
};

/// Responses up to this size are sent at once, and larger ones in pieces of this size. It is part of the
/// memory of a request.
const PIECE_BYTES: usize = 64 * 1024;

/// The unit of the budget, so that it fits a semaphore.
const UNIT_BYTES: usize = 1024;

const UNREAD: &str = "client did not read the response within the limits of the server";

/// Limits the memory of unread responses.
#[derive(Clone)]
pub(in crate::grpc) struct UnreadResponses {
    space: Arc<Semaphore>,
    bytes_max: usize,
    idle_max: Duration,
    write_max: Duration,
}

impl UnreadResponses {
    pub(in crate::grpc) fn new(config: &ServerConfig) -> Self {
        let bytes_max = config.unread_responses_max_bytes;
        Self {
            space: Arc::new(Semaphore::new((bytes_max / UNIT_BYTES).min(Semaphore::MAX_PERMITS))),
            bytes_max,
            idle_max: config.response_idle_timeout(),
            write_max: config.response_write_timeout(),
        }
    }

    /// Acquires space for a response, if there is any.
    fn try_acquire(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        // A response that is larger than the whole budget takes all of it.
        let units = u32::try_from(bytes.min(self.bytes_max) / UNIT_BYTES).unwrap_or(u32::MAX);
        Arc::clone(&self.space).try_acquire_many_owned(units).ok()
    }
}

impl Around for UnreadResponses {
    async fn around<S: Inner>(&self, request: Request<Body>, next: Next<S>) -> Response<Body> {
        let call_id = request_origin(request.extensions()).call_id;
        let responses = methods::responses(request.uri().path());
        let response = next.run(request).await;
        let Some(Responses::One { is_read }) = responses else { return response };
        let (head, body) = response.into_parts();
        // The message is ready, so this does not wait.
        let collected = match body.collect().await {
            Ok(collected) => collected,
            Err(status) => return status.into_http(),
        };
        let (trailers, data) = (collected.trailers().cloned(), collected.to_bytes());
        if data.len() <= PIECE_BYTES {
            return Response::from_parts(head, Body::new(WholeBody { data, trailers }));
        }
        let permit = self.try_acquire(data.len());
        if permit.is_none() && is_read {
            return status::status(&Error::Overloaded(Workload::Responses), &call_id).into_http();
        }
        let unread = Arc::new(Unread {
            content: Mutex::new(Some(Content { data, trailers, _permit: permit })),
            sent_count: AtomicU64::new(0),
        });
        let (open, closed) = oneshot::channel();
        let task = drop_if_unread(Arc::clone(&unread), closed, self.idle_max, self.write_max);
        tokio::spawn(task.in_current_span());
        Response::from_parts(head, Body::new(PiecesBody { unread, call_id, has_ended: false, _open: open }))
    }
}

/// A response that was not read completely.
struct Unread {
    /// `None` after it was sent or dropped.
    content: Mutex<Option<Content>>,
    /// The number of pieces that the transport has taken.
    sent_count: AtomicU64,
}

struct Content {
    data: Bytes,
    trailers: Option<HeaderMap>,
    _permit: Option<OwnedSemaphorePermit>,
}

/// Drops a response when its client makes no progress, or at its deadline. Ends when the body is closed.
async fn drop_if_unread(
    unread: Arc<Unread>,
    mut closed: oneshot::Receiver<()>,
    idle_max: Duration,
    write_max: Duration,
) {
    let deadline = Instant::now() + write_max;
    let mut seen = 0;
    loop {
        let check = (Instant::now() + idle_max).min(deadline);
        tokio::select! {
            _ = &mut closed => return,
            () = sleep_until(check) => {}
        }
        let sent = unread.sent_count.load(Ordering::Relaxed);
        if sent == seen || check == deadline {
            let dropped = unread.content.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(content) = dropped {
                tracing::debug!(unread_bytes = content.data.len(), "dropped response that was not read");
            }
            return;
        }
        seen = sent;
    }
}

/// A response that is sent in pieces.
struct PiecesBody {
    unread: Arc<Unread>,
    call_id: String,
    has_ended: bool,
    /// Ends the task that watches the response.
    _open: oneshot::Sender<()>,
}

impl Drop for PiecesBody {
    /// Releases the memory now, not when the task ends.
    fn drop(&mut self) {
        *self.unread.content.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl HttpBody for PiecesBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let unread = Arc::clone(&self.unread);
        let mut content = unread.content.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(rest) = content.as_mut() else {
            self.has_ended = true;
            let mut trailers = HeaderMap::new();
            let status = status::deadline_exceeded(UNREAD, &self.call_id);
            let written = status.add_header(&mut trailers).map(|()| Frame::trailers(trailers));
            return Poll::Ready(Some(written));
        };
        if rest.data.is_empty() {
            self.has_ended = true;
            return Poll::Ready(content.take().and_then(|sent| sent.trailers).map(Frame::trailers).map(Ok));
        }
        let length = rest.data.len().min(PIECE_BYTES);
        // A copy: a slice would keep the whole response in memory while the transport has the piece.
        let piece = Bytes::copy_from_slice(&rest.data[..length]);
        rest.data.advance(length);
        unread.sent_count.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

/// A response that is sent at once.
struct WholeBody {
    data: Bytes,
    trailers: Option<HeaderMap>,
}

impl HttpBody for WholeBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.data.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.data)))));
        }
        Poll::Ready(self.trailers.take().map(Frame::trailers).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.len() as u64)
    }
}

#[cfg(test)]
#[path = "unread_responses_tests.rs"]
mod tests;
