//! Converts the bytes of a source object into the messages of an upload.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream::BoxStream};

use crate::app::{
    Error,
    uploads::{UploadMessage, UploadStream},
};

/// Chunks followed by a finish message. If the object cannot be read to its end, no finish message follows,
/// so no file is created.
pub(super) struct UploadMessages {
    body: BoxStream<'static, Result<Bytes, Error>>,
    chunk_size_max_bytes: usize,
    /// Received bytes that do not fit into one chunk.
    rest: Bytes,
    sent_bytes: i64,
    has_ended: bool,
    read_error: Option<Error>,
}

impl UploadMessages {
    pub(super) fn new(body: BoxStream<'static, Result<Bytes, Error>>, chunk_size_max_bytes: usize) -> Self {
        Self {
            body,
            chunk_size_max_bytes,
            rest: Bytes::new(),
            sent_bytes: 0,
            has_ended: false,
            read_error: None,
        }
    }

    /// Returns the error that ended the body early, if any.
    pub(super) fn read_error(self) -> Option<Error> {
        self.read_error
    }

    fn chunk(&mut self) -> UploadMessage {
        let data = self.rest.split_to(self.rest.len().min(self.chunk_size_max_bytes));
        let offset = self.sent_bytes;
        self.sent_bytes += i64::try_from(data.len()).unwrap_or(i64::MAX);
        UploadMessage::Chunk { offset, data, crc32c: None }
    }
}

/// Each piece of the source is a message.
impl UploadStream for UploadMessages {}

impl Stream for UploadMessages {
    type Item = UploadMessage;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<UploadMessage>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(self.chunk()));
        }
        if self.has_ended {
            return Poll::Ready(None);
        }
        let piece = ready!(self.body.poll_next_unpin(context));
        self.has_ended = !matches!(piece, Some(Ok(_)));
        Poll::Ready(match piece {
            Some(Ok(data)) => {
                self.rest = data;
                Some(self.chunk())
            }
            Some(Err(error)) => {
                self.read_error = Some(error);
                None
            }
            None => Some(UploadMessage::Finish { size_bytes: self.sent_bytes, sha256: None }),
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn splits_large_pieces_and_omits_finish_after_error() {
        let pieces = [Ok(Bytes::from_static(b"abcdefg")), Err(Error::ObjectDamaged)];
        let mut messages = UploadMessages::new(stream::iter(pieces).boxed(), 3);
        let mut chunks = Vec::new();
        while let Some(message) = messages.next().await {
            let UploadMessage::Chunk { offset, data, .. } = message else {
                panic!("finish message after a read error")
            };
            chunks.push((offset, data));
        }
        let expected = [(0, "abc"), (3, "def"), (6, "g")];
        assert!(chunks.iter().zip(expected).all(|(chunk, (offset, data))| *chunk == (offset, data.into())));
        assert_eq!(chunks.len(), 3);
        assert!(matches!(messages.read_error(), Some(Error::ObjectDamaged)));
    }
}
