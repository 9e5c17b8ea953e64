//! Converts a source of bytes into the messages of an `UploadFile` call: the spec or the id of an existing
//! upload, the chunks with offset and CRC32C, and the finish message with size and SHA-256. The finish
//! message is sent only if the source ends without an error.

use std::{io, sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use futures::{Stream, stream};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::oneshot,
    time::timeout,
};

use crate::proto::v1::{
    UploadChunk, UploadFileRequest, UploadFinish, UploadSpec, upload_file_request::Message,
};

/// The size of a chunk: half of the largest chunk that the server accepts.
pub(super) const CHUNK_SIZE_BYTES: usize = 1024 * 1024;
/// The longest time that the bytes of a partial chunk wait for a slow source. The server aborts a stream
/// without messages as stalled, so a slow source is sent in small chunks.
const CHUNK_WAIT_MAX: Duration = Duration::from_secs(5);

/// A callback with the number of bytes of the source that were read so far.
pub(super) type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// The first message of a stream, and the state of the upload before it.
pub(super) struct StreamStart {
    first: Message,
    /// The digest of the bytes before `offset`.
    digest: Sha256,
    offset: i64,
}

impl StreamStart {
    /// Starts a new file at its first byte.
    pub(super) fn new_file(spec: UploadSpec) -> Self {
        Self { first: Message::Spec(spec), digest: Sha256::new(), offset: 0 }
    }

    /// Resumes an existing upload after its stored bytes, which have this digest.
    pub(super) fn existing_upload(upload_id: String, digest: Sha256, offset: i64) -> Self {
        Self { first: Message::UploadId(upload_id), digest, offset }
    }
}

/// Returns the messages, and a receiver for the error of the source. If the source fails, the stream ends
/// without a finish message, so that the server stores no file.
pub(super) fn upload_messages<R>(
    start: StreamStart,
    reader: R,
    progress: Progress,
) -> (impl Stream<Item = UploadFileRequest> + Send, oneshot::Receiver<io::Error>)
where
    R: AsyncRead + Send + Unpin + 'static,
{
    let (failure, failed) = oneshot::channel();
    let StreamStart { first, digest, offset } = start;
    let source =
        Source { reader, progress, failure, digest, sent_bytes: offset, next: Next::First(Box::new(first)) };
    (stream::unfold(source, Source::next_message), failed)
}

struct Source<R> {
    reader: R,
    progress: Progress,
    failure: oneshot::Sender<io::Error>,
    digest: Sha256,
    sent_bytes: i64,
    next: Next,
}

enum Next {
    First(Box<Message>),
    Bytes,
    End,
}

impl<R: AsyncRead + Send + Unpin> Source<R> {
    async fn next_message(mut self) -> Option<(UploadFileRequest, Self)> {
        let message = match std::mem::replace(&mut self.next, Next::Bytes) {
            Next::First(first) => *first,
            Next::Bytes => match self.read_chunk().await {
                Ok(data) if data.is_empty() => {
                    self.next = Next::End;
                    Message::Finish(self.build_finish())
                }
                Ok(data) => Message::Chunk(self.build_chunk(data)),
                Err(error) => {
                    // The receiver is gone if the call has already ended; the error does not matter then.
                    let _ = self.failure.send(error);
                    return None;
                }
            },
            Next::End => return None,
        };
        Some((UploadFileRequest { message: Some(message) }, self))
    }

    /// Reads until the chunk is full, the source ends, or the bytes that were read have waited for
    /// `CHUNK_WAIT_MAX`. Returns an empty chunk at the end of the source.
    async fn read_chunk(&mut self) -> io::Result<Bytes> {
        let mut chunk = BytesMut::with_capacity(CHUNK_SIZE_BYTES);
        while chunk.len() < CHUNK_SIZE_BYTES {
            let has_waiting_bytes = !chunk.is_empty();
            let mut free = (&mut chunk).limit(CHUNK_SIZE_BYTES);
            free.set_limit(CHUNK_SIZE_BYTES - free.get_ref().len());
            let read = self.reader.read_buf(&mut free);
            let read = if has_waiting_bytes {
                match timeout(CHUNK_WAIT_MAX, read).await {
                    Ok(read) => read,
                    Err(_) => break,
                }
            } else {
                read.await
            };
            match read {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(chunk.freeze())
    }

    fn build_chunk(&mut self, data: Bytes) -> UploadChunk {
        self.digest.update(&data);
        let chunk = UploadChunk { offset: self.sent_bytes, crc32c: Some(crc_fast::crc32_iscsi(&data)), data };
        // A chunk has at most 1 MiB, so the conversion cannot fail.
        self.sent_bytes += i64::try_from(chunk.data.len()).unwrap_or(i64::MAX);
        (self.progress)(self.sent_bytes.unsigned_abs());
        chunk
    }

    fn build_finish(&mut self) -> UploadFinish {
        let sha256 = Bytes::copy_from_slice(&self.digest.finalize_reset());
        UploadFinish { size_bytes: self.sent_bytes, sha256: Some(sha256) }
    }
}
