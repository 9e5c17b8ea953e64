//! How long a request may take: the caller's deadline or the method's own, whichever is sooner.
//!
//! tonic's own timeout ends where the response headers begin, which for a stream is its beginning; this one
//! lasts to the last message.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body};

use super::{Around, Inner, Next};
use crate::{
    app::Error,
    config::DeadlinesConfig,
    grpc::{call::request_origin, status},
};

const TOO_LATE: &str = "the deadline of this call has passed";

/// By how much we are ahead of a caller's deadline, at most: tonic keeps it as well, and its answer says
/// less.
const HEAD_START_MAX: Duration = Duration::from_millis(5);

/// What is watched goes on for so long when the process begins to shut down, so that watchers still hear of
/// it: the last message of a health watch is NOT_SERVING.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Ends what takes too long.
#[derive(Clone)]
pub(in crate::grpc) struct Deadline {
    pub(in crate::grpc) deadlines: DeadlinesConfig,
    /// Cancelled when the process begins to shut down.
    pub(in crate::grpc) draining: CancellationToken,
}

/// How a method ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// With one answer, within this time.
    Answer(Duration),
    /// With one answer, when the caller is done: idle time, rate and quota bound it.
    Upload,
    /// With its last message, within this time.
    Stream(Option<Duration>),
    /// Never by itself: it ends with the process.
    Watch,
}

impl Deadline {
    fn class(&self, path: &str) -> Class {
        match path {
            "/strongroom.v1.FileService/UploadFile" => Class::Upload,
            "/strongroom.v1.FileService/DownloadFile" | "/strongroom.admin.v1.TenantService/ExportTenant" => {
                Class::Stream(self.deadlines.download())
            }
            "/strongroom.v1.FileService/ListFiles" => Class::Answer(self.deadlines.list()),
            "/strongroom.v1.EventService/WatchFiles"
            | "/strongroom.v1.ImportService/ImportFiles"
            | "/grpc.health.v1.Health/Watch"
            | "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
            | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => Class::Watch,
            _ => Class::Answer(self.deadlines.unary()),
        }
    }

    /// What ends the answer of such a method while it streams, besides its own end.
    fn end(
        &self,
        class: Class,
        deadline: Option<Instant>,
        request_id: String,
    ) -> Option<BoxFuture<'static, Status>> {
        let draining = self.draining.clone();
        match (class, deadline) {
            (Class::Stream(_), Some(deadline)) => Some(Box::pin(async move {
                sleep_until(deadline).await;
                status::deadline_exceeded(TOO_LATE, &request_id)
            })),
            (Class::Watch, deadline) => Some(Box::pin(async move {
                let ended = async {
                    draining.cancelled().await;
                    sleep(LAST_WORDS).await;
                };
                match within(deadline, ended).await {
                    Some(()) => status::status(&Error::ShuttingDown, &request_id),
                    None => status::deadline_exceeded(TOO_LATE, &request_id),
                }
            })),
            (Class::Stream(_), None) | (Class::Answer(_) | Class::Upload, _) => None,
        }
    }
}

impl Around for Deadline {
    async fn around<S: Inner>(&self, request: Request<Body>, next: Next<S>) -> Response<Body> {
        let class = self.class(request.uri().path());
        let own = match class {
            Class::Answer(limit) => Some(limit),
            Class::Stream(limit) => limit,
            Class::Upload | Class::Watch => None,
        };
        let limit = [own, callers(request.headers())].into_iter().flatten().min();
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let request_id = request_origin(request.extensions()).request_id;
        let Some(response) = within(deadline, next.run(request)).await else {
            return status::deadline_exceeded(TOO_LATE, &request_id).into_http();
        };
        match self.end(class, deadline, request_id) {
            Some(end) => response.map(|inner| Body::new(EndingBody { inner, end: Some(end) })),
            None => response,
        }
    }
}

async fn within<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, work).await.ok(),
        None => Some(work.await),
    }
}

/// The caller's `grpc-timeout`: at most eight digits and a unit. A malformed one is none, as in other
/// servers.
fn callers(headers: &HeaderMap) -> Option<Duration> {
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
    Some(timeout - HEAD_START_MAX.min(timeout / 10))
}

/// A body that can be ended from outside, with trailers that say why.
struct EndingBody {
    inner: Body,
    end: Option<BoxFuture<'static, Status>>,
}

impl HttpBody for EndingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(end) = self.end.as_mut() else { return Poll::Ready(None) };
        if let Poll::Ready(status) = end.as_mut().poll(context) {
            // What streams further in is dropped now, not when the client has read the trailers.
            self.inner = Body::empty();
            self.end = None;
            let mut trailers = HeaderMap::new();
            let written = status.add_header(&mut trailers).map(|()| Frame::trailers(trailers));
            return Poll::Ready(Some(written));
        }
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}

#[cfg(test)]
#[path = "deadline_tests.rs"]
mod tests;
