//! The layers of the stack, one file each. Their order, and why, stands in `server.rs`.
//!
//! A layer is a value and one function around the rest of the stack ([`Around`]); this file makes tower of
//! it, once.

mod call_id;
mod deadline;
mod detailed_errors;
mod in_flight;
mod measure;
mod message_budget;
mod panic_barrier;
mod trace;

use std::{
    convert::Infallible,
    mem,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};

pub(super) use self::{
    call_id::CallId,
    deadline::{Deadline, Drain},
    detailed_errors::DetailedErrors,
    in_flight::InFlight,
    measure::Measure,
    message_budget::MessageBudget,
    panic_barrier::PanicBarrier,
    trace::Trace,
};

/// What every service of the stack answers.
type Answer = Response<Body>;

/// A service that a layer can stand around: it answers everything with a response, errors too.
pub(super) trait Inner:
    Service<Request<Body>, Response = Answer, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<S> Inner for S where
    S: Service<Request<Body>, Response = Answer, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

/// What a layer does around the rest of the stack.
pub(super) trait Around: Clone + Send + Sync + 'static {
    /// Answers the request, with the help of `next` or without.
    fn around<S: Inner>(
        &self,
        request: Request<Body>,
        next: Next<S>,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// The rest of the stack, ready for one request.
pub(super) struct Next<S>(S);

impl<S: Inner> Next<S> {
    /// Hands the request on.
    pub(super) async fn run(mut self, request: Request<Body>) -> Response<Body> {
        match self.0.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// Makes a tower layer of an [`Around`].
#[derive(Clone)]
pub(super) struct Stand<A>(pub(super) A);

impl<A: Around, S> Layer<S> for Stand<A> {
    type Service = Standing<A, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Standing { around: self.0.clone(), inner }
    }
}

/// An [`Around`] with the rest of the stack inside.
#[derive(Clone)]
pub(super) struct Standing<A, S> {
    around: A,
    inner: S,
}

impl<A: Around, S: Inner> Service<Request<Body>> for Standing<A, S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that is ready goes with the request, its clone stays.
        let clone = self.inner.clone();
        let next = Next(mem::replace(&mut self.inner, clone));
        let around = self.around.clone();
        Box::pin(async move { Ok(around.around(request, next).await) })
    }
}

#[cfg(test)]
mod testing {
    //! A stack of one layer around a function.

    use super::*;

    /// What `layer` makes of a request to `path`, with `service` behind it.
    pub(super) async fn call<A, F, R>(layer: &A, request: Request<Body>, service: F) -> Response<Body>
    where
        A: Around,
        F: Fn(Request<Body>) -> R + Clone + Send + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let inner = tower::service_fn(move |request| {
            let answer = service(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        layer.around(request, Next(inner)).await
    }

    /// A request without a body.
    pub(super) fn request(path: &str) -> Request<Body> {
        Request::builder().uri(path).body(Body::empty()).unwrap()
    }

    /// The status of a response that is nothing else.
    pub(super) fn status(response: &Response<Body>) -> Option<tonic::Status> {
        tonic::Status::from_header_map(response.headers())
    }
}
