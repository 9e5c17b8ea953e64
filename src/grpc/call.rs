//! The common part of all adapters: read the caller from a request, and encode the result of a use case.

use std::sync::Arc;

use http::Extensions;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{arrivals::Arrivals, status::status};
use crate::{
    admission::Holder,
    app::{App, Denial, Error, Principal, tenants::resolve::Newcomer},
    domain::{
        caller::{Caller, Operator, Origin},
        clock::Timestamp,
        ids::TenantId,
    },
};

/// The origin of a request, which the call id layer added.
pub(super) fn request_origin(extensions: &Extensions) -> Origin {
    extensions.get::<Origin>().cloned().unwrap_or_default()
}

/// When the credentials of a request expire. The layer that verifies them adds it. Streams that do not end by
/// themselves end then.
#[derive(Debug, Clone, Copy)]
pub(super) struct ValidUntil(pub(super) Timestamp);

/// The first call of a member whose tenant does not exist yet. The layer that verifies credentials adds it
/// instead of the principal. The tenant is created when the message has been decoded, so that a rejected call
/// creates none.
#[derive(Clone)]
pub(super) struct FirstCall {
    app: Arc<App>,
    pub(super) newcomer: Newcomer,
    created: watch::Sender<Option<TenantId>>,
}

impl FirstCall {
    pub(super) fn new(app: &Arc<App>, newcomer: Newcomer) -> Self {
        Self { app: Arc::clone(app), newcomer, created: watch::Sender::new(None) }
    }

    /// Returns a future that waits until the tenant is created. It never ends if the call creates none.
    pub(super) fn created(&self) -> impl Future<Output = TenantId> + Send + use<> {
        let mut created = self.created.subscribe();
        async move {
            let tenant = created.wait_for(Option::is_some).await.ok().and_then(|tenant| *tenant);
            match tenant {
                Some(tenant) => tenant,
                None => std::future::pending().await,
            }
        }
    }

    async fn create_tenant(self) -> Result<Principal, Error> {
        let principal = self.newcomer.create_tenant(&self.app).await?;
        if let Principal::Caller(caller) = &principal {
            self.created.send_replace(Some(caller.tenant_id()));
        }
        Ok(principal)
    }
}

/// The sender of a stream, until its first message has been decoded.
pub(super) struct StreamSender {
    extensions: Extensions,
    pub(super) origin: Origin,
}

impl StreamSender {
    /// Returns the holder of the shared units that the stream takes.
    ///
    /// # Errors
    /// Returns `Internal` if no layer has admitted the request.
    pub(super) fn holder(&self) -> Result<Holder, Error> {
        let holder = self.extensions.get::<Holder>().copied();
        holder.ok_or_else(|| Error::internal("request has no holder"))
    }

    /// Returns the counter of the bytes that have arrived. Without a layer that counts, it counts none.
    pub(super) fn arrivals(&self) -> Arrivals {
        self.extensions.get::<Arrivals>().cloned().unwrap_or_default()
    }

    /// Returns the caller, and creates its tenant if this is its first call.
    ///
    /// # Errors
    /// See [`Newcomer::create_tenant`].
    pub(super) async fn resolve_caller(mut self) -> Result<Caller, Error> {
        match take_principal(&mut self.extensions).await? {
            Principal::Caller(caller) => Ok(caller),
            Principal::Operator(_) => Err(Error::NotAllowed(Denial::OperatorsExcluded)),
        }
    }
}

/// Separates a stream of messages from its sender.
pub(super) fn extract_stream_sender<T>(request: Request<T>) -> (StreamSender, T) {
    let (_, extensions, stream) = request.into_parts();
    let origin = request_origin(&extensions);
    (StreamSender { extensions, origin }, stream)
}

async fn take_principal(extensions: &mut Extensions) -> Result<Principal, Error> {
    if let Some(principal) = extensions.remove::<Principal>() {
        return Ok(principal);
    }
    match extensions.remove::<FirstCall>() {
        Some(first) => first.create_tenant().await,
        None => Err(Error::internal("request has no verified caller")),
    }
}

/// A message, and the verified principal who sent it.
pub(super) struct PrincipalCall<T> {
    pub(super) principal: Principal,
    pub(super) origin: Origin,
    pub(super) request: T,
}

pub(super) async fn extract_principal<T>(request: Request<T>) -> Result<PrincipalCall<T>, Status> {
    let (_, mut extensions, request) = request.into_parts();
    let origin = request_origin(&extensions);
    match take_principal(&mut extensions).await {
        Ok(principal) => Ok(PrincipalCall { principal, origin, request }),
        Err(error) => Err(status(&error, &origin.call_id)),
    }
}

/// A message to a service without operators, and the verified caller who sent it.
pub(super) struct CallerCall<T> {
    pub(super) caller: Caller,
    pub(super) request: T,
}

pub(super) async fn extract_caller<T>(request: Request<T>) -> Result<CallerCall<T>, Status> {
    let PrincipalCall { principal, origin, request } = extract_principal(request).await?;
    match principal {
        Principal::Caller(caller) => Ok(CallerCall { caller, request }),
        Principal::Operator(_) => {
            let error = Error::NotAllowed(Denial::OperatorsExcluded);
            Err(status(&error, &origin.call_id))
        }
    }
}

/// A message to the administration, and the verified operator who sent it.
pub(super) struct OperatorCall<T> {
    pub(super) operator: Operator,
    pub(super) request: T,
}

pub(super) async fn extract_operator<T>(request: Request<T>) -> Result<OperatorCall<T>, Status> {
    let PrincipalCall { principal, origin, request } = extract_principal(request).await?;
    match principal {
        Principal::Operator(operator) => Ok(OperatorCall { operator, request }),
        Principal::Caller(_) => {
            let error = Error::NotAllowed(Denial::OperatorsOnly);
            Err(status(&error, &origin.call_id))
        }
    }
}

/// Runs a use case and encodes its result. The future of a use case has many kilobytes, so it is boxed and
/// not moved again.
pub(super) fn respond<T>(
    origin: &Origin,
    work: impl Future<Output = Result<T, Error>>,
) -> impl Future<Output = Result<Response<T>, Status>> {
    let work = Box::pin(work);
    async move { work.await.map(Response::new).map_err(|error| status(&error, &origin.call_id)) }
}
