//! The layers of the stack, one file each. `server.rs` defines their order and explains it.
//!
//! A layer is a value with one function around the rest of the stack ([`Around`]). [`AroundLayer`] turns it
//! into a tower layer.

mod admit;
mod anonymous;
mod call_id;
mod deadline;
mod decoded_messages;
mod detailed_errors;
mod first_calls;
mod header_limit;
mod in_flight;
mod last_byte;
mod measure;
mod message_budget;
mod observed_body;
mod panic_barrier;
mod running_calls;
mod space;
mod suspension;
mod trace;
mod unread_responses;
mod unread_streams;

use std::{
    convert::Infallible,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};

pub(super) use self::{
    admit::Admit,
    call_id::CallId,
    deadline::{Deadline, Drain},
    decoded_messages::DecodedMessages,
    detailed_errors::DetailedErrors,
    first_calls::FirstCalls,
    header_limit::HeaderLimit,
    in_flight::{ExpiredCredentials, InFlight, RequestSlot},
    measure::Measure,
    message_budget::{ArrivalLimits, MessageBudget},
    panic_barrier::PanicBarrier,
    running_calls::RunningCalls,
    suspension::Suspension,
    trace::Trace,
    unread_responses::UnreadResponses,
};

/// A service that a layer can wrap. Its errors are responses too.
pub(super) trait Inner:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Inner for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// A layer around the rest of the stack.
pub(super) trait Around: Clone + Send + Sync + 'static {
    /// Handles the request, with or without the rest of the stack.
    fn around<S: Inner>(
        &self,
        request: Request<Body>,
        next: Next<S>,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// The rest of the stack, for one request.
pub(super) struct Next<S>(S);

impl<S: Inner> Next<S> {
    /// Forwards the request to the rest of the stack.
    pub(super) async fn run(mut self, request: Request<Body>) -> Response<Body> {
        match poll_fn(|context| self.0.poll_ready(context)).await {
            Ok(()) => {}
            Err(never) => match never {},
        }
        match self.0.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// Turns an [`Around`] into a tower layer.
#[derive(Clone)]
pub(super) struct AroundLayer<A>(pub(super) A);

impl<A: Around, S> Layer<S> for AroundLayer<A> {
    type Service = AroundService<A, S>;

    fn layer(&self, inner: S) -> Self::Service {
        AroundService(Arc::new(Stack { around: self.0.clone(), inner }))
    }
}

/// An [`Around`] with the rest of the stack inside. Every request clones every layer, so a clone is one pointer,
/// whatever the layer and those below it contain.
pub(super) struct AroundService<A, S>(Arc<Stack<A, S>>);

struct Stack<A, S> {
    around: A,
    inner: S,
}

impl<A, S> Clone for AroundService<A, S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A: Around, S: Inner> Service<Request<Body>> for AroundService<A, S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    /// The layer is always ready. Its request waits until the rest of the stack is.
    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let stack = Arc::clone(&self.0);
        Box::pin(async move { Ok(stack.around.around(request, Next(stack.inner.clone())).await) })
    }
}

#[cfg(test)]
mod testing {
    //! A stack of one layer around a function.

    use super::*;

    /// The response of `layer` around `service`.
    pub(super) async fn call<A, F, R>(layer: &A, request: Request<Body>, service: F) -> Response<Body>
    where
        A: Around,
        F: Fn(Request<Body>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let inner = tower::service_fn(move |request| {
            let response = service(request);
            async move { Ok::<_, Infallible>(response.await) }
        });
        layer.around(request, Next(inner)).await
    }

    /// A request without a body.
    pub(super) fn request(path: &str) -> Request<Body> {
        Request::builder().uri(path).body(Body::empty()).unwrap()
    }

    /// The status in the headers of a response.
    pub(super) fn status(response: &Response<Body>) -> Option<tonic::Status> {
        tonic::Status::from_header_map(response.headers())
    }
}
