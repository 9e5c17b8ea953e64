//! Errors of uploads: of their streams, their bytes and their leases. Errors that other use cases have too, such
//! as an exceeded quota, are variants of [`Error`].
//!
//! All stages of an upload use this file, also for the size limit and for counting uploads by their outcome.

use std::{fmt, time::Duration};

use crate::{
    app::{App, Error, UserLimit},
    domain::{
        checksum::ChecksumAlgorithm, file::FileState, ids::FileId, media_type::MediaKind,
        policy::FileSizeLimits,
    },
    storage::{PartLayout, StorageError, StorageErrorKind},
    telemetry::{
        Metrics,
        metrics::{QuotaLimit, UploadOutcome},
    },
};

/// An error that only an upload has.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// Messages of the stream arrived out of order.
    #[error(transparent)]
    StreamOrder(#[from] UploadStreamOrder),
    /// The received bytes do not match the checksum of the request.
    #[error("{algorithm} of the received bytes does not match the one in the request; send the upload again")]
    ChecksumMismatch { algorithm: ChecksumAlgorithm },
    /// The number of received bytes differs from the declared one.
    #[error("received {received} bytes; the request declared {declared}")]
    SizeMismatch { declared: u64, received: u64 },
    /// A part does not have the required size.
    #[error(
        "part {number} has {received} bytes and must have {declared}; {}",
        advise_after_wrong_part(*declared, *received)
    )]
    PartSizeMismatch { number: u32, declared: u64, received: u64 },
    /// A direct upload is completed again, with another etag of a part.
    #[error("part {number} was completed with another etag; create a new upload for other bytes")]
    PartEtagMismatch { number: i32 },
    /// A direct upload that was completed without a digest is completed again with one, and its content is not
    /// verified.
    #[error(
        "`sha256` cannot be compared: the upload was completed without it, and its content is in state {0}; complete the upload without `sha256`, or with it after the verification"
    )]
    DigestUnknown(FileState),
    /// A chunk does not start where the previous one ended.
    #[error("chunk starts at offset {received}; expected offset {expected}")]
    OffsetGap { expected: u64, received: i64 },
    /// The stream ended without a finish message.
    #[error("stream ended without a finish message; nothing was stored")]
    NotFinished,
    /// The stream of a resumable upload ended without a finish message.
    #[error(
        "upload is not finished: {persisted_size_bytes} bytes are stored; resume from there with its upload id"
    )]
    Paused {
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
    HasAllBytes { size_bytes: u64 },
    /// One part of the upload no longer fits the server's byte budget.
    #[error(
        "parts of this upload have {part_size_bytes} bytes, more than this server now buffers; cancel it and create a new one"
    )]
    PartsTooLarge { part_size_bytes: u64 },
    /// The upload was already committed as a file.
    #[error("upload was committed as file {0}; delete the file instead")]
    Committed(FileId),
    /// The object store cannot create upload URLs.
    #[error(
        "this server's object store does not support upload URLs; use UploadFile, or CreateUpload without `direct`"
    )]
    DirectUnsupported,
    /// The upload is direct: its bytes are sent to its URLs.
    #[error(
        "upload is direct: send its bytes to its URLs (GetUpload with `with_urls`), then call CompleteUpload"
    )]
    IsDirect,
    /// The upload is not direct: its bytes are sent to this server.
    #[error(
        "upload is not direct: it has no URLs and no `parts`; send its bytes with UploadFile or UploadPart"
    )]
    NotDirect,
    /// The caller or the tenant has the maximum number of open uploads.
    #[error("{scope} has {upload_count_max} open uploads, which is the limit; complete or cancel one first")]
    TooManyOpen { scope: OpenUploadScope, upload_count_max: u32 },
    /// The client sent its bytes too slowly.
    #[error("upload stalled: {0}; it was not committed")]
    Stalled(Stall),
    /// The stream lost its lease on the upload.
    #[error(
        "stream lost its lease on the upload: another stream resumed it, or it was abandoned; this stream stored no file"
    )]
    Fenced,
    /// The store no longer has the parts of an upload that cannot begin again, although its lease is valid.
    #[error(
        "object store lost parts of this upload, which has ended; no file was stored; send the file as a new upload"
    )]
    PartsLost,
    /// The commit is so late that the sweeper may already have deleted the bytes.
    #[error(
        "bytes were stored {} s before the commit; the limit is {} s; no file was stored; send the upload again",
        age.as_secs(), age_max.as_secs()
    )]
    CommitTooLate { age: Duration, age_max: Duration },
}

/// Returns what to do about [`UploadError::PartSizeMismatch`].
fn advise_after_wrong_part(declared: u64, received: u64) -> &'static str {
    match received > declared {
        true => "the upload was cancelled; create a new one",
        false => "PUT it again, then complete again",
    }
}

/// The open uploads that a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenUploadScope {
    /// Those that the caller created.
    Caller,
    /// Those of the whole tenant.
    Tenant,
}

impl OpenUploadScope {
    /// Returns the name in error details.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Tenant => "tenant",
        }
    }
}

impl fmt::Display for OpenUploadScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The way in which the messages of an upload are out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UploadStreamOrder {
    /// The first message is neither the spec nor the id of an upload.
    #[error("the first message of an upload must be its spec or its upload_id")]
    SpecNotFirst,
    /// A later message is a spec or the id of an upload.
    #[error("the spec or upload_id of an upload is sent once, as the first message")]
    SpecRepeated,
    /// A message after the first one is empty.
    #[error("a message of an upload must be a chunk or the finish message")]
    MessageEmpty,
    /// A message follows the finish message.
    #[error("a message follows the finish message")]
    FinishNotLast,
}

