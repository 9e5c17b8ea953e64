//! The layer that decides whether a request reaches its service: the table first, then the token, then the
//! role, then the tenant. A refused request ends here.

use std::sync::Arc;

use http::{HeaderMap, Request, Response};
use tonic::body::Body;

use super::{
    Authenticator,
    access::{Access, access},
};
use crate::{
    app::{App, Error, Principal, audit::call_denied, tenants::resolve::resolve},
    domain::{caller::Origin, clock::Timestamp},
    grpc::{
        call::{ValidUntil, origin},
        layers::{Around, Inner, Next},
        status::{self, TransportError},
    },
};

/// Lets in whoever may call, as a verified [`Principal`] among the request's extensions.
#[derive(Clone)]
pub(in crate::grpc) struct Auth {
    pub(in crate::grpc) app: Arc<App>,
    pub(in crate::grpc) authenticator: Arc<Authenticator>,
}

impl Around for Auth {
    async fn around<S: Inner>(&self, mut request: Request<Body>, next: Next<S>) -> Response<Body> {
        let origin = origin(request.extensions());
        let Some(access) = access(request.uri().path()) else {
            return status::transport(&TransportError::MethodUnknown, &origin.call_id).into_http();
        };
        if access != Access::Anonymous {
            let path = request.uri().path();
            match self.principal(request.headers(), path, access, origin.clone()).await {
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
    async fn principal(
        &self,
        headers: &HeaderMap,
        path: &str,
        access: Access,
        origin: Origin,
    ) -> Result<(Principal, Timestamp), Error> {
        let (identity, until) = self.authenticator.identify(headers).await.map_err(Error::Unauthenticated)?;
        let admitted = access.admit(&identity.standing);
        let principal = resolve(&self.app, identity, origin).await?;
        let Principal::Caller(caller) = &principal else { return admitted.map(|()| (principal, until)) };
        tracing::Span::current().record("tenant", tracing::field::display(caller.tenant_id()));
        match admitted {
            Ok(()) => Ok((principal, until)),
            Err(why) => Err(call_denied(&self.app, caller, path, why).await),
        }
    }
}
