//! Limits the memory of decoded messages: unless a decoded message is small, it holds space in a shared
//! budget until its request is validated.
//!
//! [`MessageBudget`](super::MessageBudget) bounds the messages that are being received. A small message can
//! decode to many times its size, so the memory that it will take, its [`Weight`], is also estimated when it
//! is complete and before it is decoded. The adapter of a stream or a part releases the space as soon as it
//! can ([`codec::take_space`]); otherwise it is held until the next message of the stream is decoded, or until
//! the response is known. If the share of the caller has no space, the call is rejected and can be retried:
//! waiting would keep the encoded message in memory.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Context,
};

use http::{Request, Response};
use tonic::{Status, body::Body};

use super::{
    Around, Inner, Next,
    observed_body::{BodyObserver, PolledFrame, observe, poll_inner},
    space::{Space, SpaceLimits},
};
use crate::{
    admission::{Holder, ShareStatus, Slot},
    app::{Error, Workload},
    domain::violations::Violations,
    grpc::{
        call::request_origin,
        convert::structs,
        methods::{self, Responses},
        status::{self, TransportError},
    },
    proto::{
        codec::{self, DecodeGuard, Held},
        struct_limits::StructLimits,
        wire::{Refusal, Weight},
    },
};

/// Messages up to this weight hold no space. They are part of the memory of a request.
const SMALL_BYTES: usize = 32 * 1024;

/// The most that a valid message without a part decodes to: its values, and two copies of its texts.
const LARGEST_BYTES: usize = 16 * 1024 * 1024;

/// Space for the messages of operators, which are small.
const RESERVED_BYTES: usize = 1024 * 1024;

/// Limits the memory of decoded messages.
#[derive(Clone)]
pub(in crate::grpc) struct DecodedMessages {
    space: Space,
}

impl DecodedMessages {
    /// Creates a budget of this size. Messages with parts have up to `part_message_bytes_max`.
    pub(in crate::grpc) fn new(bytes_max: usize, part_message_bytes_max: usize) -> Self {
        let largest_bytes = LARGEST_BYTES.max(part_message_bytes_max);
        Self { space: Space::new(SpaceLimits { bytes_max, largest_bytes, reserved_bytes: RESERVED_BYTES }) }
    }

    /// Returns how callers share the space.
    pub(in crate::grpc) fn status(&self) -> ShareStatus {
        self.space.status()
    }
}

impl Around for DecodedMessages {
    async fn around<S: Inner>(&self, request: Request<Body>, next: Next<S>) -> Response<Body> {
        let has_later_messages = methods::responses(request.uri().path()) == Some(Responses::WhileReceiving);
        let guard = Arc::new(CallGuard {
            space: self.space.clone(),
            holder: request.extensions().get::<Holder>().copied(),
            held: Mutex::new(None),
            call_id: request_origin(request.extensions()).call_id,
        });
        let response = codec::guarded(Arc::<CallGuard>::clone(&guard), next.run(request)).await;
        if !has_later_messages {
            // The guard is dropped, and with it the space of the request, which was validated.
            return response;
        }
        response.map(|body| observe(body, guard))
    }
}

/// The guard of one call.
struct CallGuard {
    space: Space,
    /// Who takes the space. Anonymous callers take none: all of their messages are small.
    holder: Option<Holder>,
    /// The space of the message that was decoded last.
    held: Mutex<Option<Slot>>,
    call_id: String,
}

impl CallGuard {
    fn acquire(&self, weight: Weight) -> Result<Option<Slot>, Status> {
        if weight.decoded_bytes <= SMALL_BYTES {
            return Ok(None);
        }
        let taken = self.space.try_take(self.holder, weight.decoded_bytes).map(Some);
        taken.ok_or_else(|| status::status(&Error::Overloaded(Workload::Messages), &self.call_id))
    }

    fn held(&self) -> MutexGuard<'_, Option<Slot>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DecodeGuard for CallGuard {
    fn struct_limits(&self) -> &StructLimits {
        &structs::LIMITS
    }

    fn admit(&self, scanned: Result<Weight, Refusal>) -> Result<(), Status> {
        let mut held = self.held();
        // The message before it was validated.
        *held = None;
        match scanned {
            Ok(weight) => {
                *held = self.acquire(weight)?;
                Ok(())
            }
            Err(Refusal::TooMuch(excesses)) => {
                let mut violations = Violations::new();
                for excess in excesses {
                    violations.add(excess.field, excess.description);
                }
                Err(status::status(&violations.into(), &self.call_id))
            }
            Err(Refusal::Malformed(cause)) => {
                let error = TransportError::Malformed(cause.to_owned());
                Err(status::transport(&error, &self.call_id))
            }
        }
    }