/// The way in which a client was too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stall {
    /// It sent no bytes for this long.
    #[error("received no bytes for {} seconds", .0.as_secs())]
    Idle(Duration),
    /// It sent fewer bytes in this time than the minimum rate requires.
    #[error(
        "received {received_bytes} bytes in {seconds} seconds, {} bytes per second; the minimum is {rate_min_bytes_per_second} bytes per second",
        bytes_per_second(*received_bytes, *seconds)
    )]
    Slow { received_bytes: u64, seconds: u64, rate_min_bytes_per_second: u64 },
}

/// Returns the average rate over a time of at least one second.
pub(crate) fn bytes_per_second(bytes: u64, seconds: u64) -> u64 {
    bytes / seconds.max(1)
}

impl UploadError {
    /// Returns the delay before a retry, or `None` if a retry does not help.
    pub(in crate::app) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::CommitTooLate { .. } => Some(Duration::from_secs(1)),
            Self::StreamOrder(_)
            | Self::ChecksumMismatch { .. }
            | Self::SizeMismatch { .. }
            | Self::PartSizeMismatch { .. }
            | Self::PartEtagMismatch { .. }
            | Self::DigestUnknown(_)
            | Self::OffsetGap { .. }
            | Self::NotFinished
            | Self::Paused { .. }
            | Self::ResentBytesDiffer
            | Self::HasAllBytes { .. }
            | Self::PartsTooLarge { .. }
            | Self::Committed(_)
            | Self::DirectUnsupported
            | Self::IsDirect
            | Self::NotDirect
            | Self::TooManyOpen { .. }
            | Self::Stalled(_)
            | Self::PartsLost
            | Self::Fenced => None,
        }
    }
}

/// Maps an error of a multipart operation. What it means that the upload does not exist is resolved by
/// [`OpenMultipart`](super::open::multipart::OpenMultipart). A rejection for an unknown reason changes nothing, and the
/// caller can try again.
pub(super) fn map_multipart_error(error: StorageError) -> Error {
    match error.kind {
        StorageErrorKind::Other => Error::StorageUnavailable(error),
        _ => error.into(),
    }
}

/// Checks that a file fits into the parts of an upload, and into an object.
pub(super) fn check_fits_parts(bytes: u64, layout: PartLayout) -> Result<(), Error> {
    let limit = layout.size_max_bytes();
    if bytes <= limit {
        return Ok(());
    }
    Err(Error::file_too_large(None, bytes, i64::try_from(limit).unwrap_or(i64::MAX)))
}

/// Checks the size limit of a media kind. While the kind is unknown, the largest limit applies.
pub(super) fn check_size(bytes: u64, kind: Option<MediaKind>, limits: &FileSizeLimits) -> Result<(), Error> {
    let limit = kind.map_or_else(|| limits.largest(), |kind| limits.for_kind(kind));
    if i64::try_from(bytes).is_ok_and(|bytes| bytes <= limit) {
        Ok(())
    } else {
        Err(Error::file_too_large(kind, bytes, limit))
    }
}

/// Counts an upload that was rejected by a quota or a size limit.
pub(super) fn count_refusal(metrics: &Metrics, error: &Error) {
    match error {
        Error::QuotaBytes(_) => metrics.count_quota_refusal(QuotaLimit::Bytes),
        Error::UserQuota(shortage) => metrics.count_quota_refusal(match shortage.exceeded {
            UserLimit::Bytes { .. } => QuotaLimit::UserBytes,
            UserLimit::Files { .. } => QuotaLimit::UserFiles,
        }),
        Error::QuotaFiles { .. } => metrics.count_quota_refusal(QuotaLimit::Files),
        Error::FileTooLarge { .. } => metrics.count_quota_refusal(QuotaLimit::FileSize),
        _ => {}
    }
}

/// Counts how an upload ended, by outcome.
pub(super) fn count_outcome<T>(app: &App, uploaded: &Result<T, Error>) {
    app.metrics.count_upload(match uploaded {
        Ok(_) => UploadOutcome::Committed,
        Err(Error::Upload(
            UploadError::NotFinished | UploadError::Paused { .. } | UploadError::Stalled(_),
        )) => UploadOutcome::Abandoned,
        Err(
            Error::Internal(_)
            | Error::StorageUnavailable(_)
            | Error::StorageFull(_)
            | Error::DatabaseUnavailable(_)
            | Error::OutcomeUnknown { .. }
            | Error::ObjectMissing
            | Error::ObjectDamaged,
        ) => UploadOutcome::Failed,
        Err(_) => UploadOutcome::Refused,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_above_its_parts_is_rejected_with_the_limit() {
        for layout in [PartLayout::equal(5 << 20), PartLayout::growing(5 << 20, 7_000)] {
            let limit = layout.size_max_bytes();
            check_fits_parts(limit, layout).unwrap();
            let rejected = check_fits_parts(limit + 1, layout).unwrap_err();
            assert!(
                matches!(rejected, Error::FileTooLarge { size_bytes, limit_bytes, .. }
                    if size_bytes == limit + 1 && u64::try_from(limit_bytes) == Ok(limit)),
                "{rejected:?}"
            );
        }
    }

    #[test]
    fn unknown_rejection_can_be_tried_again() {
        let other = StorageError::new(StorageErrorKind::Other, "complete multipart upload");
        assert!(matches!(map_multipart_error(other), Error::StorageUnavailable(_)));
    }
}
