//! Limits the number of concurrent requests. Further requests are refused immediately: a queue would only
//! hide the overload, and hold memory for callers that no longer wait.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Status, body::Body};

use super::{Around, Inner, Next};
use crate::{
    app::{Error, Workload},
    grpc::{
        auth::access::{Access, find_access},
        call::request_origin,
        status,
    },
};

/// Health checks use only memory and are never refused: an orchestrator that gets no response would restart a
/// process that is only busy.
const EXEMPT: &str = "/grpc.health.v1.Health/Check";

/// The limit of concurrent anonymous requests. Health watches and reflection do not end by themselves, and
/// must not use the slots of callers with credentials.
const ANONYMOUS_MAX: usize = 64;

/// Counts requests until the last byte of their responses.
#[derive(Clone)]
pub(in crate::grpc) struct InFlight {
    requests: Arc<Semaphore>,
    anonymous: Arc<Semaphore>,
}

impl InFlight {
    pub(in crate::grpc) fn new(requests_max: usize) -> Self {
        let anonymous = Arc::new(Semaphore::new(ANONYMOUS_MAX));
        Self { requests: Arc::new(Semaphore::new(requests_max)), anonymous }
    }
}

impl Around for InFlight {
    async fn around<S: Inner>(&self, request: Request<Body>, next: Next<S>) -> Response<Body> {
        let path = request.uri().path();
        if path == EXEMPT {
            return next.run(request).await;
        }
        let slots =
            if find_access(path) == Some(Access::Anonymous) { &self.anonymous } else { &self.requests };
        let Ok(permit) = Arc::clone(slots).try_acquire_owned() else {
            return status::status(
                &Error::Overloaded(Workload::Requests),
                &request_origin(request.extensions()).call_id,
            )
            .into_http();
        };
        let response = next.run(request).await;
        response.map(|inner| Body::new(PermitBody { inner, _permit: permit }))
    }
}

/// A body that holds a permit until it is dropped.
struct PermitBody {
    inner: Body,
    _permit: OwnedSemaphorePermit,
}

impl HttpBody for PermitBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;
    use tonic::Code;
    use tonic_types::StatusExt;

    use super::*;
    use crate::grpc::layers::testing::{call, request, status};

    async fn endless(_: Request<Body>) -> Response<Body> {
        let frames = futures::stream::pending::<Result<Frame<Bytes>, Status>>();
        Response::new(Body::new(StreamBody::new(frames)))
    }

    #[tokio::test]
    async fn request_beyond_the_limit_is_refused_at_once() {
        let layer = InFlight::new(1);
        let streaming = call(&layer, request("/any"), endless).await;
        let refused = call(&layer, request("/any"), endless).await;
        let status_of_refused = status(&refused).unwrap();
        assert_eq!(status_of_refused.code(), Code::ResourceExhausted);
        assert!(status_of_refused.get_details_retry_info().is_some());
        assert!(status(&call(&layer, request(EXEMPT), endless).await).is_none());

        drop(streaming);
        assert!(status(&call(&layer, request("/any"), endless).await).is_none());
    }
}
