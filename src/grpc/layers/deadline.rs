//! Ends calls that take too long: at the deadline of the caller or of the method, whichever is sooner, and at
//! the end of a drain.
//!
//! tonic's own timeout covers only the time until the response headers are sent, which for a stream is its
//! beginning. This one covers the time until the last message.
//!
//! A message with a part of a file is large, so the time in which a slow client sends it does not count. It is limited
//! by its pace, as a stream of an upload is.

use std::{
    convert::Infallible,
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body};

use super::{
    Around, Inner, Next,
    observed_body::{BodyObserver, PolledFrame, observe, poll_inner},
};
use crate::{
    app::{
        Error,
        uploads::{PaceLimits, PaceMonitor, UploadError},
    },
    config::DeadlinesConfig,
    grpc::{arrivals::Arrivals, call::request_origin, message_limits::PART_METHOD, status},
};

const DEADLINE_PASSED: &str = "the deadline of this call has passed";

/// The maximum time by which a call ends before the caller's deadline. tonic enforces that deadline too, and
/// its error has no details.
const EARLY_END_MAX: Duration = Duration::from_millis(5);

/// How long watches continue after a drain begins, so that watchers are notified: the last message of a
/// health watch is NOT_SERVING.
const WATCH_GRACE: Duration = Duration::from_millis(500);

/// The two phases of a shutdown.
#[derive(Clone, Default)]
pub(in crate::grpc) struct Drain {
    /// Cancelled when the shutdown starts. Watches end then.
    pub(in crate::grpc) started: CancellationToken,
    /// Cancelled when the time for calls in flight has expired. All calls end then.
    pub(in crate::grpc) expired: CancellationToken,
}

/// Ends calls that take too long.
#[derive(Clone)]
pub(in crate::grpc) struct Deadline {
    pub(in crate::grpc) deadlines: DeadlinesConfig,
    /// The limits for the pace at which parts arrive.
    pub(in crate::grpc) part_pace: PaceLimits,
    pub(in crate::grpc) drain: Drain,
}

/// How a method ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// With one response, within this time.
    Unary(Duration),
    /// With one response, within this time after its message has arrived.
    Part(Duration),
    /// With one response, after the caller has sent everything. Limits on idle time, rate and quota apply.
    Upload,
    /// With its last message, within this time.
    Stream(Option<Duration>),
    /// Not by itself. It ends when the process shuts down.
    Watch,
}

impl Deadline {
    fn class(&self, path: &str) -> Class {
        match path {
            "/strongroom.v1.FileService/UploadFile" => Class::Upload,
            "/strongroom.v1.FileService/DownloadFile"
            | "/strongroom.v1.ShareService/DownloadShare"
            | "/strongroom.admin.v1.TenantService/ExportTenant" => Class::Stream(self.deadlines.download()),
            "/strongroom.v1.FileService/ListFiles" => Class::Unary(self.deadlines.list()),
            PART_METHOD => Class::Part(self.deadlines.unary()),
            "/strongroom.v1.EventService/WatchFiles"
            | "/strongroom.v1.ImportService/ImportFiles"
            | "/grpc.health.v1.Health/Watch"
            | "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
            | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => Class::Watch,
            _ => Class::Unary(self.deadlines.unary()),
        }
    }

    /// Returns a future that ends a call whose message arrives too slowly, or whose response takes longer than the
    /// limit after that.
    fn end_part(
        &self,
        message: ArrivingMessage,
        limit: Duration,
        call_id: String,
    ) -> BoxFuture<'static, Status> {
        let ArrivingMessage { arrivals, mut received } = message;
        let mut pace = PaceMonitor::new(self.part_pace);
        Box::pin(async move {
            let arrived = pace.wait(0, |context| (received.poll_unpin(context), arrivals.arrived()));
            if let Err(stall) = arrived.await {
                return status::status(&UploadError::Stalled(stall).into(), &call_id);
            }
            sleep(limit).await;
            status::deadline_exceeded(DEADLINE_PASSED, &call_id)
        })
    }

    /// Returns a future that ends the stream of a response, with the status to end it with.
    fn end(&self, class: Class, deadline: Option<Instant>, call_id: String) -> BoxFuture<'static, Status> {
        let drain = self.drain.clone();
        Box::pin(async move {
            let ended = async {
                match class {
                    Class::Watch => {
                        drain.started.cancelled().await;
                        sleep(WATCH_GRACE).await;
                    }
                    _ => drain.expired.cancelled().await,
                }
            };
            match within(deadline, ended).await {
                Some(()) => status::status(&Error::ShuttingDown, &call_id),
                None => status::deadline_exceeded(DEADLINE_PASSED, &call_id),
            }
        })
    }
}

