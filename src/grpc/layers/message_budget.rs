//! Limits the memory for messages that are being received.
//!
//! tonic allocates a whole message as soon as it has read its length, and fills it as the client sends. This body
//! parses the gRPC framing (a flag, a length, the message) and takes the length from a shared budget before it passes
//! the first bytes of the message on. The sum of all messages in memory is bounded by `uploads.decode_permits`
//! messages of the largest size, whatever the number of clients. A message that finds no space waits, and flow control
//! stops its client. The wait is short, because messages that do have space may arrive slowly.
//!
//! The budget counts bytes, not messages, so that slow clients with small chunks take little of it. A caller that
//! begins a message and then sends nothing is ended by the idle timeout of uploads or by its deadline.
//!
//! A compressed message takes the size that it may have after decompression.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tonic::{Status, body::Body};

use super::{Around, Inner, Next};
use crate::{
    app::Error,
    grpc::{
        call::request_origin,
        message_limits::MessageLimits,
        status::{self, TransportError},
    },
};

/// Messages up to this size take nothing from the budget: most arrive in one piece.
const SMALL_BYTES: usize = 16 * 1024;

/// The unit of the budget, so that it fits a semaphore.
const UNIT_BYTES: usize = 1024;

/// How long a message waits for space before its stream is refused.
const SPACE_WAIT_MAX: Duration = Duration::from_secs(5);

/// The flag and the length before each message.
const PREFIX_BYTES: usize = 5;

/// DEFLATE expands one byte to at most this many.
const EXPANSION_MAX: usize = 1032;

/// Limits the memory of messages that are received and not decoded yet.
#[derive(Clone)]
pub(in crate::grpc) struct MessageBudget {
    space: Arc<Semaphore>,
    limits: MessageLimits,
}

impl MessageBudget {
    /// Has space for this number of file messages of the largest size, and at least for one part.
    pub(in crate::grpc) fn new(messages_max: usize, limits: MessageLimits) -> Self {
        let bytes = messages_max.saturating_mul(limits.file_message_bytes_max).max(limits.bytes_max());
        let units = bytes.div_ceil(UNIT_BYTES).min(Semaphore::MAX_PERMITS);
        Self { space: Arc::new(Semaphore::new(units)), limits }
    }
}

impl Around for MessageBudget {
    async fn around<S: Inner>(&self, request: Request<Body>, next: Next<S>) -> Response<Body> {
        let path = request.uri().path();
        let rules = Rules {
            bytes_max: self.limits.for_method(path),
            decompressed_bytes_max: self.limits.after_decompression(path),
            call_id: request_origin(request.extensions()).call_id,
        };
        let space = Arc::clone(&self.space);
        next.run(request.map(|inner| Body::new(BudgetedBody::new(inner, space, rules)))).await
    }
}

/// What applies to the messages of one call.
struct Rules {
    bytes_max: usize,
    decompressed_bytes_max: usize,
    call_id: String,
}

impl Rules {
    /// The units that a message takes from the budget. A small one takes none.
    fn units(&self, message: Message) -> Option<u32> {
        let bytes = match message.is_compressed {
            true => message
                .length
                .saturating_mul(EXPANSION_MAX)
                .min(self.decompressed_bytes_max)
                .max(message.length),
            false => message.length,
        };
        (bytes > SMALL_BYTES).then(|| u32::try_from(bytes.div_ceil(UNIT_BYTES)).ok()).flatten()
    }
}

struct BudgetedBody {
    inner: Body,
    space: Arc<Semaphore>,
    rules: Rules,
    framing: Framing,
    /// The space of the message that is being received.
    permit: Option<OwnedSemaphorePermit>,
    /// Bytes that wait for space.
    waiting: Option<(Bytes, BoxFuture<'static, Option<OwnedSemaphorePermit>>)>,
}

impl BudgetedBody {
    fn new(inner: Body, space: Arc<Semaphore>, rules: Rules) -> Self {
        Self { inner, space, rules, framing: Framing::default(), permit: None, waiting: None }
    }

