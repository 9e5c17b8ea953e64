//! Errors of use cases. Adapter errors, which carry a kind and a source, are converted to these;
//! `grpc/status.rs` is the only place that converts these to a gRPC status.

use std::time::Duration;

use crate::{
    db::{DbError, DbErrorKind},
    domain::{
        caller::TenantState,
        clock::Timestamp,
        file::{FileState, LegalHold, WrongState},
        ids::{FileId, TenantId},
        media_type::MediaKind,
        quota::Quota,
        violations::Violations,
    },
    storage::{StorageError, StorageErrorKind, UnknownProvider},
};

/// An error of a use case, in terms that a caller can act on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields of the request are invalid. Lists every violation.
    #[error("invalid request: {0}")]
    Invalid(Violations),
    /// The page token is damaged or belongs to another list.
    #[error(
        "page token is damaged, or belongs to another filter, order or tenant; list again from the start"
    )]
    PageTokenInvalid,
    /// The cursor is damaged or belongs to another tenant.
    #[error("cursor is damaged, or belongs to another tenant; watch without a cursor")]
    CursorInvalid,
    /// Events after the cursor may have been dropped.
    #[error(
        "cursor is too old: events after it may have been dropped; list again, then watch without a cursor to get a new one"
    )]
    CursorTooOld,
    /// Messages of a stream arrived out of order.
    #[error("{0}")]
    StreamOrder(&'static str),
    /// The received bytes do not match the checksum of the request.
    #[error("{algorithm} of the received bytes does not match the one in the request; send the upload again")]
    ChecksumMismatch { algorithm: &'static str },
    /// The number of received bytes differs from the declared one.
    #[error("received {received} bytes; the request declared {declared}")]
    SizeMismatch { declared: u64, received: u64 },
    /// The request id was used for another request.
    #[error("request id was used with another payload; use a new UUID for a new request")]
    RequestIdReused,
    /// A chunk does not start where the previous one ended.
    #[error("chunk starts at offset {received}; expected offset {expected}")]
    OffsetGap { expected: u64, received: i64 },
    /// The requested range starts after the end of the file.
    #[error("range starts after the end of the file, which has {size_bytes} bytes")]
    ReadOutOfRange { size_bytes: u64 },
    /// The request has no usable credentials.
    #[error("{0}")]
    Unauthenticated(CredentialsError),
    /// The caller may see the resource but may not do this.
    #[error("not allowed: {0}")]
    NotAllowed(&'static str),
    /// The resource does not exist, or the caller may not see it.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// The bytes do not fit the tenant's quota.
    #[error(
        "{needed_bytes} more bytes exceed the tenant's quota: {used_bytes} bytes used and {reserved_bytes} reserved of {limit_bytes}"
    )]
    #[allow(missing_docs, reason = "the fields are the values in the message")]
    QuotaBytes { needed_bytes: i64, used_bytes: i64, reserved_bytes: i64, limit_bytes: i64 },
    /// The tenant's quota allows no more files.
    #[error("tenant has {file_count} files; its limit is {file_count_max}")]
    #[allow(missing_docs, reason = "the fields are the values in the message")]
    QuotaFiles { file_count: i64, file_count_max: i64 },
    /// The file exceeds the size limit of its kind.
    #[error("file has {size_bytes} bytes; the limit for {} is {limit_bytes} bytes", describe_kind(*kind))]
    FileTooLarge {
        /// The media kind, if it is known.
        kind: Option<MediaKind>,
        /// The declared size, or the number of bytes received so far.
        size_bytes: u64,
        limit_bytes: i64,
    },
    /// The stream ended without a finish message.
    #[error("stream ended without a finish message; nothing was stored")]
    UploadNotFinished,
    /// The stream of a resumable upload ended without a finish message.
    #[error(
        "upload is not finished: {persisted_size_bytes} bytes are stored; resume from there with its upload id"
    )]
    UploadPaused {
        /// The offset to resume from.
        persisted_size_bytes: u64,
    },
    /// Bytes that were sent again differ from the stored ones.
    #[error(
        "resent bytes differ from the stored ones; cancel this upload and create a new one for other bytes"
    )]
    ResentBytesDiffer,
    /// The upload already has all of its bytes.
    #[error("upload already ends at {size_bytes} bytes; complete it, or cancel it and start again")]
    UploadHasAllBytes { size_bytes: u64 },
    /// One part of the upload no longer fits the server's byte budget.
    #[error(
        "parts of this upload have {part_size_bytes} bytes, more than this server now buffers; cancel it and create a new one"
    )]
    UploadPartsTooLarge { part_size_bytes: u64 },
    /// The upload was already committed as a file.
    #[error("upload was committed as file {0}; delete the file instead")]
    UploadCommitted(FileId),
    /// The object store cannot create upload URLs.
    #[error(
        "this server's object store does not support upload URLs; use UploadFile, or CreateUpload without `direct`"
    )]
    DirectUploadUnsupported,
    /// The upload is direct: its bytes are sent to its URLs.
    #[error(
        "upload is direct: send its bytes to its URLs (GetUpload with `with_urls`), then call CompleteUpload"
    )]
    UploadIsDirect,
    /// The upload is not direct: its bytes are sent to this server.
    #[error(
        "upload is not direct: it has no URLs and no `parts`; send its bytes with UploadFile or UploadPart"
    )]
    UploadNotDirect,
    /// A part does not have the required size.
    #[error("part {number} has {received} bytes and must have {declared}; PUT it again, then complete again")]
    #[allow(missing_docs, reason = "the fields are the values in the message")]
    PartSizeMismatch { number: u32, declared: u64, received: u64 },
    /// The client sent its bytes too slowly.
    #[error("upload stalled: {0}; it was not committed")]
    UploadStalled(Stall),
    /// The stream lost its lease on the upload.
    #[error(
        "stream lost its lease on the upload: another stream resumed it, or it was abandoned; this stream stored no file"
    )]
    UploadFenced,
    /// The commit is so late that the sweeper may already have deleted the bytes.
    #[error(
        "bytes were stored {} s before the commit; the limit is {} s; no file was stored; send the upload again",
        age.as_secs(), age_max.as_secs()
    )]
    #[allow(missing_docs, reason = "the fields are the values in the message")]
    CommitTooLate { age: Duration, age_max: Duration },
    /// The resource changed since the caller read its etag.
    #[error("resource changed since its etag was read; read it again")]
    EtagMismatch,
    /// Another request with this id is still running.
    #[error("a request with this id is still running; retry in a moment")]
    RequestInProgress,
    /// The file is in the trash.
    #[error("file is in the trash; undelete it first")]
    FileDeleted,
    /// The file's state does not allow the operation.
    #[error("not possible while the file is {0}")]
    FileNotAvailable(FileState),
    /// The current version can be neither deleted nor restored.
    #[error(
        "version {0} is the current version; upload or restore another version first, or delete the file"
    )]
    VersionIsCurrent(i32),
    /// Retention or a legal hold prevents the deletion of the file.
    #[error("{}", retained_message(*until, hold.as_ref()))]
    FileRetained {
        /// The end of the retention, unless it has passed.
        until: Option<Timestamp>,
        hold: Option<LegalHold>,
    },
    /// Some items of an all-or-nothing batch were refused. Reported to the caller as the most severe reason.
    #[error("nothing was changed: {} items of the batch were refused: {reason}", violations.iter().count())]
    Batch {
        /// The most severe reason.
        reason: Box<Error>,
        /// Every refused item, by its index in the batch.
        violations: Violations,
    },
    /// The policy requires a scan and the server has no scanner.
    #[error(
        "tenant's policy requires a scan, and this server has no scanner; its operator can set scanning.accept_unscanned"
    )]
    ScanRequired,
    /// The tenant has reached the limit of webhooks.
    #[error("tenant has reached the limit of {0} webhooks; delete one first")]
    TooManyWebhooks(u32),
    /// The tenant has the maximum number of watches on this replica.
    #[error(
        "tenant has {watch_count_max} watches on this replica, which is the limit; close one of them first"
    )]
    WatchesExhausted { watch_count_max: usize },
    /// The new limits are lower than the current usage.
    #[error(
        "new limits are below the current usage: {used_bytes} bytes used, {reserved_bytes} reserved, {file_count} files"
    )]
    #[allow(missing_docs, reason = "the fields are the values in the message")]
    QuotaBelowUsage { used_bytes: i64, reserved_bytes: i64, file_count: i64 },
    /// The tenant is suspended.
    #[error("tenant is suspended; the operator can resume it")]
    TenantSuspended,
    /// The tenant was deleted, or its deletion is in progress.
    #[error("tenant was deleted")]
    TenantDeleted,
    /// A tenant with this name exists.
    #[error("tenant with this issuer and external id already exists: {0}")]
    TenantExists(TenantId),
    /// Retention or legal holds on files prevent the deletion of the tenant.
    #[error(
        "{file_count} files of the tenant must be kept: {held_file_count} until their legal hold is released{}",
        until.map(|until| format!(", the last of the others until {until}")).unwrap_or_default()
    )]
    #[allow(missing_docs, reason = "the fields are the values in the message")]
    TenantRetained { file_count: i64, held_file_count: i64, until: Option<Timestamp> },
    /// A category with this name exists.
    #[error("category `{0}` already exists")]
    CategoryExists(String),
    /// The category is in use and cannot be deleted.
    #[error("category cannot be deleted: {0}")]
    CategoryInUse(&'static str),
    /// The object of the file is missing from the store.
    #[error("stored bytes of this file are missing")]
    ObjectMissing,
    /// The stored bytes do not match the file's record.
    #[error("stored bytes of this file are damaged")]
    ObjectDamaged,
    /// The content of a URL could not be fetched.
    #[error("URL cannot be imported: {reason}")]
    FetchFailed {
        /// Whether a retry may succeed.
        kind: FetchFailure,
        /// The cause, without the URL, because the URL may contain a secret.
        reason: String,
    },
    /// The object store is unavailable.
    #[error("object store is unavailable")]
    StorageUnavailable(#[source] StorageError),
    /// The file is stored with a provider that is not configured.
    #[error("the provider `{0}` of this file is not configured; the operator of this server can add it")]
    ProviderUnknown(String),
    /// The database is unavailable.
    #[error("database is unavailable")]
    DatabaseUnavailable(#[source] DbError),
    /// The response to a COMMIT was lost, and the outcome could not be looked up.
    #[error("outcome of the commit is not known; {}", advise_after_unknown(*has_request_id))]
    OutcomeUnknown {
        /// Whether the caller sent a request id, so that a retry is safe.
        has_request_id: bool,
        /// The error of the COMMIT.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// This process has reached one of its own limits.
    #[error("too many {0} at once; retry in a moment")]
    Overloaded(&'static str),
    /// This replica is shutting down.
    #[error("this replica is shutting down")]
    ShuttingDown,
    /// An error that callers cannot act on. Its cause is logged.
    #[error("internal error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Formats why a file must be kept, and until when.
fn retained_message(until: Option<Timestamp>, hold: Option<&LegalHold>) -> String {
    let until = until.map(|until| format!("until {}", until.to_rfc3339()));
    let hold = hold.map(|hold| {
        let since = hold.time.to_rfc3339();
        format!("until an admin releases the legal hold that {} set at {since} ({})", hold.by, hold.reason)
    });
    let both: Vec<String> = until.into_iter().chain(hold).collect();
    format!("file must be kept {}", both.join(" and "))
}

/// Returns what to do about [`Error::OutcomeUnknown`].
fn advise_after_unknown(has_request_id: bool) -> &'static str {
    match has_request_id {
        true => "retry with the same request_id",
        false => "read the resource to see whether it changed; send a request_id next time",
    }
}

/// Describes the files to which the limit of [`Error::FileTooLarge`] applies.
fn describe_kind(kind: Option<MediaKind>) -> &'static str {
    match kind {
        Some(MediaKind::Image) => "images",
        Some(MediaKind::Video) => "videos",
        Some(MediaKind::Audio) => "audio files",
        Some(MediaKind::Document) => "documents",
        Some(MediaKind::Other) => "other files",
        None => "any file",
    }
}

/// The way in which a client was too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stall {
    /// It sent no message for this long.
    #[error("received no message for {} seconds", .0.as_secs())]
    Idle(Duration),
    /// It sent fewer bytes in this time than the minimum rate requires.
    #[error(
        "received {received_bytes} bytes in {seconds} seconds; the minimum is {rate_min_bytes_per_second} bytes per second"
    )]
    Slow { received_bytes: u64, seconds: u64, rate_min_bytes_per_second: u64 },
}

