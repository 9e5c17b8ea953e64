//! Ends the first calls of tenants that do not exist yet: the tenant exists if the call has succeeded, and is removed
//! otherwise.
//!
//! A call with one response has succeeded when its response is known, and one that streams responses when the first
//! one is ready. Neither is sent before the tenant exists. A call that is dropped has failed.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame};
use tonic::{Code, Status, body::Body};

use super::{Around, Inner, Next};
use crate::{
    app::tenants::first_call::ProvisionalCall,
    grpc::{
        call::FirstCall,
        methods::{self, Responses},
    },
};

/// Ends first calls. Inside authentication, which determines whether a call is one.
#[derive(Clone, Copy)]
pub(in crate::grpc) struct FirstCalls;

impl Around for FirstCalls {
    async fn around<S: Inner>(&self, request: Request<Body>, next: Next<S>) -> Response<Body> {
        let Some(first) = request.extensions().get::<FirstCall>().cloned() else {
            return next.run(request).await;
        };
        let has_one_response =
            matches!(methods::responses(request.uri().path()), Some(Responses::One { .. }));
        let response = next.run(request).await;
        let Some(call) = first.take_call() else { return response };
        match find_code(response.headers()) {
            Some(Code::Ok) => call.succeed().await,
            Some(_) => call.fail().await,
            None if has_one_response => call.succeed().await,
            None => {
                return response.map(|inner| Body::new(FirstResponse { inner, state: State::Waits(call) }));
            }
        }
        response
    }
}

/// Returns the code in the headers of a response without messages, or in its trailers.
fn find_code(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()))
}

/// A body that sends its first frame when the call has ended for its tenant.
struct FirstResponse {
    inner: Body,
    state: State,
}

enum State {
    /// No response is ready yet.
    Waits(ProvisionalCall),
    /// The frame is ready, and the tenant is confirmed or removed.
    Ends {
        end: BoxFuture<'static, ()>,
        frame: Option<Frame<Bytes>>,
    },
    Ended,
}

impl State {
    /// Ends the call by its first frame.
    fn end_by(&mut self, frame: Frame<Bytes>) {
        let Self::Waits(call) = mem::replace(self, Self::Ended) else { return };
        let has_failed = frame.trailers_ref().is_some_and(|trailers| find_code(trailers) != Some(Code::Ok));
        let end = if has_failed { call.fail().boxed() } else { call.succeed().boxed() };
        *self = Self::Ends { end, frame: Some(frame) };
    }
}

impl HttpBody for FirstResponse {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if matches!(self.state, State::Waits(_)) {
            match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
                Some(Ok(frame)) => self.state.end_by(frame),
                ended => {
                    self.state = State::Ended;
                    return Poll::Ready(ended);
                }
            }
        }
        if let State::Ends { end, frame } = &mut self.state {
            ready!(end.as_mut().poll(context));
            let frame = frame.take();
            self.state = State::Ended;
            return Poll::Ready(frame.map(Ok));
        }
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Ended) && self.inner.is_end_stream()
    }
}
