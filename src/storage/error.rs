//! What can go wrong in a store, sorted by what the caller can do about it.

use std::{error::Error, fmt};

use crate::domain::object_key::ObjectKey;

/// What the caller can do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StorageErrorKind {
    /// No such object, or no such open multipart upload.
    NotFound,
    /// The key is taken, and objects are never overwritten.
    AlreadyExists,
    /// A hiccup: the same call again is likely to work. The only kind that is retried.
    Transient,
    /// The store is away or turns us away (rights, read only); asking again at once will not help.
    Unavailable,
    /// The store is full.
    NoSpace,
    /// What is stored is not what was put there.
    Damaged,
    /// The call itself is wrong: a range beyond the end, a gap between parts, a foreign id.
    InvalidInput,
    /// Anything else.
    Other,
}

impl fmt::Display for StorageErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::Transient => "failed for the moment",
            Self::Unavailable => "the store is unavailable",
            Self::NoSpace => "the store is full",
            Self::Damaged => "the stored bytes are damaged",
            Self::InvalidInput => "invalid input",
            Self::Other => "failed",
        })
    }
}

/// A failed call to a store. Its text names the operation and the key, never a path or an address; those are
/// in the source.
#[derive(Debug)]
pub struct StorageError {
    /// What the caller can do about it.
    pub kind: StorageErrorKind,
    /// What was being done, as a bare verb phrase: `complete multipart upload`.
    pub operation: &'static str,
    /// The object that it was done to.
    pub key: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl StorageError {
    /// An error without a key or a source.
    pub const fn new(kind: StorageErrorKind, operation: &'static str) -> Self {
        Self { kind, operation, key: None, source: None }
    }

    /// The call itself is wrong, for this reason.
    pub(super) fn invalid(operation: &'static str, reason: impl Into<String>) -> Self {
        Self::new(StorageErrorKind::InvalidInput, operation).with_source(reason.into())
    }

    /// Names the object.
    #[must_use]
    pub fn with_key(mut self, key: &ObjectKey) -> Self {
        self.key = Some(key.to_string());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Whether the same call again is likely to work.
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
