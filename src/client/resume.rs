//! Resumable uploads: they survive a broken connection and a restart of the server, and another process can
//! resume them by their id.

use std::{io, path::Path, sync::Arc};

use sha2::{Digest, Sha256};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt},
};
use tonic::Code;

use super::{
    connection::Client,
    error::ClientError,
    randomness::fill_request_id,
    retry::RetryPolicy,
    upload_messages::{Progress, StreamStart},
};
use crate::proto::v1::{
    CancelUploadRequest, CancelUploadResponse, CompleteUploadRequest, CompleteUploadResponse,
    CreateUploadRequest, CreateUploadResponse, ErrorReason, GetUploadRequest, GetUploadResponse,
    ListUploadsRequest, ListUploadsResponse, Upload, UploadFileResponse, UploadPartRequest,
    UploadPartResponse, UploadSpec,
};

/// The number of consecutive attempts without progress after which an upload fails, unless retries are
/// disabled. With the default backoff they last longer than a restart of the server (40 s).
const ATTEMPTS_WITHOUT_PROGRESS_MAX: u32 = 10;
/// The size of the buffer for computing the digest of the bytes that are already stored.
const READ_BUFFER_BYTES: usize = 1024 * 1024;

impl Client {
    /// Creates an upload. Safe to retry: a missing request id is generated.
    pub async fn create_upload(
        &self,
        mut request: CreateUploadRequest,
    ) -> Result<CreateUploadResponse, ClientError> {
        fill_request_id(&mut request.spec.get_or_insert_default().request_id);
        self.call(request, |mut api, request| async move { api.uploads.create_upload(request).await }).await
    }

