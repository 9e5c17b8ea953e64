//! Limits the memory of responses that clients have not read yet, for methods with one response. Those with a stream
//! of messages end when their clients do not read it: see `unread_streams`.
//!
//! The transport buffers a whole message for a client that does not read it. So a large response is sent in
//! small pieces, and the rest is kept here: under a budget, for as long as the client makes progress, and not
//! longer than a deadline. Tenants and their callers share the budget fairly.
//!
//! A response that is dropped, and a small one, leaves one piece in the transport, and its request counts as in
//! flight (see `last_byte`): the transport cannot end a stream while it waits for its client. So if the client
//! reads nothing for the same time again, its connection is closed. A trusted proxy keeps its connection, which is
//! that of many clients; it resets idle streams itself.
//!
//! If the share of a caller has no space, a read is rejected and can be retried: a response that waits would
//! take memory too. A response of a method with side effects is always sent: it is one record, and its effect
//! cannot be undone.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use http::{Extensions, HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt as _;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until},
};
use tonic::{Status, body::Body};
use tracing::Instrument as _;

use super::{
    Around, Inner, Next,
    in_flight::RequestSlot,
    last_byte::split_last_byte,
    space::{Space, SpaceLimits},
    unread_streams::StreamCall,
};
use crate::{
    admission::{Holder, ShareStatus, Slot, peers::Peer},
    app::{Error, Workload},
    config::Config,
    domain::address_range::AddressRange,
    grpc::{
        call::request_origin,
        connections::PeerInfo,
        methods::{self, Responses},
        status,
        visitor::VisitorPlace,
    },
};

/// Responses up to this size are sent at once, and larger ones in pieces of this size. It is part of the
/// memory of a request.
const PIECE_BYTES: usize = 64 * 1024;

/// The streams whose clients may pause for a time of their own.
const DOWNLOADS: [&str; 2] =
    ["/strongroom.v1.FileService/DownloadFile", "/strongroom.v1.ShareService/DownloadShare"];

/// The largest page of records.
const LARGEST_BYTES: usize = 4 * 1024 * 1024;

const UNREAD: &str = "client did not read the response within the limits of the server";

/// Limits the memory of unread responses. Inside `Admit`, which determines the holder.
#[derive(Clone)]
pub(in crate::grpc) struct UnreadResponses {
    space: Space,
    times: ReadTimes,
    trusted: Arc<[AddressRange]>,
}

/// The times in which a client must read a response.
#[derive(Debug, Clone, Copy)]
struct ReadTimes {
    /// The time in which it must make progress.
    idle_max: Duration,
    /// The time in which it must read all of it.
    write_max: Duration,
    /// The time in which it must make progress with a stream of messages that are not a download.
    stream_idle_max: Duration,
    /// The time in which it must make progress with a download.
    download_idle_max: Duration,
}

impl UnreadResponses {
    pub(in crate::grpc) fn new(config: &Config) -> Self {
        let server = &config.server;
        let limits = SpaceLimits {
            bytes_max: server.unread_responses_max_bytes,
            largest_bytes: LARGEST_BYTES,
            // An operator can list what there is while members read nothing.
            reserved_bytes: LARGEST_BYTES,
        };
        let times = ReadTimes {
            idle_max: server.response_idle_timeout(),
            write_max: server.response_write_timeout(),
            stream_idle_max: server.stream_idle_timeout(),
            download_idle_max: config.downloads.idle_timeout(),
        };
        Self { space: Space::new(limits), times, trusted: server.trusted_proxies.clone().into() }
    }

    /// Returns how callers share the space.
    pub(in crate::grpc) fn status(&self) -> ShareStatus {
        self.space.status()
    }

    /// Returns the peer of a connection that may be closed because of one request.
    fn closable_peer(&self, extensions: &Extensions) -> Option<Peer> {
        let PeerInfo { tcp, peer } = extensions.get::<PeerInfo>()?;
        let address = tcp.remote_addr()?.ip();
        let is_trusted = self.trusted.iter().any(|range| range.contains(address));
        (!is_trusted).then(|| peer.clone())
    }

