//! The failures of S3 requests and their mapping to storage errors. This is the only place that classifies
//! them.

use std::{error::Error, fmt};

use http::StatusCode;
use object_store::client::HttpError;
use serde::Deserialize;

use super::super::{StorageError, StorageErrorKind};
use crate::domain::object_key::ObjectKey;

/// The maximum number of characters of a store's message that are included in an error.
const MESSAGE_LENGTH_CHARS_MAX: usize = 200;

/// The number of bytes of a response in which an error document must begin. Lists may be long, so the
/// beginning is checked before the body is parsed as an error.
const DOCUMENT_HEAD_SIZE_BYTES: usize = 200;

/// An error document.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ErrorDocument {
    code: String,
    #[serde(default)]
    message: String,
}

/// A failed request.
#[derive(Debug)]
pub(super) enum Failure {
    /// The response did not arrive in time.
    Timeout,
    /// There was no response, or the connection failed during it.
    Http(HttpError),
    /// The response body ended early or was too long.
    Body(Box<dyn Error + Send + Sync>),
    /// The response violates the protocol.
    InvalidResponse(&'static str),
    /// The credentials could not be obtained, or signing failed.
    Credentials(object_store::Error),
    /// The store rejected the request.
    Rejected {
        /// May be 200, because some errors follow a success status.
        status: StatusCode,
        /// The error code, such as `NoSuchKey`; empty if the response had none.
        code: String,
        /// The store's error message.
        message: String,
    },
}

impl Failure {
    /// Creates the failure of a response with an error status. Its code is empty if the body is not an error
    /// document.
    pub(super) fn rejected(status: StatusCode, body: &[u8]) -> Self {
        Self::parse_document(status, body).unwrap_or_else(|| Self::Rejected {
            status,
            code: String::new(),
            message: String::new(),
        })
    }

    /// Returns a rejection if the body is an error document, which may follow a success status.
    pub(super) fn parse_document(status: StatusCode, body: &[u8]) -> Option<Self> {
        let head = body.get(..body.len().min(DOCUMENT_HEAD_SIZE_BYTES))?;
        if !std::str::from_utf8(head).unwrap_or_default().contains("<Error") {
            return None;
        }
        let ErrorDocument { code, message } = quick_xml::de::from_reader(body).ok()?;
        Some(Self::Rejected { status, code, message })
    }

    pub(super) fn bucket_missing() -> Self {
        let (code, message) = ("NoSuchBucket".to_owned(), String::new());
        Self::Rejected { status: StatusCode::NOT_FOUND, code, message }
    }

    pub(super) fn upload_missing() -> Self {
        let (code, message) = ("NoSuchUpload".to_owned(), String::new());
        Self::Rejected { status: StatusCode::NOT_FOUND, code, message }
    }

    pub(super) fn code(&self) -> &str {
        match self {
            Self::Rejected { code, .. } => code,
            _ => "",
        }
    }

    pub(super) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Rejected { status, .. } => Some(*status),
            _ => None,
        }
    }

    pub(super) fn kind(&self) -> StorageErrorKind {
        match self {
            // A timeout or a broken connection does not show whether the request took effect.
            Self::Timeout | Self::Http(_) | Self::Body(_) | Self::InvalidResponse(_) => {
                StorageErrorKind::Transient
            }
            Self::Credentials(_) => StorageErrorKind::Unavailable,
            Self::Rejected { status, code, message } => {
                kind_from_code(code, message).unwrap_or_else(|| kind_from_status(*status))
            }
        }
    }

    /// Converts a failed request to a multipart upload. Only the store's own code means that the upload does not
    /// exist: the caller then begins again. Any other 404, such as that of a proxy, says nothing about the upload.
    pub(super) fn into_multipart_error(self, operation: &'static str, key: &ObjectKey) -> StorageError {
        match self.kind() {
            StorageErrorKind::NotFound if self.code() != "NoSuchUpload" => {
                StorageError::new(StorageErrorKind::Unavailable, operation)
                    .with_source(Box::new(self))
                    .with_key(key)
            }
            _ => self.into_error(operation, key),
        }
    }

    pub(super) fn into_error(self, operation: &'static str, key: &ObjectKey) -> StorageError {
        self.into_store_error(operation).with_key(key)
    }

    pub(super) fn into_store_error(self, operation: &'static str) -> StorageError {
        StorageError::new(self.kind(), operation).with_source(Box::new(self))
    }
}

fn kind_from_code(code: &str, message: &str) -> Option<StorageErrorKind> {
    use StorageErrorKind::{
        AlreadyExists, InvalidInput, NoSpace, NotFound, PartsDiffer, Transient, Unavailable,
    };
    Some(match code {
        "NoSuchKey" | "NoSuchUpload" => NotFound,
        // Only these mean that the stored parts are not the ones of the request. The caller then gives them up, so
        // no other rejection may be mapped to this kind.
        "InvalidPart" | "InvalidPartOrder" | "EntityTooSmall" => PartsDiffer,
        "EntityTooLarge" | "InvalidRange" | "InvalidURI" | "KeyTooLongError" | "MetadataTooLarge" => InvalidInput,
        "PreconditionFailed" => AlreadyExists,
        "QuotaExceeded" | "InsufficientStorage" | "InsufficientCapacity" | "StorageFull"
        | "XMinioStorageFull" => NoSpace,
        // Garage reports an exceeded quota only in the message.
        "AccessDenied" if message.contains("quota") => NoSpace,
        // The body was corrupted in transit; send it again.
        "BadDigest"
        | "InvalidDigest"
        | "IncompleteBody"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch"
        // Two concurrent writers of one key; the retry shows which one succeeded.
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

fn kind_from_status(status: StatusCode) -> StorageErrorKind {
    match status.as_u16() {
        404 => StorageErrorKind::NotFound,
        409 | 412 => StorageErrorKind::AlreadyExists,
        // The only status that says what is invalid: a range beyond the end. A 400 without a known code may have any
        // cause, such as a proxy or a setting of the bucket.
        416 => StorageErrorKind::InvalidInput,
        300..=399 | 401 | 403 => StorageErrorKind::Unavailable,
        507 => StorageErrorKind::NoSpace,
        // An error without a known code that followed a success status.
        200..=299 | 408 | 429 | 500 | 502..=504 => StorageErrorKind::Transient,
        _ => StorageErrorKind::Other,
    }
}

/// Never includes a URL. For access errors it includes only the code, because the message may contain
/// credentials.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("no response in time"),
            Self::Http(error) => write!(f, "no response ({:?})", error.kind()),
            Self::Body(_) => f.write_str("incomplete response"),
            Self::InvalidResponse(what) => write!(f, "invalid response: {what}"),
            Self::Credentials(_) => f.write_str("no credentials for signing"),
            Self::Rejected { status, code, .. } if code == "NoSuchBucket" => {
                write!(
                    f,
                    "{} {code}: the bucket does not exist; `strongroom storage init` creates it",
                    status.as_u16()
                )
            }
            Self::Rejected { status, code, .. } if matches!(status.as_u16(), 300..=399 | 401 | 403) => {
                let hint = "check the access key, its permissions, the region and the clock";
                write!(f, "{} {code}: the store denies access; {hint}", status.as_u16())
            }
            Self::Rejected { status, code, message } => {
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
            Self::Timeout | Self::InvalidResponse(_) | Self::Rejected { .. } => None,
        }
    }
}
