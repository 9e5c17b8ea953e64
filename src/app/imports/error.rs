//! Errors of imports. An import stores each object as an upload does, so it converts the errors of an upload to
//! errors in terms of the source object.

use std::time::Duration;

use crate::{
    app::{
        Error,
        uploads::{Stall, UploadError, bytes_per_second},
    },
    domain::checksum::ChecksumAlgorithm,
};

/// An error that only an import has.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Messages of the stream arrived out of order.
    #[error(transparent)]
    StreamOrder(#[from] ImportStreamOrder),
    /// The caller sent no message for this long.
    #[error(
        "import stalled: received no message for {} seconds; run it again: nothing is imported twice",
        .0.as_secs()
    )]
    Stalled(Duration),
    /// The content of a URL could not be fetched.
    #[error("URL cannot be imported: {reason}")]
    FetchFailed {
        /// Whether a retry may succeed.
        kind: FetchFailure,
        /// The cause, without the URL, because the URL may contain a secret.
        reason: String,
    },
    /// The bytes of the object do not match the checksum of the item.
    #[error("{algorithm} of the object does not match the one in the item")]
    ChecksumMismatch { algorithm: ChecksumAlgorithm },
    /// The object does not have the size that the item or the source declared.
    #[error("found {received} bytes of the object; its declared size is {declared} bytes")]
    SizeMismatch { declared: u64, received: u64 },
    /// The source sent no bytes for this long.
    #[error("source sent no bytes for {} seconds; import the object again", .0.as_secs())]
    SourceIdle(Duration),
    /// The source sent fewer bytes in this time than the minimum rate requires.
    #[error(
        "source sent {received_bytes} bytes in {seconds} seconds, {} bytes per second; the minimum is {rate_min_bytes_per_second} bytes per second; import the object again",
        bytes_per_second(*received_bytes, *seconds)
    )]
    SourceSlow { received_bytes: u64, seconds: u64, rate_min_bytes_per_second: u64 },
    /// The stored bytes were abandoned before the commit, because their lease expired.
    #[error(
        "lease on the stored bytes expired before the commit; no file was stored; import the object again"
    )]
    LeaseExpired,
    /// The store no longer has the bytes that were stored before.
    #[error("object store lost stored bytes of the object; no file was stored; import the object again")]
    StoreLostBytes,
    /// The commit is so late that the sweeper may already have deleted the bytes.
    #[error(
        "bytes were stored {} s before the commit; the limit is {} s; no file was stored; import the object again",
        age.as_secs(), age_max.as_secs()
    )]
    CommitTooLate { age: Duration, age_max: Duration },
}

/// The way in which the messages of an import are out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImportStreamOrder {
    /// The first message is not the options.
    #[error("the first message of an import must be its options")]
    OptionsNotFirst,
    /// A later message is the options.
    #[error("the options of an import are sent once, as the first message")]
    OptionsRepeated,
    /// A message is empty.
    #[error("a message of an import must be its options or an item")]
    MessageEmpty,
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

impl ImportError {
    /// Returns the delay before a retry, or `None` if a retry does not help.
    pub(in crate::app) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::FetchFailed { kind: FetchFailure::Unavailable, .. }
            | Self::SourceIdle(_)
            | Self::SourceSlow { .. }
            | Self::StoreLostBytes
            | Self::CommitTooLate { .. } => Some(Duration::from_secs(1)),
            Self::FetchFailed { kind: FetchFailure::Gone | FetchFailure::Refused, .. }
            | Self::StreamOrder(_)
            | Self::Stalled(_)
            | Self::ChecksumMismatch { .. }
            | Self::SizeMismatch { .. }
            | Self::LeaseExpired => None,
        }
    }
}

/// Converts an error of the upload that stored an object.
pub(super) fn convert_upload_error(error: Error) -> Error {
    match error {
        Error::Upload(error) => convert(error),
        error => error,
    }
}

fn convert(error: UploadError) -> Error {
    let converted = match error {
        UploadError::ChecksumMismatch { algorithm } => ImportError::ChecksumMismatch { algorithm },
        UploadError::SizeMismatch { declared, received } => ImportError::SizeMismatch { declared, received },
        UploadError::Stalled(Stall::Idle(idle)) => ImportError::SourceIdle(idle),
        UploadError::Stalled(Stall::Slow { received_bytes, seconds, rate_min_bytes_per_second }) => {
            ImportError::SourceSlow { received_bytes, seconds, rate_min_bytes_per_second }
        }
        UploadError::Fenced => ImportError::LeaseExpired,
        UploadError::PartsLost => ImportError::StoreLostBytes,
        UploadError::CommitTooLate { age, age_max } => ImportError::CommitTooLate { age, age_max },
        // These concern the order of messages, resumed uploads and direct uploads. An import has none of them.
        error @ (UploadError::StreamOrder(_)
        | UploadError::PartSizeMismatch { .. }
        | UploadError::PartEtagMismatch { .. }
        | UploadError::DigestUnknown(_)
        | UploadError::OffsetGap { .. }
        | UploadError::NotFinished
        | UploadError::Paused { .. }
        | UploadError::ResentBytesDiffer
        | UploadError::HasAllBytes { .. }
        | UploadError::PartsTooLarge { .. }
        | UploadError::Committed(_)
        | UploadError::DirectUnsupported
        | UploadError::IsDirect
        | UploadError::NotDirect
        | UploadError::TooManyOpen { .. }) => return Error::internal(error),
    };
    converted.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn import_reports_no_error_of_an_upload() {
        let idle = Stall::Idle(Duration::from_secs(60));
        let slow = Stall::Slow { received_bytes: 512, seconds: 30, rate_min_bytes_per_second: 1024 };
        for error in [
            UploadError::ChecksumMismatch { algorithm: ChecksumAlgorithm::Sha256 },
            UploadError::SizeMismatch { declared: 4, received: 5 },
            UploadError::Stalled(idle),
            UploadError::Stalled(slow),
            UploadError::Fenced,
            UploadError::PartsLost,
            UploadError::CommitTooLate { age: Duration::from_secs(2), age_max: Duration::from_secs(1) },
        ] {
            let before = error.to_string();
            let converted = convert_upload_error(error.into());
            assert!(matches!(converted, Error::Import(_)), "{converted:?}");
            assert!(!converted.to_string().contains("upload"), "{before} became {converted}");
        }
        assert!(matches!(convert_upload_error(UploadError::NotFinished.into()), Error::Internal(_)));
        assert!(matches!(convert_upload_error(Error::ScanRequired), Error::ScanRequired));
    }
}
