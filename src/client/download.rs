//! Downloads: the header first, then the bytes, each chunk checked before it is handed out.

use bytes::Bytes;
use futures::{Stream, stream};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tonic::Streaming;

use super::{connection::Client, error::ClientError};
use crate::proto::v1::{
    DownloadChunk, DownloadFileRequest, DownloadFileResponse, DownloadHeader, download_file_response::Message,
};

impl Client {
    /// Opens a download and returns once its header is there. Opening is repeated when the server is away.
    pub async fn download(&self, request: DownloadFileRequest) -> Result<Download, ClientError> {
        self.retry.run(|| self.open(request.clone())).await
    }

    /// Downloads into `writer`, and says at the end whether what was written is right: after an error the
    /// writer holds bytes that must not be used. `progress` is told how many bytes were written so far.
    pub async fn download_to<W>(
        &self,
        request: DownloadFileRequest,
        writer: &mut W,
        progress: impl FnMut(u64) + Send,
    ) -> Result<DownloadHeader, ClientError>
    where
        W: AsyncWrite + Send + Unpin,
    {
        let mut download = self.download(request).await?;
        download.write_to(writer, progress).await?;
        Ok(download.header)
    }

    async fn open(&self, request: DownloadFileRequest) -> Result<Download, ClientError> {
        let mut files = self.services.files.clone();
        let answer = files.download_file(request).await.map_err(ClientError::from_status)?;
        let mut messages = answer.into_inner();
        let first = messages.message().await.map_err(ClientError::from_status)?;
        let Some(Message::Header(header)) = first.and_then(|first| first.message) else {
            return Err(ClientError::corrupted("the stream does not begin with a header"));
        };
        Ok(Download { check: Check::new(&header)?, header, messages, ended: false })
    }
}

/// A download whose header has arrived and whose bytes are still to come.
#[derive(Debug)]
pub struct Download {
    /// The file, the range that is sent, and the digest of the whole version.
    pub header: DownloadHeader,
    messages: Streaming<DownloadFileResponse>,
    check: Check,
    ended: bool,
}

impl Download {
    /// The next bytes, which are undamaged and follow the ones before; nothing after the last.
    ///
    /// The last checks (that no byte is missing and, for a whole file, the SHA-256) come with the end: only
    /// `Ok(None)` says that all was well.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        if self.ended {
            return Ok(None);
        }
        let next = self.receive().await;
        self.ended = !matches!(next, Ok(Some(_)));
        next
    }

    /// The bytes as a stream; it ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, ClientError>> + Send {
        stream::try_unfold(self, |mut download| async move {
            Ok(download.next_chunk().await?.map(|bytes| (bytes, download)))
        })
    }

    /// Writes all bytes to `writer`, flushes it, and returns how many there were.
    pub async fn write_to<W>(
        &mut self,
        writer: &mut W,
        mut progress: impl FnMut(u64) + Send,
    ) -> Result<u64, ClientError>
    where
        W: AsyncWrite + Send + Unpin,
    {
        let mut written_bytes = 0;
        while let Some(bytes) = self.next_chunk().await? {
            writer.write_all(&bytes).await.map_err(ClientError::Sink)?;
            written_bytes += bytes.len() as u64;
            progress(written_bytes);
        }
        writer.flush().await.map_err(ClientError::Sink)?;
        Ok(written_bytes)
    }

    async fn receive(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(answer) = self.messages.message().await.map_err(ClientError::from_status)? {
            match answer.message {
                Some(Message::Chunk(chunk)) => return self.check.chunk(chunk).map(Some),
                Some(Message::Header(_)) => return Err(ClientError::corrupted("a second header came")),
                // A kind of message that this library does not know yet.
                None => {}
            }
        }
        self.check.end().map(|()| None)
    }
}

/// What must be true of the bytes that arrive.
#[derive(Debug)]
struct Check {
    next_offset: i64,
    end_offset: i64,
    /// Present where the range is the whole version: a part of it has no digest to compare with.
    whole: Option<(Sha256, Bytes)>,
}

impl Check {
    fn new(header: &DownloadHeader) -> Result<Self, ClientError> {
        let range = header.range.unwrap_or_default();
        let end_offset = range.offset.checked_add(range.length).filter(|end| *end <= range.total_bytes);
        let Some(end_offset) = end_offset.filter(|_| range.offset >= 0 && range.length >= 0) else {
            return Err(ClientError::corrupted(format!("the header names an impossible range {range:?}")));
        };
        let whole = range.length == range.total_bytes;
        let whole = whole.then(|| (Sha256::new(), header.sha256.clone()));
        Ok(Self { next_offset: range.offset, end_offset, whole })
    }

    fn chunk(&mut self, chunk: DownloadChunk) -> Result<Bytes, ClientError> {
        let DownloadChunk { offset, data, crc32c } = chunk;
        if offset != self.next_offset {
            let expected = self.next_offset;
            return Err(ClientError::corrupted(format!(
                "bytes of offset {offset} came where {expected} was due"
            )));
        }
        let computed = crc_fast::crc32_iscsi(&data);
        if computed != crc32c {
            return Err(ClientError::corrupted(format!(
                "the chunk at offset {offset} has CRC32C {computed:08x} where {crc32c:08x} was sent"
            )));
        }
        let next = i64::try_from(data.len()).ok().and_then(|len| offset.checked_add(len));
        self.next_offset = next.filter(|next| *next <= self.end_offset).ok_or_else(|| {
            ClientError::corrupted(format!(
                "more bytes came than the range has; it ends at {}",
                self.end_offset
            ))
        })?;
        if let Some((digest, _)) = &mut self.whole {
            digest.update(&data);
        }
        Ok(data)
    }

    fn end(&mut self) -> Result<(), ClientError> {
        let Self { next_offset, end_offset, whole } = self;
        if next_offset != end_offset {
            return Err(ClientError::corrupted(format!(
                "it ended at offset {next_offset} instead of {end_offset}"
            )));
        }
        let Some((digest, recorded)) = whole else { return Ok(()) };
        let computed = digest.finalize_reset();
        if computed[..] != recorded[..] {
            let (computed, recorded) = (hex::encode(computed), hex::encode(recorded));
            return Err(ClientError::corrupted(format!(
                "its SHA-256 is {computed} where {recorded} is recorded"
            )));
        }
        Ok(())
    }
}
