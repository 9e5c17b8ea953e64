//! Uploads: one stream from any `AsyncRead`, and with retries from a file, which can be opened again.

use std::{path::Path, sync::Arc};

use futures::StreamExt;
use tokio::{io::AsyncRead, sync::oneshot};

use super::{
    connection::Client,
    error::ClientError,
    randomness::fill_request_id,
    upload_messages::{Beginning, Progress, upload_messages},
};
use crate::proto::v1::{UploadFileResponse, UploadSpec};

impl Client {
    /// Uploads what `reader` gives until its end. `progress` is told how many bytes were read so far.
    ///
    /// Tried once, since the reader cannot be rewound; a `request_id` in the spec lets the caller repeat it
    /// safely.
    ///
    /// Where the reader fails, its error comes back ([`ClientError::Source`]) and nothing is stored: the
    /// stream ends without a finish. The same happens where the returned future is dropped.
    pub async fn upload<R>(
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

    /// Uploads the file at `path`, and tries again from its start where the server was away: always with the
    /// same request id, minted here where the spec has none, so that at most one file is stored. Declares the
    /// size. With every try `progress` starts again from zero.
    pub async fn upload_file(
        &self,
        path: &Path,
        mut spec: UploadSpec,
        progress: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<UploadFileResponse, ClientError> {
        let progress: Progress = Arc::new(progress);
        fill_request_id(&mut spec.request_id);
        self.retry
            .run(|| async {
                let file = tokio::fs::File::open(path).await.map_err(ClientError::Source)?;
                let about = file.metadata().await.map_err(ClientError::Source)?;
                let mut spec = spec.clone();
                // Read anew for every try: a file that changed in between is refused, since its id stands for
                // the other bytes, and not stored with the wrong ones.
                if about.is_file() && spec.size_bytes.is_none() {
                    spec.size_bytes = i64::try_from(about.len()).ok();
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
        self.send(Beginning::of_file(spec), reader, progress).await
    }

    /// Sends one stream of an upload.
    pub(super) async fn send<R>(
        &self,
        beginning: Beginning,
        reader: R,
        progress: Progress,
    ) -> Result<UploadFileResponse, ClientError>
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        let (messages, source_failed) = upload_messages(beginning, reader, progress);
        // The connection reads the messages in a task of its own, until the server resets the stream. A
        // server or proxy that answers early need not do that; dropping `_call_ended` ends the messages with
        // the call in any case.
        let (_call_ended, until_call_ended) = oneshot::channel::<()>();
        let mut files = self.services.files.clone();
        tokio::select! {
            // In this order: when the source fails the server reports an upload that was not finished, which
            // is true and of no help.
            biased;
            Ok(error) = source_failed => Err(ClientError::Source(error)),
            answer = files.upload_file(messages.take_until(until_call_ended)) => {
                answer.map(tonic::Response::into_inner).map_err(ClientError::from_status)
            }
        }
    }
}
