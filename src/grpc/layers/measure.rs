//! Counts requests and measures their duration, under the code that they end with.

use std::task::{Context, Poll};

use http::{HeaderMap, Request, Response};
use tonic::{Code, Status, body::Body};

use super::{
    Around, Inner, Next,
    observed_body::{BodyObserver, PolledFrame, observe, poll_inner},
};
use crate::{
    grpc::auth::access::method_name,
    telemetry::{Metrics, metrics::RequestTimer},
};

/// Counts requests by method and status, and measures their duration.
#[derive(Clone)]
pub(in crate::grpc) struct Measure(pub(in crate::grpc) Metrics);

impl Around for Measure {
    async fn around<S: Inner>(&self, request: Request<Body>, next: Next<S>) -> Response<Body> {
        let mut measure = self.0.start_request(method_name(request.uri().path()));
        let response = next.run(request).await;
        // A status in the headers is the whole response. Otherwise it follows the last message.
        if set_code(&mut measure, response.headers()) {
            return response;
        }
        response.map(|body| observe(body, measure))
    }
}

impl BodyObserver for RequestTimer {
    fn poll_frame(&mut self, body: &mut Body, context: &mut Context<'_>) -> PolledFrame {
        let polled = poll_inner(body, context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    set_code(self, trailers);
                }
            }
            Poll::Ready(Some(Err(status))) => self.set_code(code_name(status.code())),
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }
}

fn set_code(measure: &mut RequestTimer, headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(Status::GRPC_STATUS) else { return false };
    measure.set_code(code_name(Code::from_bytes(value.as_bytes())));
    true
}

const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use http_body::Frame;
    use http_body_util::BodyExt;

    use super::*;
    use crate::grpc::layers::testing::{call, request};

    const PATH: &str = "/strongroom.v1.FileService/GetFile";

    fn counted(metrics: &Metrics, code: &str, method: &str) -> bool {
        let line = format!("strongroom_requests_total{{code=\"{code}\",method=\"{method}\"}} 1");
        metrics.render().unwrap().contains(&line)
    }

    #[tokio::test]
    async fn request_counts_under_its_code_in_headers_or_trailers() {
        let metrics = Metrics::for_tests().unwrap();
        let layer = Measure(metrics.clone());
        drop(call(&layer, request(PATH), |_| async { Status::not_found("").into_http() }).await);
        assert!(counted(&metrics, "NOT_FOUND", "strongroom.v1.FileService/GetFile"));

        let respond = |_| async {
            let mut trailers = HeaderMap::new();
            Status::data_loss("").add_header(&mut trailers).unwrap();
            let frames = futures::stream::iter([Ok::<_, Status>(Frame::trailers(trailers))]);
            Response::new(Body::new(http_body_util::StreamBody::new(frames)))
        };
        let response = call(&layer, request(PATH), respond).await;
        response.into_body().collect().await.unwrap();
        assert!(counted(&metrics, "DATA_LOSS", "strongroom.v1.FileService/GetFile"));
    }

    #[tokio::test]
    async fn unknown_methods_share_one_name() {
        let metrics = Metrics::for_tests().unwrap();
        let respond = |_| async { Status::unimplemented("").into_http() };
        drop(call(&Measure(metrics.clone()), request("/made.up/Name"), respond).await);
        assert!(counted(&metrics, "UNIMPLEMENTED", "unknown"));
    }
}
