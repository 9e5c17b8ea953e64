//! Errors of use cases. Adapter errors, which carry a kind and a source, are converted to these;
//! `grpc/status.rs` is the only place that converts these to a gRPC status.
//!
//! No error names its subject in free text: the enums of `subjects`, `denial` and `credentials` have the texts.
//! Errors that only uploads or only imports have are in `uploads/error.rs` and `imports/error.rs`.

mod conversions;
mod credentials;
mod denial;
mod quota_shortage;
mod subjects;
mod user_quota_shortage;

use std::time::Duration;

pub use self::{
    credentials::{CredentialsError, InvalidCredentials},
    denial::Denial,
    quota_shortage::{PendingDeletion, QuotaShortage},
    subjects::{CategoryUse, RateEvent, RateScope, Resource, Workload},
    user_quota_shortage::{UserLimit, UserQuotaShortage, UserUsage},
};
use super::{imports::ImportError, owner::NotOwner, uploads::UploadError, visitors::VisitorError};
use crate::{
    db::DbError,
    domain::{
        caller::TenantState,
        clock::Timestamp,
        file::{FileState, LegalHold},
        ids::TenantId,
        media_type::MediaKind,
        quota::Quota,
        user_quota::UserQuota,
        violations::Violations,
    },
    storage::StorageError,
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
    /// Events after the cursor may have been dropped, or the watcher has seen events that the database no longer knows.
    #[error(
        "cursor is too old: events after it may have been dropped, or the database was restored to an earlier time; list \
         again, then watch without a cursor to get a new one"
    )]
    CursorTooOld,
    /// An upload failed for a reason that only uploads have.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// An import failed for a reason that only imports have.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A visitor of a share was refused for a reason that only visitors have.
    #[error(transparent)]
    Visitor(#[from] VisitorError),
    /// The request id was used for another request.
    #[error("request id was used with another payload; use a new UUID for a new request")]
    RequestIdReused,
    /// The requested range starts after the end of the file.
    #[error("range starts after the end of the file, which has {size_bytes} bytes")]
    ReadOutOfRange { size_bytes: u64 },
    /// The request has no usable credentials.
    #[error("{0}")]
    Unauthenticated(CredentialsError),
    /// The caller may see the resource but may not do this.
    #[error("not allowed: {0}")]
    NotAllowed(Denial),
    /// The resource does not exist, or the caller may not see it.
    #[error("{0} not found")]
    NotFound(Resource),
    /// The bytes do not fit the tenant's quota.
    #[error("{0}")]
    QuotaBytes(QuotaShortage),
    /// The tenant's quota allows no more files.
    #[error("tenant has {file_count} files; its limit is {file_count_max}")]
    QuotaFiles { file_count: i64, file_count_max: i64 },
    /// The quota of the owner allows no more bytes or files.
    #[error("{0}")]
    UserQuota(Box<UserQuotaShortage>),
    /// Addresses for e-mails are set, but there is no mail server.
    #[error(
        "this server sends no e-mail; use a webhook for quota alerts, or ask the operator to configure `smtp`"
    )]
    EmailNotConfigured,
    /// The file has the maximum number of versions.
    #[error("file has {version_count_max} versions, which is the limit; delete versions of it first")]
    TooManyVersions { version_count_max: u32 },
    /// The file exceeds the size limit of its kind.
    #[error("file has {size_bytes} bytes; the limit for {} is {limit_bytes} bytes", describe_kind(*kind))]
    FileTooLarge {
        /// The media kind, if it is known.
        kind: Option<MediaKind>,
        /// The declared size, or the number of bytes received so far.
        size_bytes: u64,
        limit_bytes: i64,
    },
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
    /// The file has the maximum number of grants.
    #[error(
        "file has {grant_count_max} grants, which is the limit; revoke some, or grant the permission to a group"
    )]
    TooManyGrants { grant_count_max: i64 },
    /// The tenant has one member, so access cannot be given to others.
    #[error("tenant belongs to one person, and access can be given only in an organization")]
    TenantPersonal,
    /// The file has the maximum number of shares.
    #[error("file has {share_count_max} shares, which is the limit; revoke some of them first")]
    TooManyShares { share_count_max: usize },
    /// The share was revoked, which cannot be undone.
    #[error("share is revoked and cannot be changed; create another one")]
    ShareRevoked,
    /// The tenant has reached the limit of webhooks.
    #[error("tenant has reached the limit of {0} webhooks; delete one first")]
    TooManyWebhooks(u32),
    /// The tenant has the maximum number of watches on this server.
    #[error(
        "tenant has {watch_count_max} watches on this server, which is the limit; close one of them first"
    )]
    WatchesExhausted { watch_count_max: usize },
    /// The new limits are lower than the current usage.
    #[error(
        "new limits are below the current usage: {used_bytes} bytes used, {reserved_bytes} reserved, {file_count} files"
    )]
    QuotaBelowUsage { used_bytes: i64, reserved_bytes: i64, file_count: i64 },
    /// The user has too few credits.
    #[error("user has {balance} credits, and {required} are needed; ask the operator to add credits")]
    CreditsExhausted { balance: i64, required: i64 },
    /// The tokens of the caller's issuer have created as many tenants as they may, in this process.
    #[error(
        "tenant does not exist yet, and the tokens of its issuer create at most {creations_per_minute_max} tenants a minute; retry in {} s",
        ceil_seconds(*retry_after)
    )]
    TenantCreationsExhausted { creations_per_minute_max: u32, retry_after: Duration },
    /// The tenant is suspended.
    #[error("tenant is suspended; the operator can resume it")]
    TenantSuspended,
    /// The tenant is read-only.
    #[error(
        "tenant is read-only; nothing was changed; read as usual, or ask the operator to make it writable"
    )]
    TenantReadOnly,
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
    TenantRetained { file_count: i64, held_file_count: i64, until: Option<Timestamp> },
    /// A category with this name exists.
    #[error("category `{0}` already exists")]
    CategoryExists(String),
    /// The category is in use and cannot be deleted.
    #[error("category cannot be deleted: {0}")]
    CategoryInUse(CategoryUse),
    /// The object of the file is missing from the store.
    #[error("stored bytes of this file are missing")]
    ObjectMissing,
    /// The stored bytes do not match the file's record.
    #[error("stored bytes of this file are damaged")]
    ObjectDamaged,
    /// The object store is unavailable.
    #[error("object store is unavailable")]
    StorageUnavailable(#[source] StorageError),
    /// The object store, or the disk of the database, has no free space.
    #[error(
        "the storage of this service is full; nothing was stored; ask the operator to add space, or purge files"
    )]
    StorageFull(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The file is stored with a provider that is not configured.
    #[error("the provider `{0}` of this file is not configured; the operator of this server can add it")]
    ProviderUnknown(String),
    /// The store belongs to another database.
    #[error(transparent)]
    StoreNotOwned(Box<NotOwner>),
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
    Overloaded(Workload),
    /// A sender makes more calls per second than it may.
    #[error("too many {event} of this {scope}: the limit is {per_second_max} per second; retry later")]
    RateLimited {
        scope: RateScope,
        event: RateEvent,
        per_second_max: u32,
        /// The time after which the next call is allowed.
        retry_after: Duration,
    },
    /// This server is shutting down.
    #[error("this server is shutting down; call again to reach another one")]
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

/// Returns a duration in seconds, rounded up.
fn ceil_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
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

impl Error {
    /// Returns the delay before a retry, or `None` if a retry does not help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RequestInProgress => Some(Duration::from_millis(500)),
            Self::RateLimited { retry_after, .. } => Some(*retry_after),
            Self::StorageUnavailable(_)
            | Self::DatabaseUnavailable(_)
            | Self::OutcomeUnknown { has_request_id: true, .. }
            | Self::Overloaded(_)
            | Self::ShuttingDown => Some(Duration::from_secs(1)),
            Self::TenantCreationsExhausted { retry_after, .. } => Some(*retry_after),
            Self::Upload(error) => error.retry_after(),
            Self::Import(error) => error.retry_after(),
            Self::Visitor(error) => error.retry_after(),
            Self::Batch { .. }
            | Self::StorageFull(_)
            | Self::CategoryExists(_)
            | Self::CategoryInUse(_)
            | Self::CreditsExhausted { .. }
            | Self::CursorInvalid
            | Self::CursorTooOld
            | Self::EmailNotConfigured
            | Self::EtagMismatch
            | Self::FileDeleted
            | Self::FileNotAvailable(_)
            | Self::FileRetained { .. }
            | Self::FileTooLarge { .. }
            | Self::Internal(_)
            | Self::Invalid(_)
            | Self::NotAllowed(_)
            | Self::NotFound(_)
            | Self::ObjectDamaged
            | Self::ObjectMissing
            | Self::OutcomeUnknown { has_request_id: false, .. }
            | Self::PageTokenInvalid
            | Self::ProviderUnknown(_)
            | Self::QuotaBelowUsage { .. }
            | Self::QuotaBytes(_)
            | Self::QuotaFiles { .. }
            | Self::UserQuota(_)
            | Self::ReadOutOfRange { .. }
            | Self::RequestIdReused
            | Self::ScanRequired
            | Self::ShareRevoked
            | Self::StoreNotOwned(_)
            | Self::TenantDeleted
            | Self::TenantExists(_)
            | Self::TenantReadOnly
            | Self::TenantPersonal
            | Self::TenantRetained { .. }
            | Self::TenantSuspended
            | Self::TooManyGrants { .. }
            | Self::TooManyShares { .. }
            | Self::TooManyVersions { .. }
            | Self::TooManyWebhooks(_)
            | Self::Unauthenticated(_)
            | Self::VersionIsCurrent(_)
            | Self::WatchesExhausted { .. } => None,
        }
    }

    /// Returns whether the cause is a dependency: a store, the database, the network, or a limit of this process.
    /// Work that failed with it can succeed later without a change.
    pub fn is_dependency_failure(&self) -> bool {
        match self {
            Self::StorageUnavailable(_)
            | Self::StorageFull(_)
            | Self::ProviderUnknown(_)
            | Self::DatabaseUnavailable(_)
            | Self::OutcomeUnknown { .. }
            | Self::Overloaded(_)
            | Self::ShuttingDown => true,
            Self::Batch { reason, .. } => reason.is_dependency_failure(),
            _ => false,
        }
    }

    /// Wraps an error that callers cannot act on.
    pub fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(source.into())
    }

    /// Returns the error for a charge that did not fit the quota.
    pub fn quota_exceeded(quota: &Quota, needed_bytes: i64) -> Self {
        let lacks_bytes = needed_bytes > quota.available_bytes();
        let has_files_left =
            quota.file_count_max == 0 || quota.file_count + quota.reserved_file_count < quota.file_count_max;
        // The quota was read after the refusal. Others may have released bytes since, so a charge that seems
        // to fit now still failed for lack of bytes.
        if lacks_bytes || has_files_left {
            return Self::QuotaBytes(QuotaShortage::new(quota, needed_bytes));
        }
        Self::QuotaFiles { file_count: quota.file_count, file_count_max: quota.file_count_max }
    }

    /// Returns the error for a charge that did not fit the quota of a user.
    pub fn user_quota_exceeded(quota: &UserQuota, needed_bytes: i64) -> Self {
        Self::UserQuota(Box::new(UserQuotaShortage::new(quota, needed_bytes)))
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

#[cfg(test)]
impl Error {
    /// An error of the database, for tests of modules that cannot name the database's own errors.
    pub(crate) fn database_unavailable() -> Self {
        Self::DatabaseUnavailable(DbError {
            kind: crate::db::DbErrorKind::Unavailable,
            operation: "commit transaction",
            source: std::sync::Arc::new(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
        })
    }
}
