//! The span of a request. Every log line inside it has the call id, the tenant and the trace id. The
//! span continues the caller's W3C trace, which then includes the SQL statements and the object store
//! operations of the request.

use http::{Request, Response};
use tonic::body::Body;
use tracing::{Instrument, field};

use super::{Around, Inner, Next};
use crate::{
    grpc::{auth::access::method_name, call::request_origin},
    telemetry::trace_context,
};

/// Runs a request inside its span.
#[derive(Clone, Copy)]
pub(in crate::grpc) struct Trace;

impl Around for Trace {
    async fn around<S: Inner>(&self, request: Request<Body>, next: Next<S>) -> Response<Body> {
        let method = method_name(request.uri().path());
        let span = tracing::info_span!(
            "request",
            otel.name = method,
            otel.kind = "server",
            rpc.system = "grpc",
            method,
            call_id = request_origin(request.extensions()).call_id,
            tenant = field::Empty,
            trace_id = field::Empty,
        );
        trace_context::continue_trace(&span, request.headers());
        next.run(request).instrument(span).await
    }
}
