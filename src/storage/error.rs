//! Storage errors, classified by how the caller can react.

use std::{error::Error, fmt};

use crate::domain::object_key::ObjectKey;

/// The kind of a storage error, which determines how the caller can react.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StorageErrorKind {
    /// The object or the open multipart upload does not exist.
    NotFound,
    /// An object with this key exists. Objects are never overwritten.
    AlreadyExists,
    /// A temporary failure; the same call is likely to succeed. The only kind that is retried.
    Transient,
    /// The store is unreachable or denies access (credentials, read-only). An immediate retry does not help.
    Unavailable,
    /// The store has no free space, or its quota is used up.
    NoSpace,
    /// The stored bytes differ from the bytes that were written.
    Damaged,
    /// The stored parts of a multipart upload differ from those of the request. The upload can be completed only
    /// after its parts are sent again.
    PartsDiffer,
    /// The arguments are invalid: a range beyond the end, a part number above the limit, an unknown multipart id.
    InvalidInput,
    /// Any other failure.
    Other,
}

impl fmt::Display for StorageErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::Transient => "temporary failure",
            Self::Unavailable => "store is unavailable",
            Self::NoSpace => "store is full",
            Self::Damaged => "stored bytes are damaged",
            Self::PartsDiffer => "stored parts differ",
            Self::InvalidInput => "invalid input",
            Self::Other => "failed",
        })
    }
}

/// A failed call to a store. The message contains the operation and the key, but no path and no URL; those
/// are in the source.
#[derive(Debug)]
pub struct StorageError {
    /// Determines how the caller can react.
    pub kind: StorageErrorKind,
    /// The failed operation as a verb phrase, such as `complete multipart upload`.
    pub operation: &'static str,
    /// The key of the object, if the operation concerns one.
    pub key: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl StorageError {
    /// Creates an error without a key and without a source.
    pub const fn new(kind: StorageErrorKind, operation: &'static str) -> Self {
        Self { kind, operation, key: None, source: None }
    }

    /// Creates an `InvalidInput` error with this reason as its source.
    pub(super) fn invalid_input(operation: &'static str, reason: impl Into<String>) -> Self {
        Self::new(StorageErrorKind::InvalidInput, operation).with_source(reason.into())
    }

    /// Creates a `PartsDiffer` error with this reason as its source.
    pub(super) fn parts_differ(operation: &'static str, reason: impl Into<String>) -> Self {
        Self::new(StorageErrorKind::PartsDiffer, operation).with_source(reason.into())
    }

    /// Sets the key of the object.
    #[must_use]
    pub fn with_key(mut self, key: &ObjectKey) -> Self {
        self.key = Some(key.to_string());
        self
    }

    /// Sets the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns whether the same call is likely to succeed if repeated.
    pub const fn is_retryable(&self) -> bool {
        matches!(self.kind, StorageErrorKind::Transient)
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "{} {key}: {}", self.operation, self.kind),
            None => write!(f, "{}: {}", self.operation, self.kind),
        }
    }
}

impl Error for StorageError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| -> &(dyn Error + 'static) { source.as_ref() })
    }
}