impl Around for Deadline {
    async fn around<S: Inner>(&self, request: Request<Body>, next: Next<S>) -> Response<Body> {
        let class = self.class(request.uri().path());
        let method_limit = match class {
            Class::Unary(limit) => Some(limit),
            Class::Stream(limit) => limit,
            Class::Part(_) | Class::Upload | Class::Watch => None,
        };
        let limit = [method_limit, caller_timeout(request.headers())].into_iter().flatten().min();
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let call_id = request_origin(request.extensions()).call_id;
        let (request, ended) = match class {
            Class::Part(limit) => {
                let (request, message) = watch_arrival(request);
                (request, self.end_part(message, limit, call_id.clone()))
            }
            _ => (request, std::future::pending().boxed()),
        };
        let response = async {
            tokio::select! {
                // A response that is ready takes precedence over the end of the drain.
                biased;
                response = next.run(request) => response,
                () = self.drain.expired.cancelled() => status::status(&Error::ShuttingDown, &call_id).into_http(),
                ended = ended => ended.into_http(),
            }
        };
        let Some(response) = within(deadline, response).await else {
            return status::deadline_exceeded(DEADLINE_PASSED, &call_id).into_http();
        };
        match class {
            // The body is one message, which is ready.
            Class::Unary(_) | Class::Part(_) | Class::Upload => response,
            Class::Stream(_) | Class::Watch => {
                let end = self.end(class, deadline, call_id);
                response.map(|body| end_with(body, end))
            }
        }
    }
}

async fn within<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, work).await.ok(),
        None => Some(work.await),
    }
}

/// Parses the caller's `grpc-timeout`: at most eight digits and a unit. A malformed one is ignored, as in
/// other servers.
fn caller_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    let timeout = match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    };
    Some(timeout - EARLY_END_MAX.min(timeout / 10))
}

/// The message of a call, as it arrives.
struct ArrivingMessage {
    arrivals: Arrivals,
    /// Ready when the message is decoded: its body is dropped then.
    received: oneshot::Receiver<Infallible>,
}

/// Watches the arrival of the message of a request.
fn watch_arrival(request: Request<Body>) -> (Request<Body>, ArrivingMessage) {
    let (open, received) = oneshot::channel();
    let arrivals = Arrivals::default();
    let counter = ArrivalCounter { arrivals: arrivals.clone(), bytes: 0, _open: open };
    (request.map(|body| observe(body, counter)), ArrivingMessage { arrivals, received })
}

/// Counts the bytes of a body.
struct ArrivalCounter {
    arrivals: Arrivals,
    bytes: usize,
    _open: oneshot::Sender<Infallible>,
}

impl BodyObserver for ArrivalCounter {
    fn poll_frame(&mut self, body: &mut Body, context: &mut Context<'_>) -> PolledFrame {
        let polled = poll_inner(body, context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.bytes += data.len();
            self.arrivals.record(data.len(), self.bytes);
        }
        polled
    }
}

/// Ends a body early, with a status in its trailers, when a future is ready.
pub(super) fn end_with(body: Body, end: BoxFuture<'static, Status>) -> Body {
    observe(body, EarlyEnd(Some(end)))
}

/// The early end of a body; `None` after it.
struct EarlyEnd(Option<BoxFuture<'static, Status>>);

impl BodyObserver for EarlyEnd {
    fn poll_frame(&mut self, body: &mut Body, context: &mut Context<'_>) -> PolledFrame {
        let Some(end) = self.0.as_mut() else { return Poll::Ready(None) };
        if let Poll::Ready(status) = end.as_mut().poll(context) {
            // The inner stream is dropped now, not when the client has read the trailers.
            *body = Body::empty();
            self.0 = None;
            let mut trailers = HeaderMap::new();
            let written = status.add_header(&mut trailers).map(|()| Frame::trailers(trailers));
            return Poll::Ready(Some(written));
        }
        poll_inner(body, context)
    }

    fn size_hint(&self, _: &Body) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
#[path = "deadline_tests.rs"]
mod tests;
