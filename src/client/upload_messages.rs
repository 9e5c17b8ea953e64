//! Turns a source of bytes into the messages of an upload: the spec or the upload gone on with, chunks with offset and CRC32C, and the
//! finish with size and SHA-256, which is sent only after the source ended without an error.

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

/// The size of a chunk, half of what the contract allows.
pub(super) const CHUNK_SIZE_BYTES: usize = 1024 * 1024;
/// How long a slow source may keep the bytes of an unfilled chunk waiting. The server takes a silent stream
/// for a stalled one, so a trickle is sent as a trickle.
const CHUNK_WAIT_MAX: Duration = Duration::from_secs(5);

/// What is told how many bytes of the source were read so far.
pub(super) type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// What a stream begins with.
pub(super) struct Beginning {
    first: Message,
    digest: Sha256,
    offset: i64,
}

impl Beginning {
    /// A file from its first byte on.
    pub(super) fn of_file(spec: UploadSpec) -> Self {
        Self { first: Message::Spec(spec), digest: Sha256::new(), offset: 0 }
    }

    /// An upload behind the bytes that are stored, whose digest is known so far.
    pub(super) fn of_rest(upload_id: String, digest: Sha256, offset: i64) -> Self {
        Self { first: Message::UploadId(upload_id), digest, offset }
    }
}

/// The messages, and where the source's error arrives should it fail. The stream then ends without a finish,
/// so that the server stores nothing.
pub(super) fn upload_messages<R>(
    beginning: Beginning,
    reader: R,
    progress: Progress,
) -> (impl Stream<Item = UploadFileRequest> + Send, oneshot::Receiver<io::Error>)
where
    R: AsyncRead + Send + Unpin + 'static,
{
    let (failure, failed) = oneshot::channel();
    let Beginning { first, digest, offset } = beginning;
    let source =
        Source { reader, progress, failure, digest, sent_bytes: offset, next: Next::First(Box::new(first)) };
    (stream::unfold(source, Source::next), failed)
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
    Nothing,
}

impl<R: AsyncRead + Send + Unpin> Source<R> {
    async fn next(mut self) -> Option<(UploadFileRequest, Self)> {
        let message = match std::mem::replace(&mut self.next, Next::Bytes) {
            Next::First(first) => *first,
            Next::Bytes => match self.read_chunk().await {
                Ok(data) if data.is_empty() => {
                    self.next = Next::Nothing;
                    Message::Finish(self.finish())
                }
                Ok(data) => Message::Chunk(self.chunk(data)),
                Err(error) => {
                    // Nobody listens any more where the call has already ended, and then the error is of no
                    // interest.
                    let _ = self.failure.send(error);
                    return None;
                }
            },
            Next::Nothing => return None,
        };
        Some((UploadFileRequest { message: Some(message) }, self))
    }

    /// Reads until the chunk is full, the source ends, or it has kept what there is waiting for too long.
    /// Empty at the end of the source.
    async fn read_chunk(&mut self) -> io::Result<Bytes> {
        let mut chunk = BytesMut::with_capacity(CHUNK_SIZE_BYTES);
        while chunk.len() < CHUNK_SIZE_BYTES {
            let waits = !chunk.is_empty();
            let mut room = (&mut chunk).limit(CHUNK_SIZE_BYTES);
            room.set_limit(CHUNK_SIZE_BYTES - room.get_ref().len());
            let read = self.reader.read_buf(&mut room);
            let read = if waits {
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

    fn chunk(&mut self, data: Bytes) -> UploadChunk {
        self.digest.update(&data);
        let chunk = UploadChunk { offset: self.sent_bytes, crc32c: Some(crc_fast::crc32_iscsi(&data)), data };
        // A chunk has at most 1 MiB, so the conversion always succeeds.
        self.sent_bytes += i64::try_from(chunk.data.len()).unwrap_or(i64::MAX);
        (self.progress)(self.sent_bytes.unsigned_abs());
        chunk
    }

    fn finish(&mut self) -> UploadFinish {
        let sha256 = Bytes::copy_from_slice(&self.digest.finalize_reset());
        UploadFinish { size_bytes: self.sent_bytes, sha256: Some(sha256) }
    }
}
