//! The reason of every error, and the code of every reason.

use tonic::Code;

use crate::{
    app::{
        CredentialsError, Error, UserLimit,
        imports::{FetchFailure, ImportError},
        uploads::UploadError,
        visitors::VisitorError,
    },
    proto::v1::ErrorReason,
};

/// The name of a reason in `ErrorInfo`: without its prefix.
pub(in crate::grpc) fn reason_name(reason: ErrorReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("ERROR_REASON_").unwrap_or(name)
}

/// The reason of an error.
pub(in crate::grpc) fn reason(error: &Error) -> ErrorReason {
    match error {
        Error::Invalid(_) => ErrorReason::InvalidField,
        Error::PageTokenInvalid => ErrorReason::PageTokenInvalid,
        Error::CursorInvalid => ErrorReason::CursorInvalid,
        Error::CursorTooOld => ErrorReason::CursorTooOld,
        Error::TooManyWebhooks(_) => ErrorReason::WebhookLimit,
        Error::TooManyShares { .. } => ErrorReason::FileSharesExceeded,
        Error::ShareRevoked => ErrorReason::ShareRevoked,
        Error::Upload(error) => upload_reason(error),
        Error::Import(error) => import_reason(error),
        Error::Visitor(VisitorError::PasswordRequired) => ErrorReason::SharePasswordRequired,
        Error::Visitor(VisitorError::PasswordWrong) => ErrorReason::SharePasswordWrong,
        Error::Visitor(VisitorError::AttemptsExhausted { .. }) => ErrorReason::ShareAttemptsExhausted,
        Error::Visitor(VisitorError::GrantSpent { .. }) => ErrorReason::ShareGrantSpent,
        Error::RequestIdReused => ErrorReason::RequestIdReused,
        Error::ReadOutOfRange { .. } => ErrorReason::ReadOffsetOutOfRange,
        Error::Unauthenticated(CredentialsError::Missing) => ErrorReason::CredentialsMissing,
        Error::Unauthenticated(CredentialsError::Invalid(_)) => ErrorReason::CredentialsInvalid,
        Error::NotAllowed(_) => ErrorReason::NotAllowed,
        Error::NotFound(_) => ErrorReason::NotFound,
        Error::QuotaBytes(_) => ErrorReason::QuotaBytesExceeded,
        Error::QuotaFiles { .. } => ErrorReason::QuotaFilesExceeded,
        Error::UserQuota(shortage) => match shortage.exceeded {
            UserLimit::Bytes { .. } => ErrorReason::UserQuotaBytesExceeded,
            UserLimit::Files { .. } => ErrorReason::UserQuotaFilesExceeded,
        },
        Error::FileTooLarge { .. } => ErrorReason::FileTooLarge,
        Error::TooManyVersions { .. } => ErrorReason::FileVersionsExceeded,
        Error::TooManyGrants { .. } => ErrorReason::FileGrantsExceeded,
        Error::TenantPersonal => ErrorReason::TenantPersonal,
        Error::EtagMismatch => ErrorReason::EtagMismatch,
        Error::RequestInProgress => ErrorReason::RequestInProgress,
        Error::FileDeleted => ErrorReason::FileDeleted,
        Error::FileNotAvailable(_) => ErrorReason::FileNotAvailable,
        Error::VersionIsCurrent(_) => ErrorReason::VersionIsCurrent,
        Error::FileRetained { .. } => ErrorReason::FileRetained,
        Error::Batch { reason, .. } => self::reason(reason),
        Error::ScanRequired => ErrorReason::ScanRequired,
        Error::EmailNotConfigured => ErrorReason::EmailNotConfigured,
        Error::QuotaBelowUsage { .. } => ErrorReason::QuotaBelowUsage,
        Error::CreditsExhausted { .. } => ErrorReason::CreditsExhausted,
        Error::TenantSuspended => ErrorReason::TenantSuspended,
        Error::TenantReadOnly => ErrorReason::TenantReadOnly,
        Error::TenantDeleted => ErrorReason::TenantDeleted,
        Error::TenantCreationsExhausted { .. } => ErrorReason::TenantCreationsExhausted,
        Error::TenantExists(_) => ErrorReason::TenantExists,
        Error::TenantRetained { .. } => ErrorReason::TenantRetained,
        Error::CategoryExists(_) => ErrorReason::CategoryExists,
        Error::CategoryInUse(_) => ErrorReason::CategoryInUse,
        Error::ObjectMissing => ErrorReason::ObjectMissing,
        Error::ObjectDamaged => ErrorReason::ObjectDamaged,
        Error::ProviderUnknown(_) => ErrorReason::StorageNotConfigured,
        Error::StorageUnavailable(_) => ErrorReason::StorageUnavailable,
        Error::StorageFull(_) => ErrorReason::StorageFull,
        Error::StoreNotOwned(_) => ErrorReason::StorageNotOwned,
        Error::DatabaseUnavailable(_) | Error::OutcomeUnknown { has_request_id: true, .. } => {
            ErrorReason::DatabaseUnavailable
        }
        Error::OutcomeUnknown { has_request_id: false, .. } => ErrorReason::OutcomeUnknown,
        Error::WatchesExhausted { .. } => ErrorReason::WatchesExhausted,
        Error::Overloaded(_) => ErrorReason::Overloaded,
        Error::RateLimited { .. } => ErrorReason::RateLimited,
        Error::ShuttingDown => ErrorReason::ShuttingDown,
        Error::Internal(_) => ErrorReason::Internal,
    }
}

