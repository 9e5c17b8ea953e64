//! Limits the number of concurrent requests. Further requests are rejected immediately: a queue would only
//! hide the overload, and hold memory for callers that no longer wait.
//!
//! A request counts for its address first. `Admit` transfers it to its caller when the caller is verified: a
//! tenant and its callers have shares, and some requests are reserved for operators. Anonymous requests use
//! none of these units: see [`Anonymous`].

use std::{
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Extensions, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Code, Status, body::Body};

use super::{
    Around, Inner, Next,
    anonymous::{Anonymous, Place},
};
use crate::{
    admission::{
        Exhausted, Holder, ShareLimits, ShareStatus, Shares, Slot, holder::normalize_address,
        rates::RateLimiter,
    },
    app::{Error, RateEvent, RateScope, Workload},
    config::Config,
    domain::address_range::AddressRange,
    grpc::{
        auth::access::{Access, find_access},
        call::request_origin,
        connections::PeerInfo,
        status,
    },
};

/// The health checks of orchestrators, which restart a process that does not respond.
const CHECK: &str = "/grpc.health.v1.Health/Check";

/// Counts requests until the last byte of their responses.
#[derive(Clone)]
pub(in crate::grpc) struct InFlight {
    requests: Arc<Shares>,
    checks: Arc<Anonymous>,
    anonymous: Arc<Anonymous>,
    rates: Arc<AddressRates>,
}

/// The slot of a request, in its extensions.
#[derive(Clone)]
pub(in crate::grpc) struct RequestSlot(Arc<Mutex<Slot>>);

impl RequestSlot {
    /// Transfers the request to a verified caller.
    ///
    /// # Errors
    /// Returns `Exhausted` if the caller may have no more requests.
    pub(in crate::grpc) fn reassign(&self, holder: Holder) -> Result<(), Exhausted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).reassign(holder)
    }
}

impl InFlight {
    pub(in crate::grpc) fn new(config: &Config) -> Self {
        let server = &config.server;
        let limits = ShareLimits::slots(server.requests_max)
            .with_reserve(server.operator_requests_reserved)
            .with_tenant_half();
        Self {
            requests: Shares::new(limits),
            checks: Anonymous::new(server.anonymous_requests_max),
            anonymous: Anonymous::new(server.anonymous_requests_max),
            rates: Arc::new(AddressRates::new(config)),
        }
    }

    /// Returns how callers share the requests.
    pub(in crate::grpc) fn status(&self) -> ShareStatus {
        self.requests.status()
    }

    async fn run_anonymous<S: Inner>(&self, request: Request<Body>, next: Next<S>) -> Response<Body> {
        let places = if request.uri().path() == CHECK { &self.checks } else { &self.anonymous };
        let call_id = request_origin(request.extensions()).call_id;
        let mut place = places.enter();
        let response = tokio::select! {
            biased;
            response = next.run(request) => response,
            () = place.displaced() => return displaced(&call_id).into_http(),
        };
        response.map(|inner| Body::new(AnonymousBody { inner, place: Some(place), call_id }))
    }

    async fn run_authenticated<S: Inner>(
        &self,
        mut request: Request<Body>,
        next: Next<S>,
        address: IpAddr,
    ) -> Response<Body> {
        let call_id = request_origin(request.extensions()).call_id;
        let Ok(slot) = self.requests.try_acquire(Holder::of_address(address), 1) else {
            return status::status(&Error::Overloaded(Workload::Requests), &call_id).into_http();
        };
        let slot = RequestSlot(Arc::new(Mutex::new(slot)));
        request.extensions_mut().insert(slot.clone());
        let response = next.run(request).await;
        if is_unauthenticated(&response)
            && let Err(error) = self.rates.count_refusal(address)
        {
            return status::status(&error, &call_id).into_http();
        }
        response.map(|inner| Body::new(HoldingBody { inner, _held: slot }))
    }
}

impl Around for InFlight {
    async fn around<S: Inner>(&self, request: Request<Body>, next: Next<S>) -> Response<Body> {
        let peer = request.extensions().get::<PeerInfo>().map(|info| info.peer.clone());
        let running = peer.map(|peer| peer.start_request());
        let address = peer_address(request.extensions());
        if let Err(error) = self.rates.count_request(address) {
            return status::status(&error, &request_origin(request.extensions()).call_id).into_http();
        }
        let response = match find_access(request.uri().path()) {
            Some(Access::Anonymous) => self.run_anonymous(request, next).await,
            _ => self.run_authenticated(request, next, address).await,
        };
        response.map(|inner| Body::new(HoldingBody { inner, _held: running }))
    }
}

/// Returns the address of the connection. Tests without a connection have none.
fn peer_address(extensions: &Extensions) -> IpAddr {
    let address = extensions.get::<PeerInfo>().and_then(|info| info.tcp.remote_addr());
    address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip())
}

fn is_unauthenticated(response: &Response<Body>) -> bool {
    let code = response.headers().get(Status::GRPC_STATUS);
    code.is_some_and(|code| Code::from_bytes(code.as_bytes()) == Code::Unauthenticated)
}

fn displaced(call_id: &str) -> Status {
    status::status(&Error::Overloaded(Workload::Requests), call_id)
}

/// The limits of calls per second of addresses.
struct AddressRates {
    requests: RateLimiter<IpAddr>,
    requests_per_second_max: u32,
    refusals: RateLimiter<IpAddr>,
    refusals_per_second_max: u32,
    trusted: Vec<AddressRange>,
}

impl AddressRates {
    fn new(config: &Config) -> Self {
        let rates = &config.rate_limits;
        Self {
            requests: RateLimiter::new(rates.address_requests_per_second, rates.burst_seconds),
            requests_per_second_max: rates.address_requests_per_second,
            refusals: RateLimiter::new(rates.address_refusals_per_second, rates.burst_seconds),
            refusals_per_second_max: rates.address_refusals_per_second,
            trusted: config.server.trusted_proxies.clone(),
        }
    }

    fn count_request(&self, address: IpAddr) -> Result<(), Error> {
        let per_second_max = self.requests_per_second_max;
        self.take(&self.requests, RateEvent::Requests, per_second_max, address)
    }

    fn count_refusal(&self, address: IpAddr) -> Result<(), Error> {
        let per_second_max = self.refusals_per_second_max;
        self.take(&self.refusals, RateEvent::Refusals, per_second_max, address)
    }

    fn take(
        &self,
        limiter: &RateLimiter<IpAddr>,
        event: RateEvent,
        per_second_max: u32,
        address: IpAddr,
    ) -> Result<(), Error> {
        if self.trusted.iter().any(|range| range.contains(address)) {
            return Ok(());
        }
        limiter.take(normalize_address(address)).map_err(|retry_after| Error::RateLimited {
            scope: RateScope::Address,
            event,
            per_second_max,
            retry_after,
        })
    }
}

/// A body that holds something until it is dropped.
struct HoldingBody<H> {
    inner: Body,
    _held: H,
}

impl<H: Unpin> HttpBody for HoldingBody<H> {
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

/// The body of an anonymous request. It ends when a newer request takes its place.
struct AnonymousBody {
    inner: Body,
    place: Option<Place>,
    call_id: String,
}

impl HttpBody for AnonymousBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context) {
            return Poll::Ready(frame);
        }
        let Some(place) = &mut this.place else { return Poll::Ready(None) };
        if place.poll_displaced(context).is_pending() {
            return Poll::Pending;
        }
        (this.inner, this.place) = (Body::empty(), None);
        Poll::Ready(Some(Err(displaced(&this.call_id))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
#[path = "in_flight_tests.rs"]
mod tests;
