//! A source object that is being read.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};

use crate::{app::Error, storage::SourceObject};

/// The metadata and the bytes of a source object.
pub(super) struct ObjectStream {
    /// The size in bytes, if known in advance.
    pub(super) size_bytes: Option<u64>,
    /// The media type that the source declares; may be empty.
    pub(super) mime_type: String,
    /// The bytes. The stream yields all of them or ends with an error.
    pub(super) body: BoxStream<'static, Result<Bytes, Error>>,
}

impl From<SourceObject> for ObjectStream {
    fn from(SourceObject { size_bytes, mime_type, body }: SourceObject) -> Self {
        let body = body.map_err(Error::StorageUnavailable).boxed();
        Self { size_bytes: Some(size_bytes), mime_type, body }
    }
}
