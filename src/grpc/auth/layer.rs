//! The layer that authenticates requests and checks access. In this order it looks up the method in the
//! access table, verifies the token, checks the role and resolves the tenant. A rejected request does not
//! reach its service. No tenant is created here: the first call of a tenant can still be rejected, so its tenant
//! exists only when the call has succeeded (`call.rs`).

use std::{sync::Arc, task::Poll};

use http::{HeaderMap, Request, Response};
use tonic::body::Body;

use super::{
    Authenticator,
    access::{Access, find_access, is_read},
};
use crate::{
    admission::Holder,
    app::{
        App, CredentialsError, Error, InvalidCredentials, Principal,
        audit::record_denied_call,
        tenants::resolve::{Identity, Sender, resolve_sender},
    },
    domain::{caller::Origin, clock::Timestamp},
    grpc::{
        call::{FirstCall, ValidUntil, request_origin},
        layers::{Around, ExpiredCredentials, Inner, Next, RequestSlot},
        status::{self, TransportError},
    },
};

/// Rejects requests without access, and adds the verified [`Principal`] to the extensions of the others, or
/// the [`FirstCall`] of a tenant that does not exist yet.
#[derive(Clone)]
pub(in crate::grpc) struct Auth {
    pub(in crate::grpc) app: Arc<App>,
    pub(in crate::grpc) authenticator: Arc<Authenticator>,
}

fn refusal(error: &Error, call_id: &str) -> Response<Body> {
    let mut response = status::status(error, call_id).into_http();
    let expired = InvalidCredentials::Expired;
    if matches!(error, Error::Unauthenticated(CredentialsError::Invalid(invalid)) if *invalid == expired) {
        response.extensions_mut().insert(ExpiredCredentials);
    }
    response
}

impl Around for Auth {
    async fn around<S: Inner>(&self, mut request: Request<Body>, next: Next<S>) -> Response<Body> {
        let origin = request_origin(request.extensions());
        let Some(access) = find_access(request.uri().path()) else {
            return status::transport(&TransportError::MethodUnknown, &origin.call_id).into_http();
        };
        if access.needs_credentials() {
            let path = request.uri().path();
            let slot = request.extensions().get::<RequestSlot>();
            match self.authenticate(request.headers(), path, access, origin.clone(), slot).await {
                Ok((sender, until)) => {
                    let extensions = request.extensions_mut();
                    match sender {
                        Sender::Known(principal) => drop(extensions.insert(principal)),
                        Sender::Newcomer(newcomer) => {
                            drop(extensions.insert(FirstCall::new(&self.app, newcomer)));
                        }
                    }
                    extensions.insert(ValidUntil(until));
                }
                Err(error) => return refusal(&error, &origin.call_id),
            }
        }
        next.run(request).await
    }
}

impl Auth {
    /// Verifies the token. Only a token whose keys must be loaded takes time, and a place to wait in.
    async fn identify(
        &self,
        headers: &HeaderMap,
        slot: Option<&RequestSlot>,
    ) -> Result<(Identity, Timestamp), Error> {
        let mut identifying = std::pin::pin!(self.authenticator.identify(headers));
        let identified = match futures::poll!(&mut identifying) {
            Poll::Ready(identified) => identified,
            Poll::Pending => {
                let _place = slot.map(RequestSlot::wait_unverified).transpose()?;
                identifying.await
            }
        };
        identified.map_err(Error::Unauthenticated)
    }

    async fn authenticate(
        &self,
        headers: &HeaderMap,
        path: &str,
        access: Access,
        origin: Origin,
        slot: Option<&RequestSlot>,
    ) -> Result<(Sender, Timestamp), Error> {
        let (identity, until) = self.identify(headers, slot).await?;
        if let Some(slot) = slot {
            // From here on the request uses the database.
            slot.assign(identity.tenant_name().map_or(Holder::PLATFORM, |name| Holder::of_name(&name)))?;
        }
        let checked = access.check(&identity.kind);
        let sender = resolve_sender(&self.app, identity, origin).await?;
        match (&sender, checked) {
            (Sender::Known(Principal::Caller(caller)), checked) => {
                tracing::Span::current().record("tenant", tracing::field::display(caller.tenant_id()));
                if let Err(denial) = checked {
                    return Err(record_denied_call(&self.app, caller, path, denial).await);
                }
                if caller.tenant.is_read_only && !is_read(path) {
                    return Err(Error::TenantReadOnly);
                }
            }
            // Without a tenant there is no audit log to record the denial in.
            (Sender::Known(Principal::Operator(_)) | Sender::Newcomer(_), Err(denial)) => return Err(denial),
            (Sender::Known(Principal::Operator(_)), Ok(())) => {}
            (Sender::Newcomer(newcomer), Ok(())) => newcomer.check_may_create(&self.app)?,
        }
        Ok((sender, until))
    }
}
