//! From errors to statuses: the only place that makes a `Status` of ours.
//!
//! Two exhaustive matches: every error has one reason, and every reason has one code. What a caller can act
//! on goes into the standard details (google.rpc), which stay under [`DETAILS_BYTES_MAX`], because some
//! clients refuse long trailers. A fault of ours tells the request id and nothing else, and is logged here,
//! once, with all its causes.

mod details;
#[cfg(test)]
mod tests;

use tonic::{Code, Status};

use self::details::Answer;
use crate::{
    app::{CredentialsError, Error, FetchFailure},
    proto::v1::ErrorReason,
};

/// The most bytes of details in one answer (SECURITY: "keep them under 4 KiB").
pub(super) const DETAILS_BYTES_MAX: usize = 4096;

/// The `domain` of every `ErrorInfo`.
const DOMAIN: &str = "strongroom";

/// What a caller is told about an error, after what only the operator should know was logged.
pub(super) fn status(error: &Error, request_id: &str) -> Status {
    log(error);
    let reason = reason(error);
    let message = match error {
        Error::Internal(_) => return internal(request_id),
        error => error.to_string(),
    };
    let answer = Answer::new(reason, message, request_id).metadata(metadata(error)).about(error);
    match error.retry_after() {
        Some(delay) => answer.retry_after(delay).into_status(),
        None => answer.into_status(),
    }
}

/// A fault that was logged already, such as a panic.
pub(super) fn internal(request_id: &str) -> Status {
    let message = format!("internal error; report it with the request id {request_id}");
    Answer::new(ErrorReason::Internal, message, request_id).into_status()
}

/// The process is at a limit of its own; `what` names it.
pub(super) fn overloaded(what: &'static str, request_id: &str) -> Status {
    let message = format!("too many {what} at once; try again in a moment");
    Answer::new(ErrorReason::Overloaded, message, request_id)
        .retry_after(std::time::Duration::from_secs(1))
        .into_status()
}

/// The caller's deadline passed, or the service's own.
pub(super) fn deadline_exceeded(why: &'static str, request_id: &str) -> Status {
    Answer::new(ErrorReason::DeadlineExceeded, why.to_owned(), request_id).into_status()
}

/// A method that no line of the access table names.
pub(super) fn unknown_method() -> Status {
    Status::unimplemented("there is no such method")
}

/// The reason's name as it stands in `ErrorInfo`: without its prefix.
pub(super) fn reason_name(reason: ErrorReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("ERROR_REASON_").unwrap_or(name)
}

