//! Limits the number of concurrent requests. Further requests are rejected immediately: a queue would only
//! hide the overload, and hold memory for callers that no longer wait.
//!
//! A request counts when the signature of its token is verified, as one of the tenant that the token names, or of
//! the operators. `Admit` makes it one of its caller when that is known: a tenant and its callers have shares, and
//! some requests are reserved for operators. Strangers thus use nothing of that: not with anonymous requests
//! ([`Anonymous`]), nor with tokens whose keys must be loaded, which have places of their own, shared by address.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::{Extensions, Request, Response};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, body::Body};

use super::{
    Around, Inner, Next,
    anonymous::Anonymous,
    deadline::end_with,
    observed_body::{Holding, observe},
};
use crate::{
    admission::{
        Exhausted, Holder, ShareLimits, ShareStatus, Shares, Slot, holder::normalize_address,
        peers::PeerRequest, rates::RateLimiter,
    },
    app::{Error, RateEvent, RateScope, Workload},
    config::{Config, ServerConfig},
    domain::address_range::AddressRange,
    grpc::{
        auth::access::{Access, find_access},
        call::request_origin,
        client_address::ClientAddress,
        connections::PeerInfo,
        status,
        visitor::VisitorPlace,
    },
};

/// The health checks of orchestrators, which restart a process that does not respond.
const CHECK: &str = "/grpc.health.v1.Health/Check";

/// Counts requests until the last byte of their responses.
#[derive(Clone)]
pub(in crate::grpc) struct InFlight {
    requests: Arc<Shares>,
    unverified: UnverifiedRequests,
    checks: Arc<Anonymous>,
    anonymous: Arc<Anonymous>,
    visitors: Arc<Anonymous>,
    rates: Arc<AddressRates>,
}

/// The requests whose credentials are being verified, which takes time only if keys must be loaded.
#[derive(Clone)]
struct UnverifiedRequests {
    /// Shared by address.
    direct: Arc<Shares>,
    /// Those of trusted proxies. Each is the address of many clients, so it has no share.
    proxied: Arc<Shares>,
    trusted: Arc<[AddressRange]>,
}

impl UnverifiedRequests {
    fn new(server: &ServerConfig) -> Self {
        let places = || Shares::new(ShareLimits::slots(server.anonymous_requests_max));
        Self { direct: places(), proxied: places(), trusted: server.trusted_proxies.clone().into() }
    }

    fn try_acquire(&self, address: IpAddr) -> Result<Slot, Exhausted> {
        match self.trusted.iter().any(|range| range.contains(address)) {
            true => self.proxied.try_acquire(Holder::PLATFORM, 1),
            false => self.direct.try_acquire(Holder::of_address(address), 1),
        }
    }
}

/// The slot of a request, in its extensions. Empty until the credentials are verified.
#[derive(Clone)]
pub(in crate::grpc) struct RequestSlot {
    requests: Arc<Shares>,
    unverified: UnverifiedRequests,
    address: IpAddr,
    held: Arc<Mutex<HeldByRequest>>,
}

/// What a request holds until the end of its response.
#[derive(Default)]
struct HeldByRequest {
    slot: Option<Slot>,
    /// Keeps the connection from being closed to make room.
    _running: Option<PeerRequest>,
}

impl RequestSlot {
    /// Makes the request one of this holder, whose credentials are verified.
    ///
    /// # Errors
    /// Returns `Overloaded` if the holder may have no more requests.
    pub(in crate::grpc) fn assign(&self, holder: Holder) -> Result<(), Error> {
        let mut held = self.held();
        let assigned = match &mut held.slot {
            Some(slot) => slot.reassign(holder),
            None => self.requests.try_acquire(holder, 1).map(|taken| held.slot = Some(taken)),
        };
        assigned.map_err(|_| Error::Overloaded(Workload::Requests))
    }

    /// Takes a place to wait in for the verification of credentials.
    ///
    /// # Errors
    /// Returns `Overloaded` if the address may have no more places.
    pub(in crate::grpc) fn wait_unverified(&self) -> Result<Slot, Error> {
        let place = self.unverified.try_acquire(self.address);
        place.map_err(|_| Error::Overloaded(Workload::Requests))
    }

    /// Ends the request, also if its response is still with the transport.
    pub(super) fn release(&self) {
        let released = std::mem::take(&mut *self.held());
        drop(released);
    }

    fn held(&self) -> MutexGuard<'_, HeldByRequest> {
        // Each statement leaves a valid value, so a poisoned lock is safe to use.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks a response to valid credentials that have expired. They are no attempt to guess any, and a client would
/// wait instead of renewing them if the refusal were one of the rate.
#[derive(Debug, Clone, Copy)]
pub(in crate::grpc) struct ExpiredCredentials;

impl InFlight {
    pub(in crate::grpc) fn new(config: &Config) -> Self {
        let server = &config.server;
        let limits = ShareLimits::slots(server.requests_max)
            .with_reserve(server.operator_requests_reserved)
            .with_tenant_half();
        Self {
            requests: Shares::new(limits),
            unverified: UnverifiedRequests::new(server),
            checks: Anonymous::new(server.anonymous_requests_max),
            anonymous: Anonymous::new(server.anonymous_requests_max),
            visitors: Anonymous::new(server.anonymous_requests_max),
            rates: Arc::new(AddressRates::new(config)),
        }
    }

    /// Returns how callers share the requests.
    pub(in crate::grpc) fn status(&self) -> ShareStatus {
        self.requests.status()
    }

