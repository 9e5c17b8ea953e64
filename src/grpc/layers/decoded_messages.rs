//! Limits the memory of decoded messages: unless a decoded message is small, it holds space in a shared
//! budget until its request is validated.
//!
//! [`MessageBudget`](super::MessageBudget) bounds the messages that are being received. A small message can
//! decode to many times its size, so the memory that it will take, its [`Weight`], is also estimated when it
//! is complete and before it is decoded. The space is held until the next message of the stream is decoded,
//! or until the response is known. If there is no space, the call is rejected and can be retried: waiting
//! would keep the encoded message in memory.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Status, body::Body};

use super::{Around, Inner, Next};
use crate::{
    app::{Error, Workload},
    domain::violations::Violations,
    grpc::{
        call::request_origin,
        methods::{self, Responses},
        status::{self, TransportError},
    },
    proto::{
        codec::{self, DecodeGuard},
        wire::{Refusal, Weight},
    },
};

/// Messages up to this weight hold no space. They are part of the memory of a request.
const SMALL_BYTES: usize = 32 * 1024;

/// The unit of the budget, so that it fits a semaphore.
const UNIT_BYTES: usize = 1024;

/// Limits the memory of decoded messages.
#[derive(Clone)]
pub(in crate::grpc) struct DecodedMessages {
    space: Arc<Semaphore>,
    bytes_max: usize,
}

impl DecodedMessages {
    /// Creates a budget of this size.
    pub(in crate::grpc) fn new(bytes_max: usize) -> Self {
        let units = (bytes_max / UNIT_BYTES).min(Semaphore::MAX_PERMITS);
        Self { space: Arc::new(Semaphore::new(units)), bytes_max }
    }
}

impl Around for DecodedMessages {
    async fn around<S: Inner>(&self, request: Request<Body>, next: Next<S>) -> Response<Body> {
        let has_later_messages = methods::responses(request.uri().path()) == Some(Responses::WhileReceiving);
        let guard = Arc::new(CallGuard {
            budget: self.clone(),
            held: Mutex::new(None),
            call_id: request_origin(request.extensions()).call_id,
        });
        let response = codec::guarded(Arc::<CallGuard>::clone(&guard), next.run(request)).await;
        if !has_later_messages {
            // The guard is dropped, and with it the space of the request, which was validated.
            return response;
        }
        response.map(|inner| Body::new(GuardedBody { inner, guard }))
    }
}

/// The guard of one call.
struct CallGuard {
    budget: DecodedMessages,
    /// The space of the message that was decoded last.
    held: Mutex<Option<OwnedSemaphorePermit>>,
    call_id: String,
}

impl CallGuard {
    fn acquire(&self, weight: Weight) -> Result<Option<OwnedSemaphorePermit>, Status> {
        if weight.decoded_bytes <= SMALL_BYTES {
            return Ok(None);
        }
        // A message that is larger than the whole budget takes all of it.
        let bytes = weight.decoded_bytes.min(self.budget.bytes_max);
        let units = u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.budget.space).try_acquire_many_owned(units);
        permit.map(Some).map_err(|_| status::status(&Error::Overloaded(Workload::Messages), &self.call_id))
    }
}

impl DecodeGuard for CallGuard {
    fn admit(&self, scanned: Result<Weight, Refusal>) -> Result<(), Status> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // The message before it was validated.
        *held = None;
        match scanned {
            Ok(weight) => {
                *held = self.acquire(weight)?;
                Ok(())
            }
            Err(Refusal::TooMuch { field, description }) => {
                let violations = Violations::one(field, description);
                Err(status::status(&violations.into(), &self.call_id))
            }
            Err(Refusal::Malformed(cause)) => {
                let error = TransportError::Malformed(cause.to_owned());
                Err(status::transport(&error, &self.call_id))
            }
        }
    }
}

/// The body of a response that decodes messages while it is sent.
struct GuardedBody {
    inner: Body,
    guard: Arc<CallGuard>,
}

impl HttpBody for GuardedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let guard = Arc::<CallGuard>::clone(&self.guard);
        let inner = Pin::new(&mut self.inner);
        codec::guarded_sync(guard, || inner.poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic_types::StatusExt;

    use super::*;
    use crate::grpc::layers::testing::{call, request, status};

    const BUDGET_BYTES: usize = 100 * 1024;

    /// Decodes a message of this weight, and responds with its error.
    async fn decode(decoded_bytes: usize) -> Response<Body> {
        let weight = Weight { value_count: 1, decoded_bytes };
        match codec::admit_for_test(Ok(weight)) {
            Ok(()) => std::future::pending().await,
            Err(status) => status.into_http(),
        }
    }

    #[tokio::test]
    async fn message_holds_its_weight_until_the_response() {
        let layer = DecodedMessages::new(BUDGET_BYTES);
        let mut first = Box::pin(call(&layer, request("/any"), |_| decode(90 * 1024)));
        assert!(futures::poll!(first.as_mut()).is_pending());
        let refused = status(&call(&layer, request("/any"), |_| decode(90 * 1024)).await).unwrap();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.get_details_error_info().unwrap().reason, "OVERLOADED");
        assert!(refused.get_details_retry_info().is_some());
        let mut small = Box::pin(call(&layer, request("/any"), |_| decode(SMALL_BYTES)));
        assert!(futures::poll!(small.as_mut()).is_pending(), "a small message needs no space");

        drop(first);
        assert_eq!(layer.space.available_permits(), BUDGET_BYTES / UNIT_BYTES);
        let mut huge = Box::pin(call(&layer, request("/any"), |_| decode(10 * BUDGET_BYTES)));
        assert!(futures::poll!(huge.as_mut()).is_pending(), "a huge message takes the whole budget");
        assert_eq!(layer.space.available_permits(), 0);
    }

    #[tokio::test]
    async fn refused_message_names_its_field() {
        let refusal = Refusal::TooMuch { field: "spec.tags".into(), description: "has too many".into() };
        let layer = DecodedMessages::new(BUDGET_BYTES);
        let respond = move |_| {
            let refused = codec::admit_for_test(Err(refusal.clone())).unwrap_err();
            std::future::ready(refused.into_http())
        };
        let status = status(&call(&layer, request("/any"), respond).await).unwrap();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "spec.tags");
    }
}
