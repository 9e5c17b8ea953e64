//! Ends streams of messages whose clients do not read them.
//!
//! A stream is unread while the transport has a message of it that it cannot send. It asks for the next message
//! when it has sent that one, so a stream that has nothing to send, such as a watch without events, is not
//! unread.
//!
//! A stream that is unread for too long is dropped with everything that its call holds, such as its download or
//! watch, and its request does not count as in flight any more. The transport keeps its last messages until the
//! client reads them or resets the stream. They count as unread responses, which tenants and their callers share
//! fairly. Without space for them, the connection is closed; if it is one of a trusted proxy, the request
//! counts as in flight until the proxy resets the stream.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};
use tonic::{Status, body::Body};
use tracing::Instrument as _;

use super::{in_flight::RequestSlot, last_byte::split_last_byte, observed_body::PolledFrame, space::Space};
use crate::{
    admission::{Holder, Slot, peers::Peer},
    grpc::status,
};

const UNREAD: &str = "client did not read the stream within the idle limit of the server";

/// What is known of a call that responds with a stream.
pub(super) struct StreamCall {
    /// The time for which the client may read nothing.
    pub(super) idle_max: Duration,
    /// The space of unread responses.
    pub(super) space: Space,
    pub(super) holder: Option<Holder>,
    pub(super) slot: Option<RequestSlot>,
    /// The peer whose connection may be closed because of this call.
    pub(super) peer: Option<Peer>,
    pub(super) call_id: String,
}

impl StreamCall {
    /// Returns a body that ends when the client does not read it.
    pub(super) fn watch_body(self, body: Body) -> Body {
        if body.is_end_stream() {
            return body;
        }
        let (open, closed) = oneshot::channel();
        let stream = Arc::new(WatchedStream::new(body));
        let call_id = self.call_id.clone();
        tokio::spawn(self.watch_reading(Arc::clone(&stream), closed).in_current_span());
        Body::new(WatchedBody { stream, call_id, has_ended: false, _open: open })
    }

    /// Ends the stream when it is unread for too long. Returns when the body is closed.
    async fn watch_reading(self, stream: Arc<WatchedStream>, mut closed: oneshot::Receiver<()>) {
        loop {
            let taken = stream.state().take_if_unread(self.idle_max);
            let check_time = match taken {
                Ok(unread) => return self.end_stream(&stream, unread),
                Err(check_time) => check_time,
            };
            tokio::select! {
                _ = &mut closed => return,
                () = sleep_until(check_time) => {}
            }
        }
    }

    fn end_stream(self, stream: &WatchedStream, UnreadStream { body, sent_bytes }: UnreadStream) {
        drop(body);
        let space = self.space.try_take(self.holder, sent_bytes);
        tracing::debug!(unread_bytes = sent_bytes, has_space = space.is_some(), "ended unread stream");
        match (space, self.peer) {
            (Some(space), _) => {
                stream.state().space = Some(space);
                if let Some(slot) = self.slot {
                    slot.release();
                }
            }
            // This ends the call, and with it what it still holds.
            (None, Some(peer)) => peer.close(),
            (None, None) => {}
        }
    }
}

/// A stream that is sent.
struct WatchedStream(Mutex<StreamState>);

struct StreamState {
    /// `None` after the stream was dropped because the client did not read it.
    body: Option<Body>,
    /// Since when the transport has had a message, without asking for the next one.
    unread_since: Option<Instant>,
    /// The sizes of the last two messages: the transport may have sent one in part while it waits with the next.
    last_bytes: [usize; 2],
    /// The last byte of a message, which is sent next.
    last_byte: Option<Bytes>,
    /// The space of these messages after the stream was dropped.
    space: Option<Slot>,
}

/// A stream that its client did not read.
struct UnreadStream {
    body: Body,
    /// The bytes that the transport may still have.
    sent_bytes: usize,
}

impl WatchedStream {
    fn new(body: Body) -> Self {
        Self(Mutex::new(StreamState {
            body: Some(body),
            unread_since: None,
            last_bytes: [0; 2],
            last_byte: None,
            space: None,
        }))
    }

    fn state(&self) -> MutexGuard<'_, StreamState> {
        // Each statement leaves a valid value, so a poisoned lock is safe to use.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StreamState {
    /// Takes the stream if it has been unread for this long. Otherwise returns the time of the next check.
    fn take_if_unread(&mut self, idle_max: Duration) -> Result<UnreadStream, Instant> {
        let now = Instant::now();
        let check_time = self.unread_since.unwrap_or(now) + idle_max;
        if check_time > now {
            return Err(check_time);
        }
        let body = self.body.take().ok_or(now + idle_max)?;
        Ok(UnreadStream { body, sent_bytes: self.last_bytes.iter().sum() })
    }

    /// Passes the next frame of the stream on. Returns `None` if the stream was dropped.
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Option<PolledFrame> {
        let body = self.body.as_mut()?;
        self.unread_since = None;
        let polled = match self.last_byte.take() {
            Some(last_byte) => Poll::Ready(Some(Ok(Frame::data(last_byte)))),
            None => Pin::new(body).poll_frame(context).map_ok(|frame| match frame.into_data() {
                Ok(mut data) => {
                    self.last_bytes = [self.last_bytes[1], data.len()];
                    self.last_byte = split_last_byte(&mut data);
                    Frame::data(data)
                }
                Err(frame) => frame,
            }),
        };
        if matches!(&polled, Poll::Ready(Some(Ok(frame))) if frame.is_data()) {
            self.unread_since = Some(Instant::now());
        }
        Some(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.last_byte.is_none() && self.body.as_ref().is_some_and(HttpBody::is_end_stream)
    }
}

/// The body of a stream.
struct WatchedBody {
    stream: Arc<WatchedStream>,
    call_id: String,
    has_ended: bool,
    /// Ends the task that watches the stream.
    _open: oneshot::Sender<()>,
}

impl Drop for WatchedBody {
    /// Releases what the call holds now, not when the task ends.
    fn drop(&mut self) {
        let mut state = self.stream.state();
        let released = (state.body.take(), state.space.take());
        drop(state);
        drop(released);
    }
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let polled = self.stream.state().poll_frame(context);
        if let Some(polled) = polled {
            return polled;
        }
        self.has_ended = true;
        let mut trailers = HeaderMap::new();
        let status = status::deadline_exceeded(UNREAD, &self.call_id);
        let written = status.add_header(&mut trailers).map(|()| Frame::trailers(trailers));
        Poll::Ready(Some(written))
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.stream.state().is_end_stream()
    }
}

#[cfg(test)]
#[path = "unread_streams_tests.rs"]
mod tests;
