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
    app::{App, Error, Principal, tenants::resolve::resolve},
    domain::caller::Origin,
    grpc::{
        call::origin,
        layers::{Around, Inner, Next},
        status,
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
            return status::unknown_method().into_http();
        };
        if access != Access::Anonymous {
            match self.principal(request.headers(), access, origin.clone()).await {
                Ok(principal) => request.extensions_mut().insert(principal),
                Err(error) => return status::status(&error, &origin.request_id).into_http(),
            };
        }
        next.run(request).await
    }
}

impl Auth {
    async fn principal(
        &self,
        headers: &HeaderMap,
        access: Access,
        origin: Origin,
    ) -> Result<Principal, Error> {
        let identity = self.authenticator.identify(headers).await.map_err(Error::Unauthenticated)?;
        // Before the tenant is looked for: a caller that is turned away brings no tenant into being.
        access.admit(&identity.standing)?;
        let principal = resolve(&self.app, identity, origin).await?;
        if let Principal::Caller(caller) = &principal {
            tracing::Span::current().record("tenant", tracing::field::display(caller.tenant_id()));
        }
        Ok(principal)
    }
}
