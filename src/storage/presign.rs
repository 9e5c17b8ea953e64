//! Presigned URLs, which allow clients without store credentials to read or write one object for a limited
//! time.

use std::{fmt, time::Duration};

use url::Url;

use super::MultipartId;
use crate::domain::object_key::ObjectKey;

/// The operation that the holder of a URL may perform. A URL cannot be revoked before it expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresignRequest {
    /// Read an object.
    Get {
        /// The key of the object.
        key: ObjectKey,
        /// Lifetime of the URL, from one second to seven days.
        expires_in: Duration,
        /// The content type of the response.
        content_type: Option<String>,
        /// The `Content-Disposition` of the response.
        content_disposition: Option<String>,
    },
    /// Write an object in one request. The request can be repeated until the URL expires.
    Put {
        /// The key of the object.
        key: ObjectKey,
        /// The length of the body, which the URL signs as `content-length`. Stores that check signatures
        /// reject another length.
        size_bytes: u64,
        /// Lifetime of the URL, from one second to seven days.
        expires_in: Duration,
        /// The content type that the writer must send.
        content_type: Option<String>,
    },
    /// Write one part of an open multipart upload. The request can be repeated until the upload ends or the
    /// URL expires.
    Part {
        /// The key of the object that the upload creates.
        key: ObjectKey,
        /// The id of the multipart upload.
        multipart: MultipartId,
        /// The number of the part, starting at 1.
        number: u32,
        /// The length of the part, which the URL signs like that of `Put`.
        size_bytes: u64,
        /// Lifetime of the URL, from one second to seven days.
        expires_in: Duration,
    },
}

/// A presigned URL. Treat it as a secret until it expires.
#[derive(Clone, PartialEq, Eq)]
pub struct PresignedUrl {
    /// The URL of the request.
    pub url: Url,
    /// The HTTP method, `GET` or `PUT`.
    pub method: &'static str,
    /// Headers that the request must contain unchanged, except for `content-length`: every HTTP client derives
    /// it from the body, and many do not allow it to be set.
    pub headers: Vec<(String, String)>,
}

/// Omits the URL, because a logged URL would give access to the object.
impl fmt::Debug for PresignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresignedUrl").field("method", &self.method).finish_non_exhaustive()
    }
}
