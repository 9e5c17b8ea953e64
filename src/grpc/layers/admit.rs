//! Admits the requests of verified callers: limits the calls per second of a caller, of each of its actions and of its
//! tenant, and transfers a request and its connection to its caller, within the caller's shares of concurrent requests and connections.

use std::sync::Arc;

use http::{HeaderName, Request, Response};
use tonic::body::Body;

use super::{Around, Inner, Next, in_flight::RequestSlot};
use crate::{
    admission::{Holder, rates::RateLevel},
    app::{App, Error, Principal, Workload, rates::CountedRequest},
    domain::rate_limits::RateAction,
    grpc::{
        call::{FirstCall, request_origin},
        connections::PeerInfo,
        methods, status,
    },
};

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Admits the requests of verified callers, and adds their [`Holder`] to the extensions of each.
#[derive(Clone)]
pub(in crate::grpc) struct Admit(pub(in crate::grpc) Arc<App>);

impl Around for Admit {
    async fn around<S: Inner>(&self, mut request: Request<Body>, next: Next<S>) -> Response<Body> {
        let extensions = request.extensions();
        let (holder, counted) = match (extensions.get::<Principal>(), extensions.get::<FirstCall>()) {
            (Some(Principal::Caller(caller)), _) => {
                // A test checks that each method of callers has an action.
                let action = methods::rate_action(request.uri().path()).unwrap_or(RateAction::Change);
                (Holder::of_caller(caller), self.0.rates().count_request(caller, action).await)
            }
            (Some(Principal::Operator(_)), _) => {
                (Holder::PLATFORM, CountedRequest { level: None, outcome: Ok(()) })
            }
            (None, Some(FirstCall { newcomer, .. })) => {
                let outcome = self.0.rates().count_newcomer(newcomer.tenant_name());
                (newcomer.holder(), CountedRequest { level: None, outcome })
            }
            // Anonymous requests belong to nobody.
            (None, None) => return next.run(request).await,
        };
        let claimed = match extensions.get::<PeerInfo>() {
            Some(info) => info.peer.claim(holder).map_err(|_| Error::Overloaded(Workload::Connections)),
            None => Ok(()),
        };
        let admitted = counted.outcome.and(claimed).and_then(|()| match extensions.get::<RequestSlot>() {
            Some(slot) => slot.assign(holder),
            None => Ok(()),
        });
        if let Err(error) = admitted {
            let refused = status::status(&error, &request_origin(extensions).call_id).into_http();
            return with_level(refused, counted.level);
        }
        request.extensions_mut().insert(holder);
        with_level(next.run(request).await, counted.level)
    }
}

/// Adds the headers of the IETF draft on rate limits: the tokens of a full bucket, those that are left, and the seconds
/// until it is full.
fn with_level(mut response: Response<Body>, level: Option<RateLevel>) -> Response<Body> {
    if let Some(RateLevel { limit, remaining, full_after }) = level {
        let headers = response.headers_mut();
        headers.insert(LIMIT, limit.into());
        headers.insert(REMAINING, remaining.into());
        headers.insert(RESET, (full_after.as_secs() + u64::from(full_after.subsec_nanos() > 0)).into());
    }
    response
}
