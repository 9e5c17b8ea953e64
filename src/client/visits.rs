//! Calls to `ShareService` by visitors, who have no token.

use sha2::{Digest, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tonic::Streaming;

use super::{connection::Client, download::Verifier, error::ClientError};
use crate::proto::v1::{
    DownloadShareRequest, DownloadShareResponse, ListFileAccessRequest, ListFileAccessResponse,
    ListShareAccessRequest, ListShareAccessResponse, ResolveShareRequest, ResolveShareResponse, VisitHeader,
    download_share_response::Message,
};

impl Client {
    /// Exchanges the token of a share, and its password if it has one, for the description of the file and a grant.
    pub async fn resolve_share(
        &self,
        request: ResolveShareRequest,
    ) -> Result<ResolveShareResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.shares.resolve_share(request).await }).await
    }

    /// Returns one page of the access log of a share.
    pub async fn list_share_access(
        &self,
        request: ListShareAccessRequest,
    ) -> Result<ListShareAccessResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.shares.list_share_access(request).await })
            .await
    }

    /// Returns one page of the access log of a file.
    pub async fn list_file_access(
        &self,
        request: ListFileAccessRequest,
    ) -> Result<ListFileAccessResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.shares.list_file_access(request).await }).await
    }

    /// Downloads the file of a grant to `writer`, and compares its SHA-256. A broken connection is resumed at the byte that
    /// was reached, with the same grant, so it counts as one download. `progress` is called with the number of
    /// bytes written so far.
    ///
    /// # Errors
    /// Returns [`ClientError::Rejected`] if the server ends the download, [`ClientError::Transport`] if it stays
    /// unreachable, [`ClientError::Corrupted`] if a check fails, and [`ClientError::Sink`] if `writer` fails.
    /// After an error, discard the bytes that were written.
    pub async fn download_share_to<W>(
        &self,
        grant: &str,
        writer: &mut W,
        mut progress: impl FnMut(u64) + Send,
    ) -> Result<SharedFile, ClientError>
    where
        W: AsyncWrite + Send + Unpin,
    {
        let mut received = Received::default();
        let mut attempts = 0;
        loop {
            let reached = received.written_bytes;
            let Err(error) = self.receive_rest(grant, &mut received, writer, &mut progress).await else {
                return received.finish();
            };
            attempts = if received.written_bytes > reached { 1 } else { attempts + 1 };
            let Some(delay) = self.retry.delay_after_error(&error, attempts) else { return Err(error) };
            tokio::time::sleep(delay).await;
        }
    }

    async fn receive_rest<W>(
        &self,
        grant: &str,
        received: &mut Received,
        writer: &mut W,
        progress: &mut (impl FnMut(u64) + Send),
    ) -> Result<(), ClientError>
    where
        W: AsyncWrite + Send + Unpin,
    {
        let request = DownloadShareRequest {
            grant: grant.to_owned(),
            read_offset: i64::try_from(received.written_bytes).unwrap_or(i64::MAX),
            read_limit: 0,
            if_version: received.header.as_ref().map_or(0, |header| header.version),
        };
        let mut shares = self.services.shares.clone();
        let messages = shares.download_share(request).await.map_err(ClientError::from_status)?;
        let mut messages = messages.into_inner();
        let Some(Message::Header(header)) = next_message(&mut messages).await? else {
            return Err(ClientError::corrupted("stream does not begin with a header"));
        };
        let mut verifier = Verifier::new(header.range, &header.sha256)?;
        received.header = Some(header);
        while let Some(message) = next_message(&mut messages).await? {
            let Message::Chunk(chunk) = message else {
                return Err(ClientError::corrupted("stream has a second header"));
            };
            let bytes = verifier.verify_chunk(chunk)?;
            writer.write_all(&bytes).await.map_err(ClientError::Sink)?;
            received.digest.update(&bytes);
            received.written_bytes += bytes.len() as u64;
            progress(received.written_bytes);
        }
        verifier.verify_end()?;
        writer.flush().await.map_err(ClientError::Sink)
    }
}

/// A file that was downloaded completely.
#[derive(Debug, Clone)]
pub struct SharedFile {
    /// The name, version, media type and digest of the file.
    pub header: VisitHeader,
    /// The number of bytes written.
    pub size_bytes: u64,
}

#[derive(Default)]
struct Received {
    header: Option<VisitHeader>,
    digest: Sha256,
    written_bytes: u64,
}

impl Received {
    fn finish(self) -> Result<SharedFile, ClientError> {
        let Some(header) = self.header else {
            return Err(ClientError::corrupted("stream does not begin with a header"));
        };
        let computed = self.digest.finalize();
        if computed[..] != header.sha256[..] {
            let (computed, expected) = (hex::encode(computed), hex::encode(&header.sha256));
            return Err(ClientError::corrupted(format!("SHA-256 is {computed}; {expected} was expected")));
        }
        Ok(SharedFile { header, size_bytes: self.written_bytes })
    }
}

/// Returns the next message that this library supports. A newer server may send other kinds.
async fn next_message(
    messages: &mut Streaming<DownloadShareResponse>,
) -> Result<Option<Message>, ClientError> {
    while let Some(response) = messages.message().await.map_err(ClientError::from_status)? {
        if let Some(message) = response.message {
            return Ok(Some(message));
        }
    }
    Ok(None)
}