/// The reason that a URL could not be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchFailure {
    /// The host reported that the content does not exist.
    Gone,
    /// The host returned something other than the content. A retry would not help.
    Refused,
    /// The host was unreachable or failed. A retry may succeed.
    Unavailable,
}

/// An error in the credentials of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// The request has no credentials.
    #[error("no credentials: send `authorization: Bearer <JWT>`")]
    Missing,
    /// The credentials are invalid. Contains the reason.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// Returns the delay before a retry, or `None` if a retry does not help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RequestInProgress => Some(Duration::from_millis(500)),
            Self::StorageUnavailable(_)
            | Self::FetchFailed { kind: FetchFailure::Unavailable, .. }
            | Self::DatabaseUnavailable(_)
            | Self::OutcomeUnknown { has_request_id: true, .. }
            | Self::Overloaded(_)
            | Self::ShuttingDown
            | Self::CommitTooLate { .. } => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// Wraps an error that callers cannot act on.
    pub fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(source.into())
    }

    /// Returns the error for a charge that did not fit the quota.
    pub fn quota_exceeded(quota: &Quota, needed_bytes: i64) -> Self {
        let lacks_bytes = quota.used_bytes + quota.reserved_bytes + needed_bytes > quota.limit_bytes;
        let has_files_left =
            quota.file_count_max == 0 || quota.file_count + quota.reserved_file_count < quota.file_count_max;
        // The quota was read after the refusal. Others may have released bytes since, so a charge that seems
        // to fit now still failed for lack of bytes.
        if lacks_bytes || has_files_left {
            return Self::QuotaBytes {
                needed_bytes,
                used_bytes: quota.used_bytes,
                reserved_bytes: quota.reserved_bytes,
                limit_bytes: quota.limit_bytes,
            };
        }
        Self::QuotaFiles { file_count: quota.file_count, file_count_max: quota.file_count_max }
    }

    /// Returns the error for an operation that the file's state does not allow.
    pub fn for_file_state(state: FileState) -> Self {
        match state {
            FileState::Deleted => Self::FileDeleted,
            state => Self::FileNotAvailable(state),
        }
    }

    /// Returns the error for a file above the size limit of its kind; `None` if the kind is not known yet.
    pub fn file_too_large(kind: Option<MediaKind>, size_bytes: u64, limit_bytes: i64) -> Self {
        Self::FileTooLarge { kind, size_bytes, limit_bytes }
    }
}

