//! URLs that let somebody without an account at the store read or write one object for a while.

use std::{fmt, time::Duration};

use url::Url;

use super::MultipartId;
use crate::domain::object_key::ObjectKey;

/// What the holder of the URL may do. Nothing can take it back before it expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresignRequest {
    /// Read an object.
    Get {
        /// Which one.
        key: ObjectKey,
        /// For how long; stores allow up to seven days.
        expires_in: Duration,
        /// The media type that the answer shall carry.
        content_type: Option<String>,
        /// The `Content-Disposition` that the answer shall carry.
        content_disposition: Option<String>,
    },
    /// Write an object in one piece. It may be written again until the URL expires.
    Put {
        /// Which one.
        key: ObjectKey,
        /// For how long.
        expires_in: Duration,
        /// The media type that the writer has to name.
        content_type: Option<String>,
    },
    /// Write one part of an open multipart upload. It may be written again until the upload ends or the URL expires.
    Part {
        /// The object that the upload will be.
        key: ObjectKey,
        /// The upload.
        multipart: MultipartId,
        /// Which part, from 1.
        number: u32,
        /// For how long.
        expires_in: Duration,
    },
}

/// A URL that is as good as a password until it expires.
#[derive(Clone, PartialEq, Eq)]
pub struct PresignedUrl {
    /// Where to send the request.
    pub url: Url,
    /// `GET` or `PUT`.
    pub method: &'static str,
    /// Headers that have to be sent along, exactly so.
    pub headers: Vec<(String, String)>,
}

/// Without the URL: what is in a log must not open a file.
impl fmt::Debug for PresignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresignedUrl").field("method", &self.method).finish_non_exhaustive()
    }
}
