//! The layer that authenticates requests and checks access. In this order it looks up the method in the
//! access table, verifies the token, checks the role and resolves the tenant. A rejected request does not
//! reach its service.

use std::sync::Arc;

use http::{HeaderMap, Request, Response};
use tonic::body::Body;

use super::{
    Authenticator,
    access::{Access, find_access},
};
use crate::{
    app::{App, Error, Principal, audit::record_denied_call, tenants::resolve::resolve_principal},
    domain::{caller::Origin, clock::Timestamp},
    grpc::{
        call::{ValidUntil, request_origin},
        layers::{Around, Inner, Next},
        status::{self, TransportError},
    },
};

/// Rejects requests without access, and adds the verified [`Principal`] to the extensions of the others.
#[derive(Clone)]
pub(in crate::grpc) struct Auth {
    pub(in crate::grpc) app: Arc<App>,
    pub(in crate::grpc) authenticator: Arc<Authenticator>,
}

impl Around for Auth {
    async fn around<S: Inner>(&self, mut request: Request<Body>, next: Next<S>) -> Response<Body> {
        let origin = request_origin(request.extensions());
        let Some(access) = find_access(request.uri().path()) else {
            return status::transport(&TransportError::MethodUnknown, &origin.call_id).into_http();
        };
        if access != Access::Anonymous {
            let path = request.uri().path();
            match self.authenticate(request.headers(), path, access, origin.clone()).await {
                Ok((principal, until)) => {
                    request.extensions_mut().insert(principal);
                    request.extensions_mut().insert(ValidUntil(until));
                }
                Err(error) => return status::status(&error, &origin.call_id).into_http(),
            }
        }
        next.run(request).await
    }
}

impl Auth {
    async fn authenticate(
        &self,
        headers: &HeaderMap,
        path: &str,
        access: Access,
        origin: Origin,
    ) -> Result<(Principal, Timestamp), Error> {
        let (identity, until) = self.authenticator.identify(headers).await.map_err(Error::Unauthenticated)?;
        let checked = access.check(&identity.kind);
        let principal = resolve_principal(&self.app, identity, origin).await?;
        let Principal::Caller(caller) = &principal else { return checked.map(|()| (principal, until)) };
        tracing::Span::current().record("tenant", tracing::field::display(caller.tenant_id()));
        match checked {
            Ok(()) => Ok((principal, until)),
            Err(denial) => Err(record_denied_call(&self.app, caller, path, denial).await),
        }
    }
}