/// Why, in one word for programs.
pub(super) fn reason(error: &Error) -> ErrorReason {
    match error {
        Error::Invalid(_) => ErrorReason::InvalidField,
        Error::PageTokenInvalid => ErrorReason::PageTokenInvalid,
        Error::CursorInvalid => ErrorReason::CursorInvalid,
        Error::CursorTooOld => ErrorReason::CursorTooOld,
        Error::TooManyWebhooks(_) => ErrorReason::WebhookLimit,
        Error::StreamOrder(_) => ErrorReason::StreamOrderInvalid,
        Error::ChecksumMismatch { .. } | Error::ResentBytesDiffer => ErrorReason::ChecksumMismatch,
        Error::SizeMismatch { .. } | Error::PartSizeMismatch { .. } | Error::UploadHasAllBytes { .. } => {
            ErrorReason::SizeMismatch
        }
        Error::UploadPartsTooLarge { .. } => ErrorReason::UploadPartsTooLarge,
        Error::DirectUploadUnsupported => ErrorReason::DirectUploadUnsupported,
        Error::UploadIsDirect => ErrorReason::UploadIsDirect,
        Error::UploadNotDirect => ErrorReason::UploadNotDirect,
        Error::RequestIdReused => ErrorReason::RequestIdReused,
        Error::OffsetGap { .. } => ErrorReason::UploadOffsetGap,
        Error::ReadOutOfRange { .. } => ErrorReason::ReadOffsetOutOfRange,
        Error::Unauthenticated(CredentialsError::Missing) => ErrorReason::CredentialsMissing,
        Error::Unauthenticated(CredentialsError::Invalid(_)) => ErrorReason::CredentialsInvalid,
        Error::NotAllowed(_) => ErrorReason::NotAllowed,
        Error::NotFound(_) | Error::FetchFailed { kind: FetchFailure::Gone, .. } => ErrorReason::NotFound,
        Error::QuotaBytes { .. } => ErrorReason::QuotaBytesExceeded,
        Error::QuotaFiles { .. } => ErrorReason::QuotaFilesExceeded,
        Error::FileTooLarge { .. } => ErrorReason::FileTooLarge,
        Error::UploadNotFinished | Error::UploadPaused { .. } => ErrorReason::UploadNotFinished,
        Error::UploadCommitted(_) => ErrorReason::UploadCommitted,
        Error::UploadStalled(_) => ErrorReason::UploadStalled,
        Error::EtagMismatch => ErrorReason::EtagMismatch,
        Error::RequestInProgress => ErrorReason::RequestInProgress,
        Error::UploadFenced | Error::CommitTooLate { .. } => ErrorReason::UploadFenced,
        Error::FileDeleted => ErrorReason::FileDeleted,
        Error::FileNotAvailable(_) => ErrorReason::FileNotAvailable,
        Error::VersionIsCurrent(_) => ErrorReason::VersionIsCurrent,
        Error::FileRetained { .. } => ErrorReason::FileRetained,
        Error::Batch { reason, .. } => self::reason(reason),
        Error::ScanRequired => ErrorReason::ScanRequired,
        Error::QuotaBelowUsage { .. } => ErrorReason::QuotaBelowUsage,
        Error::TenantSuspended => ErrorReason::TenantSuspended,
        Error::TenantDeleted => ErrorReason::TenantDeleted,
        Error::TenantExists(_) => ErrorReason::TenantExists,
        Error::TenantRetained { .. } => ErrorReason::TenantRetained,
        Error::CategoryExists(_) => ErrorReason::CategoryExists,
        Error::CategoryInUse(_) => ErrorReason::CategoryInUse,
        Error::ObjectMissing => ErrorReason::ObjectMissing,
        Error::ObjectDamaged => ErrorReason::ObjectDamaged,
        Error::StorageUnavailable(_)
        | Error::ProviderUnknown(_)
        | Error::FetchFailed { kind: FetchFailure::Unavailable, .. } => ErrorReason::StorageUnavailable,
        Error::FetchFailed { kind: FetchFailure::Refused, .. } => ErrorReason::ImportRefused,
        Error::DatabaseUnavailable(_) | Error::OutcomeUnknown(_) => ErrorReason::DatabaseUnavailable,
        Error::Overloaded(_) => ErrorReason::Overloaded,
        Error::ShuttingDown => ErrorReason::ShuttingDown,
        Error::Internal(_) => ErrorReason::Internal,
    }
}

/// How to react, by the reason (CONTRACT, "Codes, because retries follow them").
pub(super) fn code(reason: ErrorReason) -> Code {
    match reason {
        ErrorReason::InvalidField
        | ErrorReason::PageTokenInvalid
        | ErrorReason::CursorInvalid
        | ErrorReason::StreamOrderInvalid
        | ErrorReason::ChecksumMismatch
        | ErrorReason::SizeMismatch
        | ErrorReason::RequestIdReused => Code::InvalidArgument,
        ErrorReason::UploadOffsetGap | ErrorReason::ReadOffsetOutOfRange => Code::OutOfRange,
        ErrorReason::CredentialsMissing | ErrorReason::CredentialsInvalid => Code::Unauthenticated,
        ErrorReason::NotAllowed => Code::PermissionDenied,
        ErrorReason::NotFound => Code::NotFound,
        ErrorReason::QuotaBytesExceeded
        | ErrorReason::QuotaFilesExceeded
        | ErrorReason::FileTooLarge
        | ErrorReason::Overloaded => Code::ResourceExhausted,
        ErrorReason::UploadNotFinished
        | ErrorReason::UploadStalled
        | ErrorReason::UploadFenced
        | ErrorReason::EtagMismatch
        | ErrorReason::RequestInProgress => Code::Aborted,
        ErrorReason::FileDeleted
        | ErrorReason::FileNotAvailable
        | ErrorReason::FileRetained
        | ErrorReason::VersionIsCurrent
        | ErrorReason::ScanRequired
        | ErrorReason::UploadCommitted
        | ErrorReason::UploadPartsTooLarge
        | ErrorReason::DirectUploadUnsupported
        | ErrorReason::UploadIsDirect
        | ErrorReason::UploadNotDirect
        | ErrorReason::QuotaBelowUsage
        | ErrorReason::CursorTooOld
        | ErrorReason::WebhookLimit
        | ErrorReason::ImportRefused
        | ErrorReason::TenantSuspended
        | ErrorReason::TenantDeleted
        | ErrorReason::TenantRetained
        | ErrorReason::CategoryInUse => Code::FailedPrecondition,
        ErrorReason::TenantExists | ErrorReason::CategoryExists => Code::AlreadyExists,
        ErrorReason::ObjectMissing | ErrorReason::ObjectDamaged => Code::DataLoss,
        ErrorReason::StorageUnavailable | ErrorReason::DatabaseUnavailable | ErrorReason::ShuttingDown => {
            Code::Unavailable
        }
        ErrorReason::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorReason::Unspecified | ErrorReason::Internal => Code::Internal,
    }
}

