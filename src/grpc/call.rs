//! The common part of all adapters: read the caller from a request, and encode the result of a use case.

use http::Extensions;
use tonic::{Request, Response, Status};

use super::status::{internal, status};
use crate::{
    app::{Denial, Error, Principal},
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

/// A message, and the verified principal who sent it.
pub(super) struct PrincipalCall<T> {
    pub(super) principal: Principal,
    pub(super) origin: Origin,
    pub(super) request: T,
}

pub(super) fn extract_principal<T>(request: Request<T>) -> Result<PrincipalCall<T>, Status> {
    let (_, mut extensions, request) = request.into_parts();
    let origin = request_origin(&extensions);
    match extensions.remove::<Principal>() {
        Some(principal) => Ok(PrincipalCall { principal, origin, request }),
        None => {
            tracing::error!("request has no verified caller");
            Err(internal(&origin.call_id))
        }
    }
}

/// A message to a service without operators, and the verified caller who sent it.
pub(super) struct CallerCall<T> {
    pub(super) caller: Caller,
    pub(super) request: T,
}

pub(super) fn extract_caller<T>(request: Request<T>) -> Result<CallerCall<T>, Status> {
    let PrincipalCall { principal, origin, request } = extract_principal(request)?;
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

pub(super) fn extract_operator<T>(request: Request<T>) -> Result<OperatorCall<T>, Status> {
    let PrincipalCall { principal, origin, request } = extract_principal(request)?;
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
