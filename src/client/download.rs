//! Downloads: the header, then the chunks. Each chunk is verified before it is returned.

use bytes::Bytes;
use futures::{Stream, stream};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tonic::Streaming;

use super::{connection::Client, error::ClientError};
use crate::proto::v1::{
    ContentRange, DownloadChunk, DownloadFileRequest, DownloadFileResponse, DownloadHeader,
    download_file_response::Message,
};

impl Client {
    /// Opens a download and returns it when its header has arrived. Opening is retried while the server is
    /// unavailable.
    ///
    /// # Errors
    /// Returns [`ClientError::Rejected`] if the server rejects the download, [`ClientError::Transport`] if it
    /// is unreachable, and [`ClientError::Corrupted`] if the stream does not begin with a valid header.
    pub async fn open_download(&self, request: DownloadFileRequest) -> Result<Download, ClientError> {
        self.retry.call(|| self.try_open_download(request.clone())).await
    }

    /// Downloads a file or a range of it to `writer`. `progress` is called with the number of bytes written
    /// so far.
    ///
    /// # Errors
    /// Returns the errors of [`Client::open_download`] and [`Download::write_to`]. After an error, discard
    /// the bytes that were written.
    pub async fn download_to<W>(
        &self,
        request: DownloadFileRequest,
        writer: &mut W,
        progress: impl FnMut(u64) + Send,
    ) -> Result<DownloadHeader, ClientError>
    where
        W: AsyncWrite + Send + Unpin,
    {
        let mut download = self.open_download(request).await?;
        download.write_to(writer, progress).await?;
        Ok(download.header)
    }

    async fn try_open_download(&self, request: DownloadFileRequest) -> Result<Download, ClientError> {
        let mut files = self.services.files.clone();
        let response = files.download_file(request).await.map_err(ClientError::from_status)?;
        let mut messages = response.into_inner();
        let first = messages.message().await.map_err(ClientError::from_status)?;
        let Some(Message::Header(header)) = first.and_then(|first| first.message) else {
            return Err(ClientError::corrupted("stream does not begin with a header"));
        };
        Ok(Download {
            verifier: Verifier::new(header.range, &header.sha256)?,
            header,
            messages,
            has_ended: false,
        })
    }
}

/// An open download, whose header has been received.
#[derive(Debug)]
pub struct Download {
    /// The record of the file, the range that is sent, and the SHA-256 of the whole version.
    pub header: DownloadHeader,
    messages: Streaming<DownloadFileResponse>,
    verifier: Verifier,
    has_ended: bool,
}

impl Download {
    /// Returns the next verified bytes, in order, and `None` at the end.
    ///
    /// Some checks are possible only at the end: that no byte is missing and, for a whole file, the SHA-256.
    /// The download is correct only if this function has returned `Ok(None)`.
    ///
    /// # Errors
    /// Returns [`ClientError::Corrupted`] if a check fails, [`ClientError::Transport`] if the connection
    /// breaks, and [`ClientError::Rejected`] if the server ends the download with an error. After an error,
    /// all further calls return `Ok(None)`; do not use the bytes.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        if self.has_ended {
            return Ok(None);
        }
        let next = self.receive_chunk().await;
        self.has_ended = !matches!(next, Ok(Some(_)));
        next
    }

    /// Converts the download into a stream of its verified bytes. The stream ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, ClientError>> + Send {
        stream::try_unfold(self, |mut download| async move {
            Ok(download.next_chunk().await?.map(|bytes| (bytes, download)))
        })
    }

    /// Writes all bytes to `writer`, flushes it, and returns their number. `progress` is called with the
    /// number of bytes written so far.
    ///
    /// # Errors
    /// Returns [`ClientError::Sink`] if `writer` fails, and the errors of [`Download::next_chunk`].
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

    async fn receive_chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(response) = self.messages.message().await.map_err(ClientError::from_status)? {
            match response.message {
                Some(Message::Chunk(chunk)) => return self.verifier.verify_chunk(chunk).map(Some),
                Some(Message::Header(_)) => return Err(ClientError::corrupted("stream has a second header")),
                // A newer server may send kinds of messages that this library does not support.
                None => {}
            }
        }
        self.verifier.verify_end().map(|()| None)
    }
}

/// Verifies offsets, checksums and the length of the received bytes.
#[derive(Debug)]
pub(super) struct Verifier {
    next_offset: i64,
    end_offset: i64,
    /// The digest of the bytes so far and the expected digest. Absent if only a part of the version is sent,
    /// because the expected digest is that of the whole version.
    whole_digest: Option<(Sha256, Bytes)>,
}

impl Verifier {
    /// Creates a verifier for a range of a version with this SHA-256.
    pub(super) fn new(range: Option<ContentRange>, sha256: &Bytes) -> Result<Self, ClientError> {
        let range = range.unwrap_or_default();
        let end_offset = range.offset.checked_add(range.length).filter(|end| *end <= range.total_bytes);
        let Some(end_offset) = end_offset.filter(|_| range.offset >= 0 && range.length >= 0) else {
            return Err(ClientError::corrupted(format!("header has an invalid range: {range:?}")));
        };
        let is_whole = range.length == range.total_bytes;
        let whole_digest = is_whole.then(|| (Sha256::new(), sha256.clone()));
        Ok(Self { next_offset: range.offset, end_offset, whole_digest })
    }

    pub(super) fn verify_chunk(&mut self, chunk: DownloadChunk) -> Result<Bytes, ClientError> {
        let DownloadChunk { offset, data, crc32c } = chunk;
        if offset != self.next_offset {
            let expected = self.next_offset;
            return Err(ClientError::corrupted(format!(
                "chunk has offset {offset}; {expected} was expected"
            )));
        }
        let computed = crc_fast::crc32_iscsi(&data);
        if computed != crc32c {
            return Err(ClientError::corrupted(format!(
                "chunk at offset {offset} has CRC32C {computed:08x}; the server sent {crc32c:08x}"
            )));
        }
        let next = i64::try_from(data.len()).ok().and_then(|len| offset.checked_add(len));
        self.next_offset = next.filter(|next| *next <= self.end_offset).ok_or_else(|| {
            ClientError::corrupted(format!(
                "chunk at offset {offset} has {} bytes; the range ends at {}",
                data.len(),
                self.end_offset
            ))
        })?;
        if let Some((digest, _)) = &mut self.whole_digest {
            digest.update(&data);
        }
        Ok(data)
    }

    pub(super) fn verify_end(&mut self) -> Result<(), ClientError> {
        let Self { next_offset, end_offset, whole_digest } = self;
        if next_offset != end_offset {
            return Err(ClientError::corrupted(format!(
                "stream ended at offset {next_offset}; {end_offset} was expected"
            )));
        }
        let Some((digest, expected)) = whole_digest else { return Ok(()) };
        let computed = digest.finalize_reset();
        if computed[..] != expected[..] {
            let (computed, expected) = (hex::encode(computed), hex::encode(expected));
            return Err(ClientError::corrupted(format!("SHA-256 is {computed}; {expected} was expected")));
        }
        Ok(())
    }
}
