//! Converts errors to gRPC statuses. No other module creates a `Status`.
//!
//! Every error has one reason, and every reason has one code. Data that a client can act on is in the
//! standard details of `google.rpc`, which stay below [`DETAILS_BYTES_MAX`], because some clients reject long
//! trailers. The caller of a failed request with an internal error gets the call id and nothing else; the
//! cause is logged here.

mod details;
mod metadata;
#[cfg(test)]
mod pinned_tests;
mod reasons;
#[cfg(test)]
mod tests;
mod transport;

use tonic::{Code, Status};

use self::details::StatusBuilder;
pub(super) use self::{reasons::reason, transport::TransportError};
use crate::{app::Error, domain::error_text::with_causes, proto::v1::ErrorReason};

/// The largest size of the details of one status, in bytes.
pub(super) const DETAILS_BYTES_MAX: usize = 4096;

/// The `domain` of every `ErrorInfo`.
const DOMAIN: &str = "strongroom";

/// Converts an error of a use case. Logs what only the operator may know.
pub(super) fn status(error: &Error, call_id: &str) -> Status {
    log(error);
    let message = match error {
        Error::Internal(_) => return internal(call_id),
        error => error.to_string(),
    };
    let builder = StatusBuilder::new(reason(error), message, call_id);
    let builder = builder.metadata(metadata::error_metadata(error)).details_of(error);
    match error.retry_after() {
        Some(delay) => builder.retry_after(delay).build(),
        None => builder.build(),
    }
}

/// The status of an internal error that is already logged, such as a panic.
pub(super) fn internal(call_id: &str) -> Status {
    let message = format!("internal error; report the call id {call_id}");
    StatusBuilder::new(ErrorReason::Internal, message, call_id).build()
}

/// Returns the status for a deadline of the caller or of the method that has passed.
pub(super) fn deadline_exceeded(message: impl Into<String>, call_id: &str) -> Status {
    StatusBuilder::new(ErrorReason::DeadlineExceeded, message.into(), call_id).build()
}

/// Converts an error of the transport.
pub(super) fn transport(error: &TransportError, call_id: &str) -> Status {
    tracing::debug!(%error, "rejected request");
    let builder = StatusBuilder::new(error.reason(), error.to_string(), call_id).metadata(error.metadata());
    let mut status = builder.build();
    error.add_headers(status.metadata_mut());
    status
}

/// Adds the missing details to a status that tonic created. `limit_bytes` is the limit for messages of the
/// method.
///
/// A status of this service has details already, and is returned as it is. So is CANCELLED: the caller has
/// disconnected.
pub(super) fn with_details(status: Status, limit_bytes: usize, call_id: &str) -> Status {
    if !status.details().is_empty() || matches!(status.code(), Code::Ok | Code::Cancelled) {
        return status;
    }
    match TransportError::from_status(&status, limit_bytes) {
        Some(error) => transport(&error, call_id),
        None => {
            tracing::error!(code = ?status.code(), message = status.message(), "received gRPC status without error details");
            internal(call_id)
        }
    }
}

/// The error of a stream of requests, if its sender can act on it. A broken connection is not such an error.
pub(super) fn convert_stream_status(status: Status, limit_bytes: usize, call_id: &str) -> Option<Status> {
    let has_details = !status.details().is_empty();
    // Without details, an error with a source is one of the connection.
    let is_of_codec = std::error::Error::source(&status).is_none() && status.code() != Code::Cancelled;
    (has_details || is_of_codec).then(|| with_details(status, limit_bytes, call_id))
}

/// Logs the error. The span of the request has the call id, the tenant and the trace id.
fn log(error: &Error) {
    match error {
        Error::Internal(_) | Error::ObjectMissing | Error::ObjectDamaged | Error::ProviderUnknown(_) => {
            tracing::error!(error = with_causes(error), "request failed");
        }
        Error::StorageUnavailable(_)
        | Error::StorageFull(_)
        | Error::StoreNotOwned(_)
        | Error::DatabaseUnavailable(_)
        | Error::OutcomeUnknown { .. } => {
            tracing::warn!(error = with_causes(error), "request failed");
        }
        error => tracing::debug!(%error, "rejected request"),
    }
}
