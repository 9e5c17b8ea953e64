//! Limits the memory for messages that are being received.
//!
//! tonic allocates a whole message as soon as it has read its length, and fills it as the client sends data.
//! This body parses the gRPC framing (a flag, a length, the message) and reserves the length in a shared
//! budget before it forwards the first bytes of the message. The sum of all messages in memory is bounded by
//! `uploads.decode_permits` messages of the largest size, whatever the number of clients. If the budget has
//! no space, the message waits, and flow control stops the client. The wait is limited, because the messages
//! that hold the space may arrive slowly.
//!
//! The budget counts bytes, not messages, so that slow clients with small chunks use little of it. Tenants and
//! their callers share it fairly. A call that starts a message and does not complete it within
//! `server.message_seconds` is ended as soon as another message waits for space: a slow client harms nobody else.
//!
//! A compressed message reserves the size that it may have after decompression.

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
use tokio::time::{Instant, Sleep, sleep, timeout};
use tonic::{Status, body::Body};

use super::{Around, Inner, Next};
use crate::{
    admission::{Acquisition, Holder, ShareLimits, ShareStatus, Shares, Slot},
    app::{Error, Workload},
    grpc::{
        call::request_origin,
        message_limits::MessageLimits,
        status::{self, TransportError},
    },
};

/// Messages up to this size reserve no space: most arrive in one piece.
const SMALL_BYTES: usize = 16 * 1024;

/// The unit of the budget, so that it fits a semaphore.
const UNIT_BYTES: usize = 1024;

/// The time that a message waits for space before its stream is rejected.
const SPACE_WAIT_MAX: Duration = Duration::from_secs(5);

/// How often a late message is checked again: several times while another one waits for space.
const LATE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The flag and the length before each message.
const PREFIX_BYTES: usize = 5;

/// DEFLATE expands one byte to at most this many.
const EXPANSION_MAX: usize = 1032;

/// Limits the memory of messages that are received and not decoded yet.
#[derive(Clone)]
pub(in crate::grpc) struct MessageBudget {
    space: Arc<Shares>,
    limits: MessageLimits,
    arrival_max: Duration,
}

impl MessageBudget {
    /// Creates a budget with space for this number of file messages of the largest size, and for at least one
    /// part.
    /// A message must arrive completely within `arrival_max` if others wait for its space.
    pub(in crate::grpc) fn new(messages_max: usize, limits: MessageLimits, arrival_max: Duration) -> Self {
        let bytes = messages_max.saturating_mul(limits.file_message_bytes_max).max(limits.bytes_max());
        let units = bytes.div_ceil(UNIT_BYTES);
        let largest = limits.bytes_max().div_ceil(UNIT_BYTES);
        // The messages of operators are small. Every caller must be able to send one message of any size.
        let reserved = MessageLimits::SMALL_BYTES_MAX.div_ceil(UNIT_BYTES).min(units - largest);
        let shares = ShareLimits { rounding: largest, ..ShareLimits::weighted(units) }.with_reserve(reserved);
        Self { space: Shares::new(shares), limits, arrival_max }
    }

    /// Returns how callers share the space.
    pub(in crate::grpc) fn status(&self) -> ShareStatus {
        self.space.status()
    }
}

impl Around for MessageBudget {
    async fn around<S: Inner>(&self, request: Request<Body>, next: Next<S>) -> Response<Body> {
        let path = request.uri().path();
        let rules = Rules {
            bytes_max: self.limits.for_method(path),
            decompressed_bytes_max: self.limits.after_decompression(path),
            arrival_max: self.arrival_max,
            holder: request.extensions().get::<Holder>().copied(),
            call_id: request_origin(request.extensions()).call_id,
        };
        let space = Arc::clone(&self.space);
        next.run(request.map(|inner| Body::new(BudgetedBody::new(inner, space, rules)))).await
    }
}

/// The limits for the messages of one call.
struct Rules {
    bytes_max: usize,
    decompressed_bytes_max: usize,
    arrival_max: Duration,
    /// The holder of the space. Anonymous callers take none: all of their messages are small.
    holder: Option<Holder>,
    call_id: String,
}

impl Rules {
    /// Returns the units that a message reserves in the budget. A small message reserves none.
    fn units(&self, message: Message) -> Option<usize> {
        let bytes = match message.is_compressed {
            true => message
                .length
                .saturating_mul(EXPANSION_MAX)
                .min(self.decompressed_bytes_max)
                .max(message.length),
            false => message.length,
        };
        (bytes > SMALL_BYTES).then(|| bytes.div_ceil(UNIT_BYTES))
    }
}

