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
//! their callers share it fairly. A message that arrives more slowly than `uploads.rate_min_bytes_per_second`,
//! measured over `server.message_seconds`, is ended as soon as another message waits for space. A large message may
//! take longer than that time, as long as its bytes arrive.
//!
//! The bytes of a call with a stream of messages are counted for its adapter ([`Arrivals`]), which judges the pace of
//! uploads by them.
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
use http_body::{Body as _, Frame};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tonic::{Status, body::Body};

use super::{
    Around, Inner, Next,
    observed_body::{BodyObserver, PolledFrame, observe, poll_inner},
};
use crate::{
    admission::{Acquisition, Holder, ShareLimits, ShareStatus, Shares, Slot},
    app::{Error, Workload, uploads::bytes_per_second},
    config::Config,
    grpc::{
        arrivals::Arrivals,
        call::request_origin,
        message_limits::{MessageLimits, is_stream_of_requests},
        status::{self, TransportError},
    },
};

/// Messages up to this size reserve no space: most arrive in one piece.
const SMALL_BYTES: usize = 16 * 1024;

/// The unit of the budget, so that it fits a semaphore.
const UNIT_BYTES: usize = 1024;

/// The time that a message waits for space before its stream is rejected.
const SPACE_WAIT_MAX: Duration = Duration::from_secs(5);

/// How often a slow message is checked again: several times while another one waits for space.
const SLOW_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The flag and the length before each message.
const PREFIX_BYTES: usize = 5;

/// DEFLATE expands one byte to at most this many.
const EXPANSION_MAX: usize = 1032;

/// Limits the memory of messages that are received and not decoded yet.
#[derive(Clone)]
pub(in crate::grpc) struct MessageBudget {
    space: Arc<Shares>,
    limits: MessageLimits,
    arrival: ArrivalLimits,
}

/// How slowly a message may arrive while others wait for its space.
#[derive(Debug, Clone, Copy)]
pub(in crate::grpc) struct ArrivalLimits {
    /// The time over which the rate is measured.
    window: Duration,
    /// The minimum rate, at least 1.
    rate_min_bytes_per_second: u64,
}

impl ArrivalLimits {
    pub(in crate::grpc) fn new(config: &Config) -> Self {
        Self {
            window: config.server.message_window(),
            rate_min_bytes_per_second: config.uploads.rate_min_bytes_per_second.max(1),
        }
    }
}

impl MessageBudget {
    /// Creates a budget with space for this number of file messages of the largest size, and for at least one
    /// part.
    pub(in crate::grpc) fn new(messages_max: usize, limits: MessageLimits, arrival: ArrivalLimits) -> Self {
        let bytes = messages_max.saturating_mul(limits.file_message_bytes_max).max(limits.bytes_max());
        let units = bytes.div_ceil(UNIT_BYTES);
        let largest = limits.bytes_max().div_ceil(UNIT_BYTES);
        // The messages of operators are small. Every caller must be able to send one message of any size.
        let reserved = MessageLimits::SMALL_BYTES_MAX.div_ceil(UNIT_BYTES).min(units - largest);
        let shares = ShareLimits { rounding: largest, ..ShareLimits::weighted(units) }.with_reserve(reserved);
        Self { space: Shares::new(shares), limits, arrival }
    }

    /// Returns how callers share the space.
    pub(in crate::grpc) fn status(&self) -> ShareStatus {
        self.space.status()
    }
}

impl Around for MessageBudget {
    async fn around<S: Inner>(&self, mut request: Request<Body>, next: Next<S>) -> Response<Body> {
        let path = request.uri().path();
        let arrivals = is_stream_of_requests(path).then(Arrivals::default);
        let rules = Rules {
            bytes_max: self.limits.for_method(path),
            decompressed_bytes_max: self.limits.after_decompression(path),
            arrival: self.arrival,
            holder: request.extensions().get::<Holder>().copied(),
            call_id: request_origin(request.extensions()).call_id,
        };
        let mut messages = BudgetedMessages::new(Arc::clone(&self.space), rules);
        if let Some(arrivals) = arrivals {
            messages.arrivals = Some(arrivals.clone());
            request.extensions_mut().insert(arrivals);
        }
        next.run(request.map(|body| observe(body, messages))).await
    }
}

