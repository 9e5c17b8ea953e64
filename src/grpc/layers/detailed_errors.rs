//! Adds an `ErrorInfo` to errors that tonic and its generated code raise: this is the only place that
//! converts them, except for errors inside a stream of requests, which reach the adapter of its method.
//!
//! tonic sends such an error in the headers of the response when no message was sent before, and otherwise in
//! its trailers. Either has a `grpc-status` and no `grpc-status-details-bin`.

use std::task::Context;

use http::{HeaderMap, Request, Response};
use http_body::Frame;
use tonic::{Status, body::Body};

use super::{
    Around, Inner, Next,
    observed_body::{BodyObserver, PolledFrame, observe, poll_inner},
};
use crate::grpc::{
    call::request_origin,
    message_limits::{MessageLimits, accepts_compression},
    status::{self, TransportError},
};

/// The header that names the compression of a request.
const ENCODING: &str = "grpc-encoding";

/// The name of the encoding without compression.
const IDENTITY: &str = "identity";

/// Completes errors of the transport.
#[derive(Clone, Copy)]
pub(in crate::grpc) struct DetailedErrors(pub(in crate::grpc) MessageLimits);

impl Around for DetailedErrors {
    async fn around<S: Inner>(&self, request: Request<Body>, next: Next<S>) -> Response<Body> {
        let call_id = request_origin(request.extensions()).call_id;
        let path = request.uri().path();
        let is_compressed = request.headers().get(ENCODING).is_some_and(|encoding| encoding != IDENTITY);
        if is_compressed && !accepts_compression(path) {
            let error = TransportError::EncodingUnsupported { supported: IDENTITY.to_owned() };
            return status::transport(&error, &call_id).into_http();
        }
        let limit_bytes = self.0.after_decompression(path);
        let mut response = next.run(request).await;
        if let Some(status) = Status::from_header_map(response.headers()) {
            if status.details().is_empty() {
                response = status::with_details(status, limit_bytes, &call_id).into_http();
            }
            return response;
        }
        response.map(|body| observe(body, DetailedTrailers { limit_bytes, call_id }))
    }
}

/// Adds details to the status in the trailers of a response.
struct DetailedTrailers {
    limit_bytes: usize,
    call_id: String,
}

impl DetailedTrailers {
    fn with_details(&self, trailers: HeaderMap) -> Result<HeaderMap, Status> {
        match Status::from_header_map(&trailers) {
            Some(status) if status.details().is_empty() => {
                let mut trailers = HeaderMap::new();
                let status = status::with_details(status, self.limit_bytes, &self.call_id);
                status.add_header(&mut trailers).map(|()| trailers)
            }
            _ => Ok(trailers),
        }
    }
}

impl BodyObserver for DetailedTrailers {
    fn poll_frame(&mut self, body: &mut Body, context: &mut Context<'_>) -> PolledFrame {
        poll_inner(body, context).map(|frame| {
            frame.map(|frame| match frame?.into_trailers() {
                Ok(trailers) => self.with_details(trailers).map(Frame::trailers),
                Err(data) => Ok(data),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};
    use tonic::Code;
    use tonic_types::StatusExt;

    use super::*;
    use crate::grpc::layers::testing::{call, request, status};

    const LIMITS: MessageLimits = MessageLimits { file_message_bytes_max: 100, part_message_bytes_max: 200 };

    fn reason(status: &Status) -> String {
        status.get_details_error_info().unwrap().reason
    }

    #[tokio::test]
    async fn bare_status_in_headers_gets_an_error_info() {
        let cases = [
            (Status::unimplemented(""), Code::Unimplemented, "METHOD_UNKNOWN"),
            (Status::internal("failed to decode"), Code::InvalidArgument, "MALFORMED_MESSAGE"),
            (Status::resource_exhausted("bomb"), Code::ResourceExhausted, "MESSAGE_TOO_LARGE"),
            (Status::not_found("service not registered"), Code::NotFound, "NOT_FOUND"),
            (Status::unknown("?"), Code::Internal, "INTERNAL"),
        ];
        for (bare, code, expected) in cases {
            let respond = move |_| std::future::ready(bare.clone().into_http());
            let response = call(&DetailedErrors(LIMITS), request("/any"), respond).await;
            let status = status(&response).unwrap();
            assert_eq!((status.code(), reason(&status).as_str()), (code, expected));
        }
    }

    #[tokio::test]
    async fn bare_status_in_trailers_gets_an_error_info() {
        let respond = |_| async {
            let mut trailers = HeaderMap::new();
            Status::unimplemented("").add_header(&mut trailers).unwrap();
            let frames = futures::stream::iter([Ok::<_, Status>(Frame::trailers(trailers))]);
            Response::new(Body::new(StreamBody::new(frames)))
        };
        let response = call(&DetailedErrors(LIMITS), request("/any"), respond).await;
        let collected = response.into_body().collect().await.unwrap();
        let status = Status::from_header_map(collected.trailers().unwrap()).unwrap();
        assert_eq!(reason(&status), "METHOD_UNKNOWN");
    }

    #[tokio::test]
    async fn detailed_status_is_not_changed() {
        let detailed = status::internal("c-1");
        let expected = detailed.details().to_vec();
        let respond = move |_| std::future::ready(detailed.clone().into_http());
        let response = call(&DetailedErrors(LIMITS), request("/any"), respond).await;
        assert_eq!(status(&response).unwrap().details(), expected);
    }
}