    async fn run_stream<S: Inner>(&self, request: Request<Body>, next: Next<S>) -> Response<Body> {
        let extensions = request.extensions();
        let visitor = extensions.get::<VisitorPlace>().cloned();
        let mut call = StreamCall {
            idle_max: match request.uri().path() {
                path if DOWNLOADS.contains(&path) => self.times.download_idle_max,
                _ => self.times.stream_idle_max,
            },
            space: self.space.clone(),
            holder: extensions.get::<Holder>().copied(),
            slot: extensions.get::<RequestSlot>().cloned(),
            peer: self.closable_peer(extensions),
            call_id: request_origin(extensions).call_id,
        };
        let response = next.run(request).await;
        // The holder is known only after the secret was verified.
        call.holder = call.holder.or_else(|| visitor?.holder.get().copied());
        response.map(|body| call.watch_body(body))
    }
}

impl Around for UnreadResponses {
    async fn around<S: Inner>(&self, request: Request<Body>, next: Next<S>) -> Response<Body> {
        let is_read = match methods::responses(request.uri().path()) {
            Some(Responses::One { is_read }) => is_read,
            Some(Responses::Stream | Responses::WhileReceiving) => {
                return self.run_stream(request, next).await;
            }
            None => return next.run(request).await,
        };
        let extensions = request.extensions();
        let call_id = request_origin(extensions).call_id;
        let holder = extensions.get::<Holder>().copied();
        let peer = self.closable_peer(extensions);
        let (head, body) = next.run(request).await.into_parts();
        // The message is ready, so this does not wait.
        let collected = match body.collect().await {
            Ok(collected) => collected,
            Err(status) => return status.into_http(),
        };
        let (trailers, data) = (collected.trailers().cloned(), collected.to_bytes());
        if data.is_empty() && trailers.is_none() {
            return Response::from_parts(head, Body::empty());
        }
        let is_large = data.len() > PIECE_BYTES;
        let space = if is_large { self.space.try_take(holder, data.len()) } else { None };
        if is_large && is_read && space.is_none() {
            return status::status(&Error::Overloaded(Workload::Responses), &call_id).into_http();
        }
        let unread = Arc::new(Unread {
            content: Mutex::new(Some(Content { data, trailers, _space: space })),
            sent_count: AtomicU64::new(0),
        });
        let (open, closed) = oneshot::channel();
        tokio::spawn(watch_reading(Arc::clone(&unread), closed, self.times, peer).in_current_span());
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
    _space: Option<Slot>,
}

impl Unread {
    /// Ends when the client has made no progress for too long, or at the deadline of the response.
    async fn stalls(&self, ReadTimes { idle_max, write_max, .. }: ReadTimes) {
        let deadline = Instant::now() + write_max;
        let mut seen = 0;
        loop {
            let check = (Instant::now() + idle_max).min(deadline);
            sleep_until(check).await;
            let sent = self.sent_count.load(Ordering::Relaxed);
            if sent == seen || check == deadline {
                return;
            }
            seen = sent;
        }
    }

    fn content(&self) -> MutexGuard<'_, Option<Content>> {
        // Each statement leaves a valid value, so a poisoned lock is safe to use.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drops a response whose client does not read it, and closes the connection if the client does not even read
/// the error. Ends when the body is closed.
async fn watch_reading(
    unread: Arc<Unread>,
    mut closed: oneshot::Receiver<()>,
    times: ReadTimes,
    peer: Option<Peer>,
) {
    tokio::select! {
        _ = &mut closed => return,
        () = unread.stalls(times) => {}
    }
    if let Some(content) = unread.content().take() {
        tracing::debug!(unread_bytes = content.data.len(), "dropped response that was not read");
    }
    tokio::select! {
        _ = &mut closed => return,
        () = sleep(times.idle_max) => {}
    }
    if let Some(peer) = peer {
        tracing::debug!("closed connection whose client reads nothing");
        peer.close();
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
        *self.unread.content() = None;
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
        let mut content = unread.content();
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
        let is_first = unread.sent_count.fetch_add(1, Ordering::Relaxed) == 0;
        let length = rest.data.len().min(PIECE_BYTES);
        let mut piece = if is_first && length == rest.data.len() {
            std::mem::take(&mut rest.data)
        } else {
            // A copy: a slice would keep the whole response in memory while the transport has the piece.
            let copy = Bytes::copy_from_slice(&rest.data[..length]);
            rest.data.advance(length);
            copy
        };
        if rest.data.is_empty()
            && let Some(last_byte) = split_last_byte(&mut piece)
        {
            rest.data = last_byte;
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended
    }
}

#[cfg(test)]
#[path = "unread_responses_tests.rs"]
mod tests;