    fn take_space(&self) -> Option<Held> {
        let slot = self.held().take()?;
        Some(Box::new(slot))
    }
}

/// Guards the messages that are decoded while a response is sent.
impl BodyObserver for Arc<CallGuard> {
    fn poll_frame(&mut self, body: &mut Body, context: &mut Context<'_>) -> PolledFrame {
        let guard = Self::clone(self);
        codec::guarded_sync(guard, || poll_inner(body, context))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures::FutureExt;
    use tonic::Code;
    use tonic_types::StatusExt;

    use super::*;
    use crate::{
        grpc::layers::testing::{call, request, status},
        proto::wire::Excess,
    };

    const MIB: usize = 1024 * 1024;

    fn layer() -> DecodedMessages {
        DecodedMessages::new(101 * MIB, 8 * MIB)
    }

    fn request_of(name: &str) -> Request<Body> {
        let mut request = request("/any");
        request.extensions_mut().insert(Holder::of_name(&name));
        request
    }

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
        let layer = layer();
        let mut first = Box::pin(call(&layer, request_of("globex"), |_| decode(50 * MIB)));
        assert!(futures::poll!(first.as_mut()).is_pending());
        let refused = call(&layer, request_of("globex"), |_| decode(50 * MIB)).now_or_never();
        let refused = status(&refused.expect("refused at once")).unwrap();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.get_details_error_info().unwrap().reason, "OVERLOADED");
        assert!(refused.get_details_retry_info().is_some());
        let mut small = Box::pin(call(&layer, request_of("globex"), |_| decode(SMALL_BYTES)));
        assert!(futures::poll!(small.as_mut()).is_pending(), "a small message needs no space");

        drop(first);
        assert_eq!(layer.space.taken_bytes(), 0);
        let mut huge = Box::pin(call(&layer, request_of("globex"), |_| decode(1_000 * MIB)));
        assert!(futures::poll!(huge.as_mut()).is_pending(), "a huge message takes what one caller may have");
        assert_eq!(layer.space.taken_bytes(), 50 * MIB);
    }

    #[tokio::test]
    async fn messages_of_one_tenant_do_not_refuse_others() {
        let layer = layer();
        let mut held = Vec::new();
        while held.len() < 100 {
            let mut next = Box::pin(call(&layer, request_of("globex"), |_| decode(5 * MIB)));
            match futures::poll!(next.as_mut()) {
                Poll::Pending => held.push(next),
                Poll::Ready(refused) => {
                    assert!(status(&refused).is_some());
                    break;
                }
            }
        }
        assert!((10..20).contains(&held.len()), "{}", held.len());
        let mut other = Box::pin(call(&layer, request_of("acme"), |_| decode(5 * MIB)));
        assert!(futures::poll!(other.as_mut()).is_pending());
    }

    #[tokio::test]
    async fn validated_message_of_a_stream_holds_nothing() {
        let layer = layer();
        let respond = |_| async {
            codec::admit_for_test(Ok(Weight { value_count: 1, decoded_bytes: 5 * MIB })).unwrap();
            drop(codec::take_space().expect("it holds its weight"));
            std::future::pending().await
        };
        let mut silent = Box::pin(call(&layer, request_of("globex"), respond));
        assert!(futures::poll!(silent.as_mut()).is_pending());
        assert_eq!(layer.space.taken_bytes(), 0);
    }

    #[tokio::test]
    async fn refused_message_names_its_field() {
        let excess = |field: &str| Excess { field: field.to_owned(), description: "has too many".to_owned() };
        let refusal = Refusal::TooMuch(vec![excess("spec.tags"), excess("spec.metadata")]);
        let layer = layer();
        let respond = move |_| {
            let refused = codec::admit_for_test(Err(refusal.clone())).unwrap_err();
            std::future::ready(refused.into_http())
        };
        let status = status(&call(&layer, request("/any"), respond).await).unwrap();
        assert_eq!(status.code(), Code::InvalidArgument);
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(violations.len(), 2);
        assert_eq!(
            (violations[0].field.as_str(), violations[1].field.as_str()),
            ("spec.tags", "spec.metadata")
        );
    }
}
