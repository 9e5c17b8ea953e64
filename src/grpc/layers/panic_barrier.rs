//! A panic in one request ends that request with INTERNAL. (While a response streams, hyper's own task for
//! that stream is the barrier; a download runs in a task whose panic ends its stream with INTERNAL.)

use std::{any::Any, panic::AssertUnwindSafe};

use futures::FutureExt;
use http::{Request, Response};
use tonic::body::Body;

use super::{Around, Inner, Next};
use crate::grpc::{call::request_origin, status};

/// Ends a request that panics with INTERNAL.
#[derive(Clone, Copy)]
pub(in crate::grpc) struct PanicBarrier;

impl Around for PanicBarrier {
    async fn around<S: Inner>(&self, request: Request<Body>, next: Next<S>) -> Response<Body> {
        let call_id = request_origin(request.extensions()).call_id;
        // Unwind safe: the request and the clone of the service are dropped afterwards, and their shared
        // state is behind locks.
        match AssertUnwindSafe(next.run(request)).catch_unwind().await {
            Ok(response) => response,
            Err(panic) => {
                tracing::error!(panic = message(&*panic), "request panicked");
                status::internal(&call_id).into_http()
            }
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("not a text")
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::grpc::layers::testing::{call, request, status};

    #[tokio::test]
    async fn panic_is_an_internal_error_without_its_message() {
        let respond = |_| async { panic!("secret") };
        let response = call(&PanicBarrier, request("/any"), respond).await;
        let status = status(&response).unwrap();
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("secret"));
    }
}
