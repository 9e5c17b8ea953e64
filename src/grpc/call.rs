//! The common part of all adapters: read the caller from a request, and encode the result of a use case.

use http::Extensions;
use tonic::{Request, Response, Status};

use super::status::{internal, status};
use crate::{
    app::{Error, Principal},
    domain::{
        caller::{Caller, Operator, Origin},
        clock::Timestamp,
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

/// A request of a verified principal.
pub(super) struct PrincipalCall<T> {
    pub(super) principal: Principal,
    pub(super) origin: Origin,
    pub(super) message: T,
}

pub(super) fn extract_principal<T>(request: Request<T>) -> Result<PrincipalCall<T>, Status> {
    let (_, mut extensions, message) = request.into_parts();
    let origin = request_origin(&extensions);
    match extensions.remove::<Principal>() {
        Some(principal) => Ok(PrincipalCall { principal, origin, message }),
        None => {
            tracing::error!("request has no verified caller");
            Err(internal(&origin.call_id))
        }
    }
}

/// The verified caller of a request to a service without operators, and its message.
pub(super) fn extract_caller<T>(request: Request<T>) -> Result<(Caller, T), Status> {
    let PrincipalCall { principal, origin, message } = extract_principal(request)?;
    match principal {
        Principal::Caller(caller) => Ok((caller, message)),
        Principal::Operator(_) => {
            let error = Error::NotAllowed("operators manage tenants and cannot access their files");
            Err(status(&error, &origin.call_id))
        }
    }
}

/// The verified operator of a request to the administration, and its message.
pub(super) fn extract_operator<T>(request: Request<T>) -> Result<(Operator, T), Status> {
    let PrincipalCall { principal, origin, message } = extract_principal(request)?;
    match principal {
        Principal::Operator(operator) => Ok((operator, message)),
        Principal::Caller(_) => {
            let error = Error::NotAllowed("only an operator may do this");
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
