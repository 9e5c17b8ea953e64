//! Uploads in one stream: from any `AsyncRead`, and, with retries, from a file on disk.

use std::{path::Path, sync::Arc};

use futures::StreamExt;
use tokio::{io::AsyncRead, sync::oneshot};

use super::{
    connection::Client,
    error::ClientError,
    randomness::fill_request_id,
    upload_messages::{Progress, StreamStart, upload_messages},
};
use crate::proto::v1::{UploadFileResponse, UploadSpec};

impl Client {
    /// Uploads all bytes of `reader`. `progress` is called with the number of bytes read so far.
    ///
    /// The upload is not retried, because the reader cannot be rewound. With a `request_id` in the spec, the
    /// caller can retry it safely.
    ///
    /// If the returned future is dropped before all bytes are sent, no file is stored.
    ///
    /// # Errors
    /// Returns [`ClientError::Source`] if the reader fails. No file is stored then.
    pub async fn upload_reader<R>(
        &self,
        spec: UploadSpec,
        reader: R,
        progress: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<UploadFileResponse, ClientError>
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        self.upload_once(spec, reader, Arc::new(progress)).await
    }

    /// Uploads the file at `path`, and retries from its start if the server is unavailable. All attempts use
    /// the same request id (generated here if the spec has none), so that at most one file is stored. The
    /// size of a regular file is declared. `progress` is called with the number of bytes read so far; each
    /// attempt begins at zero.
    ///
    /// # Errors
    /// Returns [`ClientError::Source`] if the file cannot be read. No file is stored then.
    pub async fn upload_file(
        &self,
        path: &Path,
        mut spec: UploadSpec,
        progress: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<UploadFileResponse, ClientError> {
        let progress: Progress = Arc::new(progress);
        fill_request_id(&mut spec.request_id);
        self.retry
            .call(|| async {
                let file = tokio::fs::File::open(path).await.map_err(ClientError::Source)?;
                let metadata = file.metadata().await.map_err(ClientError::Source)?;
                let mut spec = spec.clone();
                // Each attempt declares the current size: the server rejects a file that changed between
                // attempts, because its request id belongs to the earlier bytes.
                if metadata.is_file() && spec.size_bytes.is_none() {
                    spec.size_bytes = i64::try_from(metadata.len()).ok();
                }
                self.upload_once(spec, file, Arc::clone(&progress)).await
            })
            .await
    }

    async fn upload_once<R>(
        &self,
        spec: UploadSpec,
        reader: R,
        progress: Progress,
    ) -> Result<UploadFileResponse, ClientError>
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        self.send_upload_stream(StreamStart::new_file(spec), reader, progress).await
    }

    /// Sends the messages of one `UploadFile` call.
    pub(super) async fn send_upload_stream<R>(
        &self,
        start: StreamStart,
        reader: R,
        progress: Progress,
    ) -> Result<UploadFileResponse, ClientError>
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        let (messages, source_failed) = upload_messages(start, reader, progress);
        // The connection reads the messages in its own task until the server resets the stream. A server or
        // proxy that responds early need not reset it; then dropping `_call_ended` ends the messages with the
        // call.
        let (_call_ended, until_call_ended) = oneshot::channel::<()>();
        let mut files = self.services.files.clone();
        tokio::select! {
            // The source comes first: if it fails, the server only reports an unfinished upload.
            biased;
            Ok(error) = source_failed => Err(ClientError::Source(error)),
            response = files.upload_file(messages.take_until(until_call_ended)) => {
                response.map(tonic::Response::into_inner).map_err(ClientError::from_status)
            }
        }
    }
}