fn upload_reason(error: &UploadError) -> ErrorReason {
    match error {
        UploadError::StreamOrder(_) => ErrorReason::StreamOrderInvalid,
        UploadError::ChecksumMismatch { .. } | UploadError::PartEtagMismatch { .. } => {
            ErrorReason::ChecksumMismatch
        }
        UploadError::DigestUnknown(_) => ErrorReason::FileNotAvailable,
        UploadError::ResentBytesDiffer => ErrorReason::UploadContentDiffers,
        UploadError::SizeMismatch { .. }
        | UploadError::PartSizeMismatch { .. }
        | UploadError::HasAllBytes { .. } => ErrorReason::SizeMismatch,
        UploadError::PartsTooLarge { .. } => ErrorReason::UploadPartsTooLarge,
        UploadError::DirectUnsupported => ErrorReason::DirectUploadUnsupported,
        UploadError::IsDirect => ErrorReason::UploadIsDirect,
        UploadError::TooManyOpen { .. } => ErrorReason::OpenUploadsExceeded,
        UploadError::NotDirect => ErrorReason::UploadNotDirect,
        UploadError::OffsetGap { .. } => ErrorReason::UploadOffsetGap,
        UploadError::NotFinished | UploadError::Paused { .. } => ErrorReason::UploadNotFinished,
        UploadError::Committed(_) => ErrorReason::UploadCommitted,
        UploadError::Stalled(_) => ErrorReason::UploadStalled,
        UploadError::Fenced | UploadError::CommitTooLate { .. } => ErrorReason::UploadFenced,
        UploadError::PartsLost => ErrorReason::UploadPartsLost,
    }
}

fn import_reason(error: &ImportError) -> ErrorReason {
    match error {
        ImportError::StreamOrder(_) => ErrorReason::StreamOrderInvalid,
        ImportError::Stalled(_) => ErrorReason::UploadStalled,
        ImportError::FetchFailed { kind: FetchFailure::Gone, .. } => ErrorReason::NotFound,
        ImportError::FetchFailed { kind: FetchFailure::Refused, .. } => ErrorReason::ImportRefused,
        ImportError::FetchFailed { kind: FetchFailure::Unavailable, .. }
        | ImportError::SourceIdle(_)
        | ImportError::SourceSlow { .. } => ErrorReason::StorageUnavailable,
        ImportError::ChecksumMismatch { .. } => ErrorReason::ChecksumMismatch,
        ImportError::SizeMismatch { .. } => ErrorReason::SizeMismatch,
        ImportError::StoreLostBytes => ErrorReason::UploadPartsLost,
        ImportError::LeaseExpired | ImportError::CommitTooLate { .. } => ErrorReason::UploadFenced,
    }
}

