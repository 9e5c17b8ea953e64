//! The bytes of a foreign object as the messages of an upload.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream::BoxStream};

use crate::app::{Error, uploads::UploadMessage};

/// Chunks, and a finish behind the last. Where the object cannot be read on there is none, and so no file.
pub(super) struct Messages {
    body: BoxStream<'static, Result<Bytes, Error>>,
    chunk_size_max_bytes: usize,
    /// What came in one piece and is too large for one chunk.
    rest: Bytes,
    sent_bytes: i64,
    is_ended: bool,
    fault: Option<Error>,
}

impl Messages {
    pub(super) fn of(body: BoxStream<'static, Result<Bytes, Error>>, chunk_size_max_bytes: usize) -> Self {
        Self { body, chunk_size_max_bytes, rest: Bytes::new(), sent_bytes: 0, is_ended: false, fault: None }
    }

    /// Why the object could not be read to its end.
    pub(super) fn fault(self) -> Option<Error> {
        self.fault
    }

    fn chunk(&mut self) -> UploadMessage {
        let data = self.rest.split_to(self.rest.len().min(self.chunk_size_max_bytes));
        let offset = self.sent_bytes;
        self.sent_bytes += i64::try_from(data.len()).unwrap_or(i64::MAX);
        UploadMessage::Chunk { offset, data, crc32c: None }
    }
}

impl Stream for Messages {
    type Item = UploadMessage;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<UploadMessage>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(self.chunk()));
        }
        if self.is_ended {
            return Poll::Ready(None);
        }
        let piece = ready!(self.body.poll_next_unpin(context));
        self.is_ended = !matches!(piece, Some(Ok(_)));
        Poll::Ready(match piece {
            Some(Ok(data)) => {
                self.rest = data;
                Some(self.chunk())
            }
            Some(Err(error)) => {
                self.fault = Some(error);
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
    async fn a_large_piece_becomes_chunks_that_are_taken_and_a_fault_makes_no_finish() {
        let pieces = [Ok(Bytes::from_static(b"abcdefg")), Err(Error::ObjectDamaged)];
        let mut messages = Messages::of(stream::iter(pieces).boxed(), 3);
        let mut chunks = Vec::new();
        while let Some(message) = messages.next().await {
            let UploadMessage::Chunk { offset, data, .. } = message else { panic!("a finish after a fault") };
            chunks.push((offset, data));
        }
        let expected = [(0, "abc"), (3, "def"), (6, "g")];
        assert!(chunks.iter().zip(expected).all(|(chunk, (offset, data))| *chunk == (offset, data.into())));
        assert_eq!(chunks.len(), 3);
        assert!(matches!(messages.fault(), Some(Error::ObjectDamaged)));
    }
}