    async fn run_anonymous<S: Inner>(
        &self,
        request: Request<Body>,
        next: Next<S>,
        address: IpAddr,
    ) -> Response<Body> {
        let call_id = request_origin(request.extensions()).call_id;
        let address = normalize_address(address);
        let place = match request.uri().path() {
            // A check that can be ended has not sent its message, so its connection does not protect it.
            CHECK => self.checks.enter(address, None),
            _ => {
                let peer = request.extensions().get::<PeerInfo>().map(|info| info.peer.clone());
                self.anonymous.enter(address, peer)
            }
        };
        let displaced = move || status::status(&Error::Overloaded(Workload::Requests), &call_id);
        let Some(mut place) = place else { return displaced().into_http() };
        let response = tokio::select! {
            biased;
            response = next.run(request) => response,
            () = place.displaced() => return displaced().into_http(),
        };
        let end = Box::pin(async move {
            place.displaced().await;
            displaced()
        });
        response.map(|body| end_with(body, end))
    }

    /// Runs the request of a visitor. It has a place of its own, which a further one may take, until its secret is
    /// verified; then it is a request of the visitors of a share.
    async fn run_visitor<S: Inner>(
        &self,
        mut request: Request<Body>,
        next: Next<S>,
        address: IpAddr,
    ) -> Response<Body> {
        let extensions = request.extensions();
        let call_id = request_origin(extensions).call_id;
        let displaced = move || status::status(&Error::Overloaded(Workload::Requests), &call_id);
        // The clients of a trusted proxy have addresses of their own.
        let client = extensions.get::<ClientAddress>().map_or(address, |ClientAddress(client)| *client);
        if let Err(error) = self.rates.count_visitor(client) {
            return status::status(&error, &request_origin(extensions).call_id).into_http();
        }
        let Some(mut place) = self.visitors.enter(normalize_address(client), None) else {
            return displaced().into_http();
        };
        let slot = self.start_slot(extensions, address);
        let admitted = CancellationToken::new();
        request.extensions_mut().insert(slot.clone());
        request.extensions_mut().insert(VisitorPlace {
            slot: slot.clone(),
            admitted: admitted.clone(),
            holder: Arc::default(),
        });
        let mut end = Box::pin(async move {
            tokio::select! {
                biased;
                () = admitted.cancelled() => {
                    drop(place);
                    std::future::pending().await
                }
                () = place.displaced() => displaced(),
            }
        });
        let response = tokio::select! {
            biased;
            response = next.run(request) => response,
            ended = &mut end => return ended.into_http(),
        };
        response.map(|body| observe(end_with(body, end), Holding(ReleasedOnDrop(slot))))
    }

    fn start_slot(&self, extensions: &Extensions, address: IpAddr) -> RequestSlot {
        let running = extensions.get::<PeerInfo>().map(|info| info.peer.start_request());
        RequestSlot {
            requests: Arc::clone(&self.requests),
            unverified: self.unverified.clone(),
            address,
            held: Arc::new(Mutex::new(HeldByRequest { slot: None, _running: running })),
        }
    }

    async fn run_authenticated<S: Inner>(
        &self,
        mut request: Request<Body>,
        next: Next<S>,
        address: IpAddr,
    ) -> Response<Body> {
        let call_id = request_origin(request.extensions()).call_id;
        let slot = self.start_slot(request.extensions(), address);
        request.extensions_mut().insert(slot.clone());
        let response = next.run(request).await;
        if is_unauthenticated(&response)
            && response.extensions().get::<ExpiredCredentials>().is_none()
            && let Err(error) = self.rates.count_refusal(address)
        {
            return status::status(&error, &call_id).into_http();
        }
        response.map(|body| observe(body, Holding(ReleasedOnDrop(slot))))
    }
}

impl Around for InFlight {
    async fn around<S: Inner>(&self, request: Request<Body>, next: Next<S>) -> Response<Body> {
        let address = peer_address(request.extensions());
        if let Err(error) = self.rates.count_request(address) {
            return status::status(&error, &request_origin(request.extensions()).call_id).into_http();
        }
        match find_access(request.uri().path()) {
            // They do not protect a connection from being closed to make room: they cost nothing.
            Some(Access::Anonymous) => self.run_anonymous(request, next, address).await,
            Some(Access::Visitor) => self.run_visitor(request, next, address).await,
            _ => self.run_authenticated(request, next, address).await,
        }
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

/// The limits of calls per second of addresses.
struct AddressRates {
    requests: RateLimiter<IpAddr>,
    requests_per_second_max: u32,
    visitors: RateLimiter<IpAddr>,
    visitors_per_second_max: u32,
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
            visitors: RateLimiter::new(rates.visitor_requests_per_second, rates.burst_seconds),
            visitors_per_second_max: rates.visitor_requests_per_second,
            refusals: RateLimiter::new(rates.address_refusals_per_second, rates.burst_seconds),
            refusals_per_second_max: rates.address_refusals_per_second,
            trusted: config.server.trusted_proxies.clone(),
        }
    }

    fn count_request(&self, address: IpAddr) -> Result<(), Error> {
        let per_second_max = self.requests_per_second_max;
        self.take(&self.requests, RateEvent::Requests, per_second_max, address)
    }

    /// Counts a request of a visitor. The address is that of the client, also behind a trusted proxy.
    fn count_visitor(&self, client: IpAddr) -> Result<(), Error> {
        self.take(&self.visitors, RateEvent::Requests, self.visitors_per_second_max, client)
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

/// Ends a request when the body of its response is dropped. Other parts of the call may have copies of the slot.
struct ReleasedOnDrop(RequestSlot);

impl Drop for ReleasedOnDrop {
    fn drop(&mut self) {
        self.0.release();
    }
}

#[cfg(test)]
#[path = "in_flight_tests.rs"]
mod tests;
