//! An object that is being read, wherever it is.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};

use crate::{app::Error, storage::ForeignObject};

/// An object, opened.
pub(super) struct Opened {
    /// Its size, where that is known before its end.
    pub(super) size_bytes: Option<u64>,
    /// What it is said to be; may be empty.
    pub(super) mime_type: String,
    /// Its bytes: all of them, or an error.
    pub(super) body: BoxStream<'static, Result<Bytes, Error>>,
}

impl From<ForeignObject> for Opened {
    fn from(ForeignObject { size_bytes, mime_type, body }: ForeignObject) -> Self {
        let body = body.map_err(Error::StorageUnavailable).boxed();
        Self { size_bytes: Some(size_bytes), mime_type, body }
    }
}
