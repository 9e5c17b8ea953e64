//! What to do about a refusal, in half a sentence. The match is exhaustive: a new reason does not compile
//! without one.

use crate::proto::v1::ErrorReason;

/// What the caller can do, or nothing where the server's message already says all there is.
pub(super) fn for_reason(reason: ErrorReason) -> Option<&'static str> {
    use ErrorReason as R;
    Some(match reason {
        R::Unspecified | R::InvalidField | R::DeadlineExceeded | R::VersionIsCurrent => return None,
        R::PageTokenInvalid => "list again from the first page",
        R::CursorInvalid => "watch without a cursor",
        R::CursorTooOld => "watch without a cursor, list again, and apply what the watch brings",
        R::WebhookLimit => "delete a webhook first",
        R::ImportRefused => "see what the URL answers, and whether its host gives it to everybody",
        R::StreamOrderInvalid => "client and server disagree about the protocol: update the older one",
        R::ChecksumMismatch => "the bytes were damaged on their way: send them again",
        R::UploadContentDiffers => "cancel the upload and create another one for the other bytes",
        R::MessageTooLarge => "send smaller messages",
        R::MalformedMessage => "client and server use different protocols: update the older one",
        R::EncodingUnsupported => "send without this compression",
        R::MethodUnknown => "update the server: it does not know this method",
        R::StorageNotConfigured => "ask the operator to configure the storage provider",
        R::SizeMismatch => "the source changed while it was read: send it again",
        R::RequestIdReused => "use a new request id for a new request",
        R::UploadOffsetGap => "go on from where the upload is, or send it again from its start",
        R::ReadOffsetOutOfRange => "read from an offset inside the file",
        R::CredentialsMissing => "send a token",
        R::CredentialsInvalid => "get a new token",
        R::NotAllowed => "ask the file's owner or an administrator",
        R::NotFound => "check the id and the token: what a token may not see looks as if it did not exist",
        R::QuotaBytesExceeded | R::QuotaFilesExceeded => "delete files or have the limit raised",
        R::FileTooLarge => "send a smaller file or have the limit raised",
        R::Overloaded | R::StorageUnavailable | R::DatabaseUnavailable | R::ShuttingDown => "try again later",
        R::UploadNotFinished => "no file was stored: send it again, or go on with the upload",
        R::UploadFenced => "no file was stored here: see whether another client went on, or send it again",
        R::UploadPartsTooLarge => "cancel the upload and send it again",
        R::UploadCommitted => "the file is there: delete it if it is not wanted",
        R::DirectUploadUnsupported => "upload through the service",
        R::UploadIsDirect => "send the bytes to the upload's URLs",
        R::UploadNotDirect => "send the bytes through the service",
        R::UploadStalled => "no file was stored: send it again, faster",
        R::EtagMismatch => "read it again and decide anew",
        R::RequestInProgress => "the first request is still running: try again later",
        R::FileDeleted => "undelete the file first",
        R::FileNotAvailable => "wait until the file is available",
        R::FileRetained => "wait until its retention ends",
        R::ScanRequired => "ask the operator to configure a scanner",
        R::QuotaBelowUsage => "delete files first or choose a higher limit",
        R::TenantSuspended => "ask the operator to resume the tenant",
        R::TenantDeleted => "ask the operator: a deleted tenant does not come back",
        R::TenantExists => "use the tenant that is there",
        R::TenantRetained => "wait until the retention of its files ends",
        R::CategoryExists => "choose another name or update the category",
        R::CategoryInUse => "purge its files first, or make another category the default",
        R::ObjectMissing | R::ObjectDamaged => "tell the operator: the stored bytes are not what they were",
        R::Internal => "report it with the call id",
    })
}
