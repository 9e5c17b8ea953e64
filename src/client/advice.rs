//! The advice that is appended to the message of a rejected call. The match is exhaustive, so that a new
//! reason does not compile without advice.

use crate::proto::v1::ErrorReason;

/// What the caller can do about an exhausted quota.
const FREE_QUOTA: &str = "purge files that are no longer needed, in the trash too (a deleted file counts until it is \
                          purged), or ask an operator for a higher limit";

/// What the caller can do about an exhausted quota of a user.
const FREE_USER_QUOTA: &str = "purge files of the user, or have the limit of the user raised";

/// Returns what the caller can do, or `None` if the server's message already states it.
pub(super) fn find_advice(reason: ErrorReason) -> Option<&'static str> {
    use ErrorReason as R;
    Some(match reason {
        R::Unspecified
        | R::InvalidField
        | R::DeadlineExceeded
        | R::VersionIsCurrent
        | R::PageTokenInvalid
        | R::CursorInvalid
        | R::CursorTooOld
        | R::WatchesExhausted
        | R::WebhookLimit
        | R::StorageNotConfigured
        | R::RequestIdReused
        | R::EtagMismatch
        | R::FileDeleted
        | R::RequestInProgress
        | R::ScanRequired
        | R::EmailNotConfigured
        | R::TenantPersonal
        | R::TenantSuspended
        | R::TenantReadOnly
        | R::OutcomeUnknown
        | R::CategoryInUse | R::FileSharesExceeded | R::ShareRevoked
        // The server states when to try again.
        | R::Overloaded | R::StorageUnavailable | R::DatabaseUnavailable
        | R::SharePasswordRequired | R::SharePasswordWrong | R::ShareAttemptsExhausted
        | R::ShuttingDown => return None,
        R::ImportRefused => "check whether the host of the URL serves it without credentials",
        R::StreamOrderInvalid | R::MalformedMessage => "client and server use different protocols: update the older one",
        R::ChecksumMismatch => "the bytes were damaged in transit: send them again",
        R::UploadContentDiffers => "cancel the upload and create another one for the other bytes",
        R::MessageTooLarge => "send smaller messages",
        R::EncodingUnsupported => "send without this compression",
        R::MethodUnknown => "update the server: it does not have this method",
        R::SizeMismatch => "the source changed while it was read: upload it again",
        R::UploadOffsetGap => "resume at the persisted size of the upload, or upload the file again",
        R::ReadOffsetOutOfRange => "read from an offset inside the file",
        R::CredentialsMissing => "send a token",
        R::CredentialsInvalid => "get a new token",
        R::NotAllowed => "ask the owner of the file or an admin",
        R::NotFound => "check the id and the token: what the caller may not read is reported as not found",
        R::QuotaBytesExceeded | R::QuotaFilesExceeded => FREE_QUOTA,
        R::UserQuotaBytesExceeded | R::UserQuotaFilesExceeded => FREE_USER_QUOTA,
        R::StorageFull => "purge files that are no longer needed, or ask the operator to add space",
        R::OpenUploadsExceeded => "complete or cancel an open upload first",
        R::FileVersionsExceeded => "delete versions of the file first",
        R::FileGrantsExceeded => "revoke grants, or grant the permission to a group",
        R::FileTooLarge => "upload a smaller file, or ask for a higher limit",
        R::RateLimited => "send fewer calls per second",
        R::UploadNotFinished => "no file was stored: resume the upload, or send the file again",
        R::UploadFenced => "no file was stored: another client resumed the upload, or it took too long",
        R::UploadPartsLost => "no file was stored: send the file again as a new upload",
        R::UploadPartsTooLarge => "cancel the upload, then send the file again",
        R::UploadCommitted => "the file exists: delete it if you do not want it",
        R::UploadIsDirect => "send the bytes to the upload's URLs",
        R::DirectUploadUnsupported | R::UploadNotDirect => "send the bytes through the service",
        R::UploadStalled => "no file was stored: send the file again at a higher rate",
        R::FileNotAvailable => "wait until the file is available",
        R::CreditsExhausted => "ask the operator to add credits",
        R::FileRetained | R::TenantRetained => "wait until the retention ends",
        R::QuotaBelowUsage => "delete files first or choose a higher limit",
        R::TenantCreationsExhausted => "the tenant does not exist yet: try again after the delay",
        R::TenantDeleted => "ask the operator: a deleted tenant cannot be restored",
        R::TenantExists => "use the existing tenant",
        R::CategoryExists => "choose another name or update the category",
        R::ShareGrantSpent => "open the share again, which counts as another download",
        R::ObjectMissing | R::ObjectDamaged => "report it to the operator: stored bytes are missing or damaged",
        R::Internal | R::StorageNotOwned => "report it with the call id",
    })
}