    /// Passes bytes on, or keeps them if they begin a message that must wait for space. Refuses a message that is
    /// too large before any space is taken for it.
    fn pass(&mut self, data: Bytes) -> Result<Option<Bytes>, Status> {
        let Followed { length_max, change } = self.framing.follow(&data);
        let limit_bytes = self.rules.bytes_max;
        if length_max > limit_bytes {
            let error = TransportError::MessageTooLarge { size_bytes: Some(length_max), limit_bytes };
            return Err(status::transport(&error, &self.rules.call_id));
        }
        let units = match change {
            Change::None => return Ok(Some(data)),
            Change::Released => None,
            Change::Begun(message) => self.rules.units(message),
        };
        // The space of the message before is released before more is acquired, so that no call holds space while it
        // waits.
        self.permit = None;
        let Some(units) = units else { return Ok(Some(data)) };
        match Arc::clone(&self.space).try_acquire_many_owned(units) {
            Ok(permit) => self.permit = Some(permit),
            Err(_) => {
                let space = Arc::clone(&self.space).acquire_many_owned(units);
                // The semaphore is never closed.
                let in_time = async { timeout(SPACE_WAIT_MAX, space).await.ok()?.ok() };
                self.waiting = Some((data, Box::pin(in_time)));
                return Ok(None);
            }
        }
        Ok(Some(data))
    }
}

impl HttpBody for BudgetedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if let Some((_, space)) = &mut this.waiting {
                this.permit = ready!(space.as_mut().poll(context));
            }
            if let Some((data, _)) = this.waiting.take() {
                return Poll::Ready(Some(match this.permit {
                    Some(_) => Ok(Frame::data(data)),
                    None => Err(status::status(&Error::Overloaded("messages"), &this.rules.call_id)),
                }));
            }
            match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => match this.pass(data) {
                        Ok(Some(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                        Ok(None) => {}
                        Err(too_large) => return Poll::Ready(Some(Err(too_large))),
                    },
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => {
                    this.permit = None;
                    return Poll::Ready(end);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.inner.is_end_stream()
    }
}

/// A message whose prefix was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Message {
    length: usize,
    is_compressed: bool,
}

/// A change of the memory that a call needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Change {
    #[default]
    None,
    /// The message is complete, and its space can be released.
    Released,
    /// A message begins that needs space.
    Begun(Message),
}

/// The result of following some bytes.
#[derive(Debug, Default)]
struct Followed {
    /// The length of the longest message that begins in the bytes.
    length_max: usize,
    change: Change,
}

/// The position in the framing of a stream of bytes.
#[derive(Debug, Default)]
struct Framing {
    prefix: [u8; PREFIX_BYTES],
    prefix_length: usize,
    /// The number of bytes of the message that are still to arrive.
    missing: usize,
    /// Whether that message is compressed.
    is_compressed: bool,
}

impl Framing {
    fn follow(&mut self, data: &[u8]) -> Followed {
        let mut rest = data;
        let mut followed = Followed::default();
        while !rest.is_empty() {
            if self.missing > 0 {
                let taken = self.missing.min(rest.len());
                self.missing -= taken;
                rest = &rest[taken..];
                // A compressed message keeps its space until it is decoded, which follows its last byte.
                if self.missing == 0 && !self.is_compressed {
                    followed.change = Change::Released;
                }
                continue;
            }
            self.prefix[self.prefix_length] = rest[0];
            self.prefix_length += 1;
            rest = &rest[1..];
            if self.prefix_length == PREFIX_BYTES {
                let [flag, length @ ..] = self.prefix;
                self.missing = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                self.is_compressed = flag != 0;
                self.prefix_length = 0;
                if self.missing > 0 {
                    let message = Message { length: self.missing, is_compressed: self.is_compressed };
                    followed.length_max = followed.length_max.max(message.length);
                    followed.change = Change::Begun(message);
                }
            }
        }
        followed
    }
}

#[cfg(test)]
#[path = "message_budget_tests.rs"]
mod tests;
