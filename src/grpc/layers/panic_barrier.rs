//! A panic in one request is an INTERNAL of that request. (While an answer streams, hyper's own task for that
//! stream is the barrier; a download's work happens in a task whose panic ends its stream with INTERNAL.)

use std::{any::Any, panic::AssertUnwindSafe};

use futures::FutureExt;
use http::{Request, Response};
use tonic::body::Body;

use super::{Around, Inner, Next};
use crate::grpc::{call::origin, status};

/// Answers INTERNAL for a request that panics.
#[derive(Clone, Copy)]
pub(in crate::grpc) struct PanicBarrier;

impl Around for PanicBarrier {
    async fn around<S: Inner>(&self, request: Request<Body>, next: Next<S>) -> Response<Body> {
        let call_id = origin(request.extensions()).call_id;
        // Unwind safe: the request and the service's clone are gone afterwards, and what they share is behind
        // locks.
        match AssertUnwindSafe(next.run(request)).catch_unwind().await {
            Ok(response) => response,
            Err(panic) => {
                tracing::error!(panic = message(&*panic), "a request panicked");
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
    async fn a_panic_is_an_internal_error_that_says_nothing() {
        let answer = |_| async { panic!("secret") };
        let response = call(&PanicBarrier, request("/any"), answer).await;
        let status = status(&response).unwrap();
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("secret"));
    }
}