struct BudgetedBody {
    inner: Body,
    space: Arc<Shares>,
    rules: Rules,
    framing: Framing,
    /// The space of the message that is being received.
    permit: Option<Slot>,
    /// When that message must have arrived completely, or is checked again. Set while there is a permit.
    arrival: Pin<Box<Sleep>>,
    /// Bytes that wait for space.
    waiting: Option<(Bytes, BoxFuture<'static, Option<Slot>>)>,
}

impl BudgetedBody {
    fn new(inner: Body, space: Arc<Shares>, rules: Rules) -> Self {
        let arrival = Box::pin(sleep(Duration::ZERO));
        Self { inner, space, rules, framing: Framing::default(), permit: None, arrival, waiting: None }
    }

    /// Holds the space of a message from now on.
    fn hold(&mut self, permit: Option<Slot>) {
        if permit.is_some() {
            let until = Instant::now() + self.rules.arrival_max;
            self.arrival.as_mut().reset(until);
        }
        self.permit = permit;
    }

    /// Returns the error for a message that did not arrive in time and whose space others wait for.
    fn check_arrival(&mut self, context: &mut Context<'_>) -> Option<Status> {
        if self.permit.is_none() || self.framing.missing == 0 {
            return None;
        }
        while self.arrival.as_mut().poll(context).is_ready() {
            if self.space.status().waiting > 0 {
                self.permit = None;
                let seconds = self.rules.arrival_max.as_secs();
                let message =
                    format!("message did not arrive completely within {seconds} s; send smaller messages");
                return Some(status::deadline_exceeded(message, &self.rules.call_id));
            }
            self.arrival.as_mut().reset(Instant::now() + LATE_CHECK_INTERVAL);
        }
        None
    }

    /// Forwards bytes, or holds them if they start a message that must wait for space. Refuses a message that
    /// is too large before any space is reserved for it.
    fn forward(&mut self, data: Bytes) -> Result<Option<Bytes>, Status> {
        let Scan { length_max, change } = self.framing.scan(&data);
        let limit_bytes = self.rules.bytes_max;
        if length_max > limit_bytes {
            let error = TransportError::MessageTooLarge { size_bytes: Some(length_max), limit_bytes };
            return Err(status::transport(&error, &self.rules.call_id));
        }
        let units = match change {
            Change::None => return Ok(Some(data)),
            Change::Release => None,
            Change::Acquire(message) => self.rules.units(message),
        };
        // The space of the previous message is released before more is acquired, so that no call holds space
        // while it waits.
        self.permit = None;
        let Some(units) = units else { return Ok(Some(data)) };
        let Some(holder) = self.rules.holder else {
            return Err(status::status(&Error::Overloaded(Workload::Messages), &self.rules.call_id));
        };
        match self.space.acquire_or_queue(holder, units) {
            Acquisition::Granted(permit) => {
                self.hold(Some(permit));
                Ok(Some(data))
            }
            Acquisition::Waiting(mut waiter) => {
                let in_time = async move { timeout(SPACE_WAIT_MAX, waiter.granted()).await.ok() };
                self.waiting = Some((data, Box::pin(in_time)));
                Ok(None)
            }
        }
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
                let permit = ready!(space.as_mut().poll(context));
                this.hold(permit);
            }
            if let Some((data, _)) = this.waiting.take() {
                return Poll::Ready(Some(match this.permit {
                    Some(_) => Ok(Frame::data(data)),
                    None => Err(status::status(&Error::Overloaded(Workload::Messages), &this.rules.call_id)),
                }));
            }
            let polled = Pin::new(&mut this.inner).poll_frame(context);
            if polled.is_pending()
                && let Some(late) = this.check_arrival(context)
            {
                return Poll::Ready(Some(Err(late)));
            }
            match ready!(polled) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => match this.forward(data) {
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

/// A change in the memory that a call needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Change {
    #[default]
    None,
    /// The message is complete, and its space can be released.
    Release,
    /// A message starts, and needs space.
    Acquire(Message),
}

/// The result of scanning some bytes.
#[derive(Debug, Default)]
struct Scan {
    /// The length of the longest message that starts in the bytes.
    length_max: usize,
    change: Change,
}

/// The position in the framing of a stream of bytes.
#[derive(Debug, Default)]
struct Framing {
    prefix: [u8; PREFIX_BYTES],
    prefix_length: usize,
    /// The number of bytes of the message that have not arrived yet.
    missing: usize,
    /// Whether that message is compressed.
    is_compressed: bool,
}

impl Framing {
    fn scan(&mut self, data: &[u8]) -> Scan {
        let mut rest = data;
        let mut scan = Scan::default();
        while !rest.is_empty() {
            if self.missing > 0 {
                let taken = self.missing.min(rest.len());
                self.missing -= taken;
                rest = &rest[taken..];
                // A compressed message keeps its space until it is decoded, which happens after its last byte
                // arrives.
                if self.missing == 0 && !self.is_compressed {
                    scan.change = Change::Release;
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
                    scan.length_max = scan.length_max.max(message.length);
                    scan.change = Change::Acquire(message);
                }
            }
        }
        scan
    }
}

#[cfg(test)]
#[path = "message_budget_tests.rs"]
mod tests;