    /// Returns an upload with the number of its stored bytes.
    pub async fn get_upload(&self, request: GetUploadRequest) -> Result<GetUploadResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.uploads.get_upload(request).await }).await
    }

    /// Returns one page of open uploads.
    pub async fn list_uploads(
        &self,
        request: ListUploadsRequest,
    ) -> Result<ListUploadsResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.uploads.list_uploads(request).await }).await
    }

    /// Cancels an upload. Safe to retry: a missing request id is generated.
    pub async fn cancel_upload(
        &self,
        mut request: CancelUploadRequest,
    ) -> Result<CancelUploadResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.uploads.cancel_upload(request).await }).await
    }

    /// Sends one whole part. Safe to retry: the server compares the bytes with a part that it has already
    /// stored.
    pub async fn upload_part(&self, request: UploadPartRequest) -> Result<UploadPartResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.uploads.upload_part(request).await }).await
    }

    /// Commits an upload after all its bytes are stored. Safe to retry.
    pub async fn complete_upload(
        &self,
        request: CompleteUploadRequest,
    ) -> Result<CompleteUploadResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.uploads.complete_upload(request).await }).await
    }

    /// Uploads the regular file at `path`. After an interruption it resumes the upload, until the file is
    /// stored or repeated attempts store no further bytes.
    ///
    /// If `upload_id` names an existing upload, that upload is resumed; otherwise a new one is created, and
    /// `on_created` is called with it. Save its id to resume the upload in another process. `progress` is
    /// called with the number of bytes of the file that are sent or already stored; it decreases when bytes
    /// must be sent again.
    ///
    /// Stored bytes are not sent again. They are read from the file, because the digest of the whole file
    /// needs them.
    ///
    /// # Errors
    /// Returns [`ClientError::Source`] if the file cannot be read, or is shorter than the stored part of the
    /// upload. Returns the error of the last attempt if the server rejects the upload or stays unavailable.
    pub async fn upload_resumable(
        &self,
        path: &Path,
        spec: UploadSpec,
        upload_id: Option<String>,
        mut on_created: impl FnMut(&Upload) + Send,
        progress: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<UploadFileResponse, ClientError> {
        let progress: Progress = Arc::new(progress);
        let retry = RetryPolicy {
            attempts_max: match self.retry.attempts_max {
                1 => 1,
                attempts => attempts.max(ATTEMPTS_WITHOUT_PROGRESS_MAX),
            },
            ..self.retry.clone()
        };
        let mut upload = self.find_or_create_upload(path, &spec, upload_id, &mut on_created).await?;
        let (mut attempts, mut previous_size_bytes) = (1, upload.persisted_size_bytes);
        loop {
            let error = match self.send_missing_bytes(path, &upload, Arc::clone(&progress)).await {
                Err(error) => error,
                uploaded => return uploaded,
            };
            let Some(delay) = resume_delay(&retry, &error, attempts) else { return Err(error) };
            tokio::time::sleep(delay).await;
            attempts += 1;
            match self.get_upload(GetUploadRequest { upload_id: upload.id.clone(), with_urls: false }).await {
                Ok(response) => upload = response.upload.unwrap_or_default(),
                Err(ClientError::Rejected(gone)) if gone.code == Code::NotFound => return Err(error),
                // This counts as an attempt without progress.
                Err(_) => continue,
            }
            // A smaller size counts as progress too: the server lost parts, and they are sent again.
            if upload.persisted_size_bytes != previous_size_bytes {
                (attempts, previous_size_bytes) = (1, upload.persisted_size_bytes);
            }
        }
    }

    async fn find_or_create_upload(
        &self,
        path: &Path,
        spec: &UploadSpec,
        upload_id: Option<String>,
        on_created: &mut (impl FnMut(&Upload) + Send),
    ) -> Result<Upload, ClientError> {
        if let Some(upload_id) = upload_id {
            match self.get_upload(GetUploadRequest { upload_id, with_urls: false }).await {
                Ok(response) => return Ok(response.upload.unwrap_or_default()),
                Err(ClientError::Rejected(gone)) if gone.code == Code::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let mut spec = spec.clone();
        if spec.size_bytes.is_none() {
            let metadata = tokio::fs::metadata(path).await.map_err(ClientError::Source)?;
            spec.size_bytes = i64::try_from(metadata.len()).ok();
        }
        let response = self.create_upload(CreateUploadRequest { spec: Some(spec), direct: false }).await?;
        let upload = response.upload.unwrap_or_default();
        on_created(&upload);
        Ok(upload)
    }

    /// Sends the bytes that are not stored yet, in one stream.
    async fn send_missing_bytes(
        &self,
        path: &Path,
        upload: &Upload,
        progress: Progress,
    ) -> Result<UploadFileResponse, ClientError> {
        let mut file = File::open(path).await.map_err(ClientError::Source)?;
        let stored_bytes = upload.persisted_size_bytes.unsigned_abs();
        let digest = digest_first_bytes(&mut file, stored_bytes).await.map_err(ClientError::Source)?;
        progress(stored_bytes);
        let start = StreamStart::existing_upload(upload.id.clone(), digest, upload.persisted_size_bytes);
        self.send_upload_stream(start, file, progress).await
    }
}

/// Computes the digest of the first bytes of a file. Afterwards the reader is positioned after these bytes.
async fn digest_first_bytes(reader: &mut (impl AsyncRead + Unpin), bytes: u64) -> io::Result<Sha256> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; READ_BUFFER_BYTES];
    let mut first = reader.take(bytes);
    let mut read_bytes = 0;
    loop {
        match first.read(&mut buffer).await? {
            0 if read_bytes == bytes => return Ok(digest),
            0 => {
                let problem = format!("file has {read_bytes} bytes; {bytes} bytes of it are already stored");
                return Err(io::Error::other(problem));
            }
            read => {
                digest.update(&buffer[..read]);
                read_bytes += read as u64;
            }
        }
    }
}

/// Returns how long to wait before the upload is resumed, or `None` if resuming cannot help. A rejection that
/// only says that the upload is incomplete or at another offset can be resumed too, once its size is read
/// again.
fn resume_delay(retry: &RetryPolicy, error: &ClientError, attempts: u32) -> Option<std::time::Duration> {
    if let ClientError::Rejected(rejection) = error
        && matches!(
            rejection.reason,
            ErrorReason::UploadNotFinished | ErrorReason::UploadOffsetGap | ErrorReason::UploadStalled
        )
    {
        return retry.backoff_after(attempts);
    }
    retry.delay_after_error(error, attempts)
}