impl Error {
    /// Checks that a tenant in this state is served.
    ///
    /// # Errors
    /// Returns `TenantSuspended` or `TenantDeleted` if it is not.
    pub fn check_tenant_active(state: TenantState) -> Result<(), Self> {
        match state {
            TenantState::Active => Ok(()),
            TenantState::Suspended => Err(Self::TenantSuspended),
            TenantState::Deleting | TenantState::Deleted => Err(Self::TenantDeleted),
        }
    }
}

impl From<Violations> for Error {
    fn from(violations: Violations) -> Self {
        Self::Invalid(violations)
    }
}

impl From<WrongState> for Error {
    fn from(error: WrongState) -> Self {
        match error {
            WrongState::Deleted => Self::for_file_state(FileState::Deleted),
            WrongState::State(state) => Self::for_file_state(state),
        }
    }
}

impl From<DbError> for Error {
    fn from(error: DbError) -> Self {
        match &error.kind {
            DbErrorKind::OutcomeUnknown { has_request_id } => {
                Self::OutcomeUnknown { has_request_id: *has_request_id, source: error.into() }
            }
            DbErrorKind::Unavailable | DbErrorKind::TimedOut | DbErrorKind::Contended => {
                Self::DatabaseUnavailable(error)
            }
            DbErrorKind::Constraint(name) if name == "tenant_is_active" => Self::TenantSuspended,
            DbErrorKind::Constraint(name) if name == "tenant_is_not_deleted" => Self::TenantDeleted,
            DbErrorKind::Constraint(name) if name == "file_category_exists" => {
                Violations::one("spec.category", "was deleted from the tenant's policy").into()
            }
            DbErrorKind::Constraint(_) | DbErrorKind::Corrupt | DbErrorKind::Other => Self::internal(error),
        }
    }
}

impl From<UnknownProvider> for Error {
    fn from(UnknownProvider(provider): UnknownProvider) -> Self {
        Self::ProviderUnknown(provider)
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        match error.kind {
            StorageErrorKind::NotFound => Self::ObjectMissing,
            StorageErrorKind::Damaged => Self::ObjectDamaged,
            StorageErrorKind::Transient | StorageErrorKind::Unavailable | StorageErrorKind::NoSpace => {
                Self::StorageUnavailable(error)
            }
            _ => Self::internal(error),
        }
    }
}

#[cfg(test)]
impl Error {
    /// An error of the database, for tests of modules that cannot name the database's own errors.
    pub(crate) fn database_unavailable() -> Self {
        Self::DatabaseUnavailable(DbError {
            kind: DbErrorKind::Unavailable,
            operation: "commit transaction",
            source: std::sync::Arc::new(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
        })
    }
}
