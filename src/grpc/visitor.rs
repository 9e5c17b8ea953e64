//! Visitors: requests without credentials for methods that check a secret in their message.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, OnceLock},
};

use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use super::{
    call::request_origin, client_address::ClientAddress, client_origin::client_origin, connections::PeerInfo,
    layers::RequestSlot, status,
};
use crate::{
    admission::{Holder, holder::normalize_address, peers::Peer},
    app::{
        Error, Workload,
        visitors::{ShareVisitor, VisitorAdmission},
    },
};

/// The place of a visitor's request until its secret is verified, in the extensions of the request.
#[derive(Clone)]
pub(super) struct VisitorPlace {
    pub(super) slot: RequestSlot,
    /// Cancelled when the request is one of the visitors of a share, and not of an unknown client any more.
    pub(super) admitted: CancellationToken,
    /// The holder of the request from then on.
    pub(super) holder: Arc<OnceLock<Holder>>,
}

struct Admission {
    place: VisitorPlace,
    peer: Option<Peer>,
}

impl VisitorAdmission for Admission {
    fn admit(&self, holder: Holder) -> Result<(), Error> {
        self.place.slot.assign(holder)?;
        self.place.holder.get_or_init(|| holder);
        self.place.admitted.cancel();
        match &self.peer {
            // The connection has a verified visitor, so it is not closed as one of a stranger.
            Some(peer) => peer.claim(holder).map_err(|_| Error::Overloaded(Workload::Connections)),
            None => Ok(()),
        }
    }
}

/// Separates a message from its visitor.
pub(super) fn extract_visitor<T>(request: Request<T>) -> Result<(ShareVisitor, T), Status> {
    let (metadata, extensions, message) = request.into_parts();
    let origin = request_origin(&extensions);
    let Some(place) = extensions.get::<VisitorPlace>().cloned() else {
        let error = Error::internal("request of a visitor has no place");
        return Err(status::status(&error, &origin.call_id));
    };
    let peer = extensions.get::<PeerInfo>().map(|info| info.peer.clone());
    let address = extensions.get::<ClientAddress>().map(|ClientAddress(address)| *address);
    let visitor = ShareVisitor {
        client: client_origin(&metadata, origin),
        address: normalize_address(address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))),
        admission: Box::new(Admission { place, peer }),
    };
    Ok((visitor, message))
}