/// The figures of the message once more, for programs.
fn metadata(error: &Error) -> Vec<(&'static str, String)> {
    match error {
        Error::ChecksumMismatch { algorithm } => vec![("algorithm", (*algorithm).to_owned())],
        Error::SizeMismatch { declared, received } => {
            vec![("declared_bytes", declared.to_string()), ("received_bytes", received.to_string())]
        }
        Error::PartSizeMismatch { number, declared, received } => vec![
            ("part_number", number.to_string()),
            ("declared_bytes", declared.to_string()),
            ("received_bytes", received.to_string()),
        ],
        Error::UploadHasAllBytes { size_bytes } => vec![("declared_bytes", size_bytes.to_string())],
        Error::UploadPartsTooLarge { part_size_bytes } => {
            vec![("part_size_bytes", part_size_bytes.to_string())]
        }
        Error::OffsetGap { expected, received } => vec![
            ("persisted_size_bytes", expected.to_string()),
            ("received_offset_bytes", received.to_string()),
        ],
        Error::UploadPaused { persisted_size_bytes } => {
            vec![("persisted_size_bytes", persisted_size_bytes.to_string())]
        }
        Error::UploadCommitted(file) => vec![("file_id", file.to_string())],
        Error::ReadOutOfRange { size_bytes } => vec![("size_bytes", size_bytes.to_string())],
        Error::QuotaBytes { needed_bytes, used_bytes, reserved_bytes, limit_bytes } => vec![
            ("needed_bytes", needed_bytes.to_string()),
            ("used_bytes", used_bytes.to_string()),
            ("reserved_bytes", reserved_bytes.to_string()),
            ("limit_bytes", limit_bytes.to_string()),
        ],
        Error::QuotaFiles { file_count, file_count_max } => {
            vec![("file_count", file_count.to_string()), ("file_count_max", file_count_max.to_string())]
        }
        Error::FileTooLarge { kind, limit_bytes } => {
            vec![("media_kind", (*kind).to_owned()), ("limit_bytes", limit_bytes.to_string())]
        }
        Error::UploadStalled(limit) => vec![("limit", limit.clone())],
        Error::FileNotAvailable(state) => vec![("state", state.as_str().to_uppercase())],
        Error::VersionIsCurrent(version) => vec![("version", version.to_string())],
        Error::FileRetained { until, hold } => {
            let until = until.map(|until| ("retain_until_time", until.to_rfc3339()));
            let by = hold.as_ref().map(|hold| ("hold_set_by", hold.by.clone()));
            until.into_iter().chain(by).collect()
        }
        Error::TenantExists(id) => vec![("tenant_id", id.to_string())],
        Error::TenantRetained { file_count, held_file_count, until } => {
            let counts = [("file_count", *file_count), ("held_file_count", *held_file_count)];
            let counts = counts.into_iter().map(|(name, count)| (name, count.to_string()));
            counts.chain(until.map(|until| ("retain_until_time", until.to_rfc3339()))).collect()
        }
        Error::QuotaBelowUsage { used_bytes, reserved_bytes, file_count } => vec![
            ("used_bytes", used_bytes.to_string()),
            ("reserved_bytes", reserved_bytes.to_string()),
            ("file_count", file_count.to_string()),
        ],
        _ => Vec::new(),
    }
}

/// Logs what the caller is not told. The request's span around it carries request id, tenant and trace id.
fn log(error: &Error) {
    match error {
        Error::Internal(_) | Error::ObjectMissing | Error::ObjectDamaged | Error::ProviderUnknown(_) => {
            tracing::error!(error = chain(error), "request failed");
        }
        Error::StorageUnavailable(_) | Error::DatabaseUnavailable(_) | Error::OutcomeUnknown(_) => {
            tracing::warn!(error = chain(error), "request failed");
        }
        error => tracing::debug!(%error, "request refused"),
    }
}

/// An error and everything that caused it, the outermost first.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
