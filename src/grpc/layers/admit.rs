//! Admits the requests of verified callers: limits the calls per second of a caller and its tenant, and transfers
//! a request and its connection to its caller, within the caller's shares of concurrent requests and connections.

use std::sync::Arc;

use http::{Request, Response};
use tonic::body::Body;

use super::{Around, Inner, Next, in_flight::RequestSlot};
use crate::{
    admission::Holder,
    app::{App, Error, Principal, Workload},
    grpc::{
        call::{FirstCall, request_origin},
        connections::PeerInfo,
        status,
    },
};

/// Admits the requests of verified callers, and adds their [`Holder`] to the extensions of each.
#[derive(Clone)]
pub(in crate::grpc) struct Admit(pub(in crate::grpc) Arc<App>);

impl Around for Admit {
    async fn around<S: Inner>(&self, mut request: Request<Body>, next: Next<S>) -> Response<Body> {
        let extensions = request.extensions();
        let (holder, rate) = match (extensions.get::<Principal>(), extensions.get::<FirstCall>()) {
            (Some(Principal::Caller(caller)), _) => {
                (Holder::of_caller(caller), self.0.rates().count_request(caller))
            }
            (Some(Principal::Operator(_)), _) => (Holder::PLATFORM, Ok(())),
            (None, Some(FirstCall { newcomer, .. })) => {
                (newcomer.holder(), self.0.rates().count_newcomer(newcomer.tenant_name()))
            }
            // Anonymous requests belong to nobody.
            (None, None) => return next.run(request).await,
        };
        let claimed = match extensions.get::<PeerInfo>() {
            Some(info) => info.peer.claim(holder).map_err(|_| Error::Overloaded(Workload::Connections)),
            None => Ok(()),
        };
        let admitted = rate.and(claimed).and_then(|()| match extensions.get::<RequestSlot>() {
            Some(slot) => slot.assign(holder),
            None => Ok(()),
        });
        if let Err(error) = admitted {
            return status::status(&error, &request_origin(extensions).call_id).into_http();
        }
        request.extensions_mut().insert(holder);
        next.run(request).await
    }
}
