//! Visitors: clients without an account, who read a file through the token of a share.
//!
//! `ResolveShare` exchanges the token, and the password if there is one, for a grant; `DownloadShare` serves bytes with
//! it. Tokens that are unknown, malformed, revoked, expired or exhausted get the same response. Only a live share
//! reports that it has a password.
//!
//! Nobody has verified a visitor, so a visitor holds nothing of a tenant until its token or grant is. Then all visitors
//! of a share count as one caller of the tenant.

mod attempts;
mod download;
mod error;
mod find;
mod grant;
mod log;
mod payment;
mod resolve;
mod running;

use std::{fmt, net::IpAddr, sync::Arc};

use tokio::sync::OwnedSemaphorePermit;

pub use self::{
    download::{AdmittedGrant, DownloadShareRequest, ShareDownload, admit_grant, download_share},
    error::VisitorError,
    resolve::{ResolveShareRequest, ResolvedShare, resolve_share},
};
use super::{App, Error};
use crate::{
    admission::{CallerKey, Holder},
    domain::{
        access_log::ClientOrigin,
        ids::{ShareId, TenantId},
    },
};

/// The maximum number of lookups for unverified visitors at a time. They continue after a disconnect, so they need a limit
/// of their own.
pub(super) const LOOKUPS_MAX: usize = 32;

/// Waits until a lookup may start. A visitor that disconnects meanwhile has started none.
async fn start_lookup(app: &App) -> Result<OwnedSemaphorePermit, Error> {
    Arc::clone(&app.visitor_lookups).acquire_owned().await.map_err(Error::internal)
}

/// Takes the places of a request from the holder of a verified share.
pub trait VisitorAdmission: Send + Sync {
    /// Makes the request one of this holder.
    ///
    /// # Errors
    /// Returns `Overloaded` if the holder may have no more requests.
    fn admit(&self, holder: Holder) -> Result<(), Error>;
}

/// A client without an account.
pub struct ShareVisitor {
    pub client: ClientOrigin,
    /// The address that counts for limits.
    pub address: IpAddr,
    pub admission: Box<dyn VisitorAdmission>,
}

impl fmt::Debug for ShareVisitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShareVisitor").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Returns the holder of what the visitors of a share use.
pub fn visitors_of(tenant: TenantId, share: ShareId) -> Holder {
    Holder::new(tenant, CallerKey::of_user(&format!("visitors of {share}")))
}
