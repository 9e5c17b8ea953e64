//! The bytes of a foreign object as the messages of an upload.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{Stream, StreamExt};

use crate::{
    app::uploads::UploadMessage,
    storage::{ByteStream, StorageError},
};

/// Chunks, and a finish behind the last. Where the object cannot be read on there is none, and so no file.
pub(super) struct Messages {
    body: ByteStream,
    sent_bytes: i64,
    is_ended: bool,
    fault: Option<StorageError>,
}

impl Messages {
    pub(super) fn of(body: ByteStream) -> Self {
        Self { body, sent_bytes: 0, is_ended: false, fault: None }
    }

    /// Why the object could not be read to its end.
    pub(super) fn fault(self) -> Option<StorageError> {
        self.fault
    }
}

impl Stream for Messages {
    type Item = UploadMessage;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<UploadMessage>> {
        if self.is_ended {
            return Poll::Ready(None);
        }
        let piece = ready!(self.body.poll_next_unpin(context));
        self.is_ended = !matches!(piece, Some(Ok(_)));
        Poll::Ready(match piece {
            Some(Ok(data)) => {
                let offset = self.sent_bytes;
                self.sent_bytes += i64::try_from(data.len()).unwrap_or(i64::MAX);
                Some(UploadMessage::Chunk { offset, data, crc32c: None })
            }
            Some(Err(error)) => {
                self.fault = Some(error);
                None
            }
            None => Some(UploadMessage::Finish { size_bytes: self.sent_bytes, sha256: None }),
        })
    }
}
