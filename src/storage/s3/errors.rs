//! What went wrong with a request, and what that means to the caller: the one place that says so.

use std::{error::Error, fmt};

use bytes::Bytes;
use http::StatusCode;
use object_store::client::HttpError;

use super::{
    super::{StorageError, StorageErrorKind},
    xml,
};
use crate::domain::object_key::ObjectKey;

/// The longest message of a store that we repeat.
const MESSAGE_LENGTH_CHARS_MAX: usize = 200;

/// A request that did not do what it should.
#[derive(Debug)]
pub(super) enum Failure {
    /// No answer in time.
    Timeout,
    /// No answer, or only the beginning of one.
    Http(HttpError),
    /// The body of an answer broke off, or was too long.
    Body(Box<dyn Error + Send + Sync>),
    /// The answer is not what the protocol says.
    Garbled(&'static str),
    /// There is nothing to sign with.
    Credentials(object_store::Error),
    /// The store said no.
    Refused {
        /// 200, too: some errors come late.
        status: StatusCode,
        /// Such as `NoSuchKey`; empty where the answer had none.
        code: String,
        /// In the store's words.
        message: String,
    },
}

impl Failure {
    pub(super) fn refused(status: StatusCode, body: &Bytes) -> Self {
        let (code, message) = xml::error(body).unwrap_or_default();
        Self::Refused { status, code, message }
    }

    pub(super) fn bucket_missing() -> Self {
        let (code, message) = ("NoSuchBucket".to_owned(), String::new());
        Self::Refused { status: StatusCode::NOT_FOUND, code, message }
    }

    pub(super) fn upload_missing() -> Self {
        let (code, message) = ("NoSuchUpload".to_owned(), String::new());
        Self::Refused { status: StatusCode::NOT_FOUND, code, message }
    }

    pub(super) fn code(&self) -> &str {
        match self {
            Self::Refused { code, .. } => code,
            _ => "",
        }
    }

    pub(super) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    pub(super) fn kind(&self) -> StorageErrorKind {
        match self {
            // The text of a timeout or of a broken connection says nothing on whether the store did the work.
            Self::Timeout | Self::Http(_) | Self::Body(_) | Self::Garbled(_) => StorageErrorKind::Transient,
            Self::Credentials(_) => StorageErrorKind::Unavailable,
            Self::Refused { status, code, message } => {
                of_code(code, message).unwrap_or_else(|| of_status(*status))
            }
        }
    }

    pub(super) fn into_error(self, operation: &'static str, key: &ObjectKey) -> StorageError {
        self.into_error_of_store(operation).with_key(key)
    }

    pub(super) fn into_error_of_store(self, operation: &'static str) -> StorageError {
        StorageError::new(self.kind(), operation).with_source(Box::new(self))
    }
}

fn of_code(code: &str, message: &str) -> Option<StorageErrorKind> {
    use StorageErrorKind::{AlreadyExists, InvalidInput, NoSpace, NotFound, Transient, Unavailable};
    Some(match code {
        "NoSuchKey" | "NoSuchUpload" => NotFound,
        "InvalidPart" | "InvalidPartOrder" | "EntityTooSmall" | "EntityTooLarge" | "InvalidRange"
        | "InvalidArgument" | "InvalidRequest" | "MalformedXML" | "KeyTooLongError" | "MetadataTooLarge" => {
            InvalidInput
        }
        "PreconditionFailed" => AlreadyExists,
        "QuotaExceeded" | "InsufficientStorage" | "InsufficientCapacity" | "StorageFull"
        | "XMinioStorageFull" => NoSpace,
        // Garage says so in words alone.
        "AccessDenied" if message.contains("quota") => NoSpace,
        // The bytes were hurt on their way in: send them again.
        "BadDigest"
        | "InvalidDigest"
        | "IncompleteBody"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch"
        // Two writers of one key at the same moment: the next answer tells who won.
        | "ConditionalRequestConflict"
        | "OperationAborted"
        | "InternalError"
        | "ServiceUnavailable"
        | "SlowDown"
        | "RequestTimeout"
        | "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded" => Transient,
        "NoSuchBucket" | "AccessDenied" | "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken"
        | "InvalidToken" | "RequestTimeTooSkewed" | "AuthorizationHeaderMalformed" | "PermanentRedirect" => {
            Unavailable
        }
        _ => return None,
    })
}

fn of_status(status: StatusCode) -> StorageErrorKind {
    match status.as_u16() {
        404 => StorageErrorKind::NotFound,
        409 | 412 => StorageErrorKind::AlreadyExists,
        400 | 411 | 416 => StorageErrorKind::InvalidInput,
        300..=399 | 401 | 403 => StorageErrorKind::Unavailable,
        507 => StorageErrorKind::NoSpace,
        // A late error without a known code, behind a status that says nothing.
        200..=299 | 408 | 429 | 500 | 502..=504 => StorageErrorKind::Transient,
        _ => StorageErrorKind::Other,
    }
}

/// Never an address, and of what concerns rights only the code: its message may repeat what we signed with.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("no answer in time"),
            Self::Http(error) => write!(f, "no answer ({:?})", error.kind()),
            Self::Body(_) => f.write_str("the answer broke off"),
            Self::Garbled(what) => write!(f, "an answer that makes no sense: {what}"),
            Self::Credentials(_) => f.write_str("there are no credentials to sign with"),
            Self::Refused { status, code, .. } if code == "NoSuchBucket" => {
                write!(
                    f,
                    "{} {code}: the bucket is missing; `strongroom storage init` makes it",
                    status.as_u16()
                )
            }
            Self::Refused { status, code, .. } if matches!(status.as_u16(), 300..=399 | 401 | 403) => {
                let hint = "check the key, its rights, the region and the clock";
                write!(f, "{} {code}: the store turns us away; {hint}", status.as_u16())
            }
            Self::Refused { status, code, message } => {
                let message: String = message.chars().take(MESSAGE_LENGTH_CHARS_MAX).collect();
                write!(f, "{} {code}: {message}", status.as_u16())
            }
        }
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Http(error) => Some(error),
            Self::Body(error) => Some(error.as_ref()),
            Self::Credentials(error) => Some(error),
            Self::Timeout | Self::Garbled(_) | Self::Refused { .. } => None,
        }
    }
}