/// The code of a reason.
pub(super) fn code(reason: ErrorReason) -> Code {
    match reason {
        ErrorReason::InvalidField
        | ErrorReason::PageTokenInvalid
        | ErrorReason::CursorInvalid
        | ErrorReason::StreamOrderInvalid
        | ErrorReason::ChecksumMismatch
        | ErrorReason::SizeMismatch
        | ErrorReason::UploadContentDiffers
        | ErrorReason::MalformedMessage
        | ErrorReason::RequestIdReused => Code::InvalidArgument,
        ErrorReason::UploadOffsetGap | ErrorReason::ReadOffsetOutOfRange => Code::OutOfRange,
        ErrorReason::CredentialsMissing | ErrorReason::CredentialsInvalid => Code::Unauthenticated,
        ErrorReason::NotAllowed | ErrorReason::SharePasswordWrong => Code::PermissionDenied,
        ErrorReason::NotFound => Code::NotFound,
        ErrorReason::QuotaBytesExceeded
        | ErrorReason::QuotaFilesExceeded
        | ErrorReason::UserQuotaBytesExceeded
        | ErrorReason::UserQuotaFilesExceeded
        | ErrorReason::OpenUploadsExceeded
        | ErrorReason::FileVersionsExceeded
        | ErrorReason::FileSharesExceeded
        | ErrorReason::FileGrantsExceeded
        | ErrorReason::FileTooLarge
        | ErrorReason::MessageTooLarge
        | ErrorReason::TenantCreationsExhausted
        | ErrorReason::ShareAttemptsExhausted
        | ErrorReason::StorageFull
        | ErrorReason::Overloaded
        | ErrorReason::RateLimited => Code::ResourceExhausted,
        ErrorReason::UploadNotFinished
        | ErrorReason::UploadStalled
        | ErrorReason::UploadFenced
        | ErrorReason::UploadPartsLost
        | ErrorReason::EtagMismatch
        | ErrorReason::RequestInProgress
        | ErrorReason::OutcomeUnknown => Code::Aborted,
        reason => code_of_state(reason),
    }
}

/// Returns the code of reasons that are about the state of the service or of a resource.
fn code_of_state(reason: ErrorReason) -> Code {
    match reason {
        ErrorReason::SharePasswordRequired
        | ErrorReason::ShareGrantSpent
        | ErrorReason::FileDeleted
        | ErrorReason::FileNotAvailable
        | ErrorReason::FileRetained
        | ErrorReason::VersionIsCurrent
        | ErrorReason::ScanRequired
        | ErrorReason::EmailNotConfigured
        | ErrorReason::UploadCommitted
        | ErrorReason::UploadPartsTooLarge
        | ErrorReason::DirectUploadUnsupported
        | ErrorReason::UploadIsDirect
        | ErrorReason::UploadNotDirect
        | ErrorReason::QuotaBelowUsage
        | ErrorReason::CreditsExhausted
        | ErrorReason::CursorTooOld
        | ErrorReason::WebhookLimit
        | ErrorReason::WatchesExhausted
        | ErrorReason::ImportRefused
        | ErrorReason::StorageNotConfigured
        | ErrorReason::StorageNotOwned
        | ErrorReason::TenantPersonal
        | ErrorReason::ShareRevoked
        | ErrorReason::TenantSuspended
        | ErrorReason::TenantReadOnly
        | ErrorReason::TenantDeleted
        | ErrorReason::TenantRetained
        | ErrorReason::CategoryInUse => Code::FailedPrecondition,
        ErrorReason::TenantExists | ErrorReason::CategoryExists => Code::AlreadyExists,
        ErrorReason::ObjectMissing | ErrorReason::ObjectDamaged => Code::DataLoss,
        ErrorReason::StorageUnavailable | ErrorReason::DatabaseUnavailable | ErrorReason::ShuttingDown => {
            Code::Unavailable
        }
        ErrorReason::EncodingUnsupported | ErrorReason::MethodUnknown => Code::Unimplemented,
        ErrorReason::DeadlineExceeded => Code::DeadlineExceeded,
        // The tests compare all codes with those that the contract documents.
        _ => Code::Internal,
    }
}