/// The limits for the messages of one call.
struct Rules {
    bytes_max: usize,
    decompressed_bytes_max: usize,
    arrival: ArrivalLimits,
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

/// The messages of one call.
struct BudgetedMessages {
    space: Arc<Shares>,
    rules: Rules,
    framing: Framing,
    /// Counts the bytes of a call with a stream of messages.
    arrivals: Option<Arrivals>,
    /// The space of the message that is being received.
    permit: Option<Slot>,
    /// The time over which the rate of that message is measured. Set while there is a permit.
    window: Window,
    /// When that rate is checked.
    check: Pin<Box<Sleep>>,
    /// Bytes that wait for space.
    waiting: Option<(Bytes, BoxFuture<'static, Option<Slot>>)>,
}

/// A time over which the rate of a message is measured.
#[derive(Debug, Clone, Copy)]
struct Window {
    start: Instant,
    /// The bytes of the message that had arrived at its start.
    start_bytes: usize,
}

impl BudgetedMessages {
    fn new(space: Arc<Shares>, rules: Rules) -> Self {
        Self {
            space,
            rules,
            framing: Framing::default(),
            arrivals: None,
            permit: None,
            window: Window { start: Instant::now(), start_bytes: 0 },
            check: Box::pin(sleep(Duration::ZERO)),
            waiting: None,
        }
    }

    /// Holds the space of a message from now on.
    fn hold(&mut self, permit: Option<Slot>) {
        if permit.is_some() {
            self.start_window();
        }
        self.permit = permit;
    }

    fn start_window(&mut self) {
        let start = Instant::now();
        self.window = Window { start, start_bytes: self.framing.incomplete_bytes() };
        self.check.as_mut().reset(start + self.rules.arrival.window);
    }

    /// Returns the error for a message that arrives too slowly and whose space others wait for.
    fn check_rate(&mut self, context: &mut Context<'_>) -> Option<Status> {
        if self.permit.is_none() || self.framing.missing == 0 {
            return None;
        }
        while self.check.as_mut().poll(context).is_ready() {
            let seconds = self.window.start.elapsed().as_secs();
            let bytes = self.framing.incomplete_bytes().saturating_sub(self.window.start_bytes) as u64;
            let rate_min = self.rules.arrival.rate_min_bytes_per_second;
            if bytes >= rate_min.saturating_mul(seconds) {
                self.start_window();
            } else if self.space.status().waiting > 0 {
                self.permit = None;
                let rate = bytes_per_second(bytes, seconds);
                let message = format!(
                    "message arrived at {rate} bytes per second for {seconds} s; the minimum is {rate_min} bytes per \
                     second while others wait for its space; send smaller messages"
                );
                return Some(status::deadline_exceeded(message, &self.rules.call_id));
            } else {
                self.check.as_mut().reset(Instant::now() + SLOW_CHECK_INTERVAL);
            }
        }
        None
    }

    /// Forwards bytes, or holds them if they start a message that must wait for space. Refuses a message that
    /// is too large before any space is reserved for it.
    fn forward(&mut self, data: Bytes) -> Result<Option<Bytes>, Status> {
        let Scan { length_max, change } = self.framing.scan(&data);
        if let Some(arrivals) = &self.arrivals {
            arrivals.record(data.len(), self.framing.incomplete_bytes());
        }
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

impl BodyObserver for BudgetedMessages {
    fn poll_frame(&mut self, body: &mut Body, context: &mut Context<'_>) -> PolledFrame {
        loop {
            if let Some((_, space)) = &mut self.waiting {
                let permit = ready!(space.as_mut().poll(context));
                self.hold(permit);
            }
            if let Some((data, _)) = self.waiting.take() {
                return Poll::Ready(Some(match self.permit {
                    Some(_) => Ok(Frame::data(data)),
                    None => Err(status::status(&Error::Overloaded(Workload::Messages), &self.rules.call_id)),
                }));
            }
            let polled = poll_inner(body, context);
            if polled.is_pending()
                && let Some(too_slow) = self.check_rate(context)
            {
                return Poll::Ready(Some(Err(too_slow)));
            }
            match ready!(polled) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => match self.forward(data) {
                        Ok(Some(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                        Ok(None) => {}
                        Err(too_large) => return Poll::Ready(Some(Err(too_large))),
                    },
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => {
                    self.permit = None;
                    return Poll::Ready(end);
                }
            }
        }
    }

    fn is_end_stream(&self, body: &Body) -> bool {
        self.waiting.is_none() && body.is_end_stream()
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
    /// The length of the current message.
    length: usize,
    /// The number of bytes of the message that have not arrived yet.
    missing: usize,
    /// Whether that message is compressed.
    is_compressed: bool,
}

impl Framing {
    /// Returns the number of bytes of the current message that have arrived, if it is not complete.
    fn incomplete_bytes(&self) -> usize {
        if self.missing > 0 { self.length - self.missing } else { 0 }
    }

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
                self.length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                self.missing = self.length;
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
