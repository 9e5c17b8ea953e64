//! What a caller can act on. Adapters return a kind with its source; this is what they become, and `grpc/status.rs` is
//! the only place that turns it into a status.

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

/// Why a use case did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields of the request are wrong: all of them.
    #[error("invalid request: {0}")]
    Invalid(Violations),
    /// The page token is damaged or belongs to another list.
    #[error(
        "the page token is damaged, or belongs to another filter, order or tenant; list again from the start"
    )]
    PageTokenInvalid,
    /// The cursor is damaged or belongs to another tenant.
    #[error("the cursor is damaged, or belongs to another tenant; watch without a cursor")]
    CursorInvalid,
    /// What is behind the cursor may be gone.
    #[error(
        "the cursor is too old: events behind it may be gone; list again, then watch from a fresh cursor (a watch without a cursor begins with one)"
    )]
    CursorTooOld,
    /// Messages of a stream came out of order.
    #[error("{0}")]
    StreamOrder(&'static str),
    /// Bytes and checksum do not belong together.
    #[error("the {algorithm} of the bytes received is not the one sent with them; send the upload again")]
    ChecksumMismatch {
        /// Which checksum.
        algorithm: &'static str,
    },
    /// More or fewer bytes than declared.
    #[error("{declared} bytes were declared and {received} received")]
    SizeMismatch {
        /// As declared.
        declared: u64,
        /// As received.
        received: u64,
    },
    /// The request id belongs to another request.
    #[error("this request id was used with another payload; use a new UUID for a new request")]
    RequestIdReused,
    /// A chunk does not follow the one before.
    #[error("the chunk begins at offset {received}, but {expected} was expected")]
    OffsetGap {
        /// The offset that was expected.
        expected: u64,
        /// The offset that came.
        received: i64,
    },
    /// The read begins beyond the end.
    #[error("the read begins beyond the end of the file, which has {size_bytes} bytes")]
    ReadOutOfRange {
        /// The size of the file.
        size_bytes: u64,
    },
    /// No usable credentials.
    #[error("{0}")]
    Unauthenticated(Credentials),
    /// The caller sees the thing but may not do this.
    #[error("not allowed: {0}")]
    NotAllowed(&'static str),
    /// There is no such thing, or the caller may not know.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// No room for the bytes.
    #[error(
        "the tenant's quota has no room for {needed_bytes} more bytes: {used_bytes} used and {reserved_bytes} reserved of {limit_bytes}"
    )]
    #[allow(missing_docs, reason = "the figures of the message")]
    QuotaBytes { needed_bytes: i64, used_bytes: i64, reserved_bytes: i64, limit_bytes: i64 },
    /// No more files.
    #[error("the tenant may have at most {file_count_max} files and has {file_count}")]
    #[allow(missing_docs, reason = "the figures of the message")]
    QuotaFiles { file_count: i64, file_count_max: i64 },
    /// Too large for its kind.
    #[error("the file has {size_bytes} bytes; the limit for {} is {limit_bytes} bytes", limited(*kind))]
    FileTooLarge {
        /// The media kind, if it is known.
        kind: Option<MediaKind>,
        /// The declared size, or the number of bytes received so far.
        size_bytes: u64,
        /// The limit.
        limit_bytes: i64,
    },
    /// The stream ended without a finish.
    #[error("the stream ended without a finish message; nothing was stored")]
    UploadNotFinished,
    /// The stream of an upload that can be gone on with ended without a finish.
    #[error(
        "the upload is not finished: {persisted_size_bytes} bytes of it are stored; go on from there with its upload id"
    )]
    UploadPaused {
        /// Where to go on.
        persisted_size_bytes: u64,
    },
    /// Bytes that came again are not those that are stored.
    #[error(
        "the bytes sent again are not those stored before; cancel this upload and create another one for other bytes"
    )]
    SentAgainDiffers,
    /// The upload has all of its bytes.
    #[error(
        "the upload ends with its {size_bytes} bytes: it was finished with them, or its last part is not a whole one; finish it with them, or cancel it and create another one for other bytes"
    )]
    UploadEnds {
        /// How many it has.
        size_bytes: u64,
    },
    /// There is no room for one of the upload's parts.
    #[error(
        "the parts of this upload have {part_size_bytes} bytes, for which this server has no room any more; cancel it and create another one"
    )]
    UploadPartsTooLarge {
        /// The size of its parts.
        part_size_bytes: u64,
    },
    /// The upload is a file already.
    #[error("the upload was committed and is file {0}; delete the file instead")]
    UploadCommitted(FileId),
    /// There are no URLs to upload to.
    #[error(
        "this server's object store gives no URLs to upload to; use UploadFile, or CreateUpload without `direct`"
    )]
    DirectUploadUnsupported,
    /// Its bytes do not come through here.
    #[error(
        "the bytes of this upload go to its URLs (GetUpload with `with_urls`); end it with CompleteUpload"
    )]
    UploadIsDirect,
    /// Its bytes come through here.
    #[error(
        "this upload is not direct: it has no URLs and takes no `parts`; send its bytes by UploadFile or UploadPart"
    )]
    UploadNotDirect,
    /// A part has another size than it must have.
    #[error("part {number} has {received} bytes and must have {declared}; PUT it again, then complete again")]
    #[allow(missing_docs, reason = "the figures of the message")]
    PartSizeMismatch { number: u32, declared: u64, received: u64 },
    /// The client was too slow.
    #[error("the upload stalled: {0}; it was not committed")]
    UploadStalled(Stall),
    /// The upload no longer holds its lease.
    #[error(
        "the upload no longer holds its lease: another stream went on with it, or it was given up; this one stored no file"
    )]
    UploadFenced,
    /// The commit came so late that the sweeper might take the bytes away.
    #[error(
        "the bytes were stored {} s before they could be committed, and at most {} s may pass; nothing was stored; send the upload again",
        age.as_secs(), age_max.as_secs()
    )]
    #[allow(missing_docs, reason = "the figures of the message")]
    CommitTooLate { age: Duration, age_max: Duration },
    /// Somebody else changed it meanwhile.
    #[error("it changed since the etag was read; read it again")]
    EtagMismatch,
    /// The first request with this id still runs.
    #[error("a request with this id is still running; try again in a moment")]
    RequestInProgress,
    /// The file is in the trash.
    #[error("the file is in the trash; undelete it first")]
    FileDeleted,
    /// This cannot be done in this state.
    #[error("this cannot be done while the file is {0}")]
    FileNotAvailable(FileState),
    /// The current version is neither deleted nor restored.
    #[error(
        "version {0} is the file's current one; upload or restore another version first, or delete the file"
    )]
    VersionIsCurrent(i32),
    /// The file must be kept.
    #[error("{}", kept(*until, hold.as_ref()))]
    FileRetained {
        /// Until when, if it has a retention that is not over.
        until: Option<Timestamp>,
        /// The legal hold, if there is one.
        hold: Option<LegalHold>,
    },
    /// Of a batch, all or nothing, these were refused. What is answered is the gravest reason.
    #[error("nothing was done, because of {} of the batch: {why}", violations.iter().count())]
    Batch {
        /// The gravest reason.
        why: Box<Error>,
        /// All of them, each under its place.
        violations: Violations,
    },
    /// A scan is demanded and there is no scanner.
    #[error(
        "the tenant's policy demands a scan, and this server has no scanner; its operator can set scanning.accept_unscanned"
    )]
    ScanRequired,
    /// The tenant has as many webhooks as it may.
    #[error("the tenant has {0} webhooks, and may have no more; delete one first")]
    TooManyWebhooks(u32),
    /// The tenant has as many watches on this replica as it may have.
    #[error("the tenant has {watch_count_max} watches here, which is the limit; end one of them first")]
    WatchesExhausted {
        /// The limit.
        watch_count_max: usize,
    },
    /// The new limit lies below what is stored.
    #[error(
        "the new limits lie below what is stored: {used_bytes} bytes used, {reserved_bytes} reserved, {file_count} files"
    )]
    #[allow(missing_docs, reason = "the figures of the message")]
    QuotaBelowUsage { used_bytes: i64, reserved_bytes: i64, file_count: i64 },
    /// The tenant is suspended.
    #[error("this tenant is suspended; its operator can resume it")]
    TenantSuspended,
    /// The tenant is being deleted, or was.
    #[error("this tenant was deleted")]
    TenantDeleted,
    /// A tenant of this name is there.
    #[error("there is a tenant of this name: {0}")]
    TenantExists(TenantId),
    /// Files of the tenant must be kept.
    #[error(
        "{file_count} files of this tenant must be kept: {held_file_count} until their legal hold is released{}",
        until.map(|until| format!(", the last of the others until {until}")).unwrap_or_default()
    )]
    #[allow(missing_docs, reason = "the figures of the message")]
    TenantRetained { file_count: i64, held_file_count: i64, until: Option<Timestamp> },
    /// A category of this name is there.
    #[error("there is a category `{0}` already")]
    CategoryExists(String),
    /// The category cannot go.
    #[error("this category cannot be deleted: {0}")]
    CategoryInUse(&'static str),
    /// The stored bytes are gone.
    #[error("the stored bytes of this file are missing")]
    ObjectMissing,
    /// The stored bytes are not those recorded.
    #[error("the stored bytes of this file are damaged")]
    ObjectDamaged,
    /// A URL did not give what stands behind it.
    #[error("the URL cannot be imported: {why}")]
    NotFetched {
        /// Whether another try may bring it.
        kind: Unfetched,
        /// What came instead, without the URL.
        why: String,
    },
    /// The object store does not answer.
    #[error("the object store does not answer")]
    StorageUnavailable(#[source] StorageError),
    /// The row names a provider that this server does not have.
    #[error("the provider `{0}` of this file is not configured; the operator of this server can add it")]
    ProviderUnknown(String),
    /// The database does not answer.
    #[error("the database does not answer")]
    DatabaseUnavailable(#[source] DbError),
    /// The response to a COMMIT was lost, and the database could not be asked for the outcome.
    #[error("the outcome of the commit is not known; {}", after_unknown(*has_request_id))]
    OutcomeUnknown {
        /// Whether the caller sent a request id, so that a retry is safe.
        has_request_id: bool,
        /// The error of the COMMIT.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// This process is at a limit of its own.
    #[error("too many {0} at once; try again in a moment")]
    Overloaded(&'static str),
    /// This replica is going away.
    #[error("this replica is shutting down")]
    ShuttingDown,
    /// A fault of ours.
    #[error("internal error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why a file must be kept, and what would have to happen.
fn kept(until: Option<Timestamp>, hold: Option<&LegalHold>) -> String {
    let until = until.map(|until| format!("until {}", until.to_rfc3339()));
    let hold = hold.map(|hold| {
        let since = hold.time.to_rfc3339();
        format!("until an admin releases the legal hold that {} set at {since} ({})", hold.by, hold.reason)
    });
    let both: Vec<String> = until.into_iter().chain(hold).collect();
    format!("the file must be kept {}", both.join(" and "))
}

/// What to do about [`Error::OutcomeUnknown`].
fn after_unknown(has_request_id: bool) -> &'static str {
    match has_request_id {
        true => "retry with the same request_id",
        false => "read the resource to see whether it changed; send a request_id next time",
    }
}

/// What the limit of [`Error::FileTooLarge`] applies to.
fn limited(kind: Option<MediaKind>) -> &'static str {
    match kind {
        Some(MediaKind::Image) => "images",
        Some(MediaKind::Video) => "videos",
        Some(MediaKind::Audio) => "audio files",
        Some(MediaKind::Document) => "documents",
        Some(MediaKind::Other) => "other files",
        None => "any file",
    }
}

/// How a client was too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stall {
    /// It sent no message for this long.
    #[error("no message for {} seconds", .0.as_secs())]
    Idle(Duration),
    /// It sent fewer bytes per second than this.
    #[error("fewer than {0} bytes per second")]
    Slow(u64),
}

/// What became of a URL that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfetched {
    /// Its host says that there is nothing.
    Gone,
    /// Its host gives something else than the bytes, and would do so again.
    Refused,
    /// It could not be had this time.
    Away,
}

/// What is wrong with the credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Credentials {
    /// There are none.
    #[error("no credentials: send `authorization: Bearer <JWT>`")]
    Missing,
    /// They do not hold, and why.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// After how long a retry makes sense, where one does.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RequestInProgress => Some(Duration::from_millis(500)),
            Self::StorageUnavailable(_)
            | Self::NotFetched { kind: Unfetched::Away, .. }
            | Self::DatabaseUnavailable(_)
            | Self::OutcomeUnknown { has_request_id: true, .. }
            | Self::Overloaded(_)
            | Self::ShuttingDown
            | Self::CommitTooLate { .. } => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// Wraps a fault that no caller can act on.
    pub fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(source.into())
    }

    /// Says why a delta did not fit a quota.
    pub fn over_quota(quota: &Quota, needed_bytes: i64) -> Self {
        let lacks_bytes = quota.used_bytes + quota.reserved_bytes + needed_bytes > quota.limit_bytes;
        let has_files_left =
            quota.file_count_max == 0 || quota.file_count + quota.reserved_file_count < quota.file_count_max;
        // The quota was read after the refusal: others may have given room back since, and it lacked bytes all the same.
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

    /// Says that a file's state does not allow something.
    pub fn of_state(state: FileState) -> Self {
        match state {
            FileState::Deleted => Self::FileDeleted,
            state => Self::FileNotAvailable(state),
        }
    }

    /// Says that a file is too large.
    pub fn too_large(kind: Option<MediaKind>, size_bytes: u64, limit_bytes: i64) -> Self {
        Self::FileTooLarge { kind, size_bytes, limit_bytes }
    }
}

impl Error {
    /// Whether a tenant in this state is served.
    ///
    /// # Errors
    /// `TenantSuspended`, `TenantDeleted`.
    pub fn unless_active(state: TenantState) -> Result<(), Self> {
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
    fn from(wrong: WrongState) -> Self {
        match wrong {
            WrongState::Deleted => Self::of_state(FileState::Deleted),
            WrongState::State(state) => Self::of_state(state),
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
                Violations::one("spec.category", "was removed from the tenant's policy meanwhile").into()
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
