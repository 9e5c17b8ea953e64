//! Uploads that are gone on with: after a broken connection, a restart of the server, or, with the id of the upload, in
//! another process.

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
    upload_messages::{Beginning, Progress},
};
use crate::proto::v1::{
    CancelUploadRequest, CancelUploadResponse, CompleteUploadRequest, CompleteUploadResponse,
    CreateUploadRequest, CreateUploadResponse, GetUploadRequest, GetUploadResponse, ListUploadsRequest,
    ListUploadsResponse, Upload, UploadFileResponse, UploadPartRequest, UploadPartResponse, UploadSpec,
};

/// So often in a row an upload is gone on with that does not move, unless retries are off: with the default backoff that
/// outlasts a server that restarts (40 s).
const TRIES_WITHOUT_PROGRESS_MAX: u32 = 10;
/// How much of a file is read at once for the digest of what is stored already.
const READ_SIZE_BYTES: usize = 1024 * 1024;

impl Client {
    /// Creates an upload. Safe to repeat; a request id is minted where there is none.
    pub async fn create_upload(
        &self,
        mut request: CreateUploadRequest,
    ) -> Result<CreateUploadResponse, ClientError> {
        fill_request_id(&mut request.spec.get_or_insert_default().request_id);
        self.call(request, |mut to, request| async move { to.uploads.create_upload(request).await }).await
    }

    /// Tells how far an upload has come.
    pub async fn get_upload(&self, request: GetUploadRequest) -> Result<GetUploadResponse, ClientError> {
        self.call(request, |mut to, request| async move { to.uploads.get_upload(request).await }).await
    }

    /// Returns one page of open uploads.
    pub async fn list_uploads(
        &self,
        request: ListUploadsRequest,
    ) -> Result<ListUploadsResponse, ClientError> {
        self.call(request, |mut to, request| async move { to.uploads.list_uploads(request).await }).await
    }

    /// Gives an upload up. Safe to repeat; a request id is minted where there is none.
    pub async fn cancel_upload(
        &self,
        mut request: CancelUploadRequest,
    ) -> Result<CancelUploadResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut to, request| async move { to.uploads.cancel_upload(request).await }).await
    }

    /// Sends one whole part. Safe to repeat: a part that is stored is compared.
    pub async fn upload_part(&self, request: UploadPartRequest) -> Result<UploadPartResponse, ClientError> {
        self.call(request, |mut to, request| async move { to.uploads.upload_part(request).await }).await
    }

    /// Commits an upload whose bytes are stored. Safe to repeat.
    pub async fn complete_upload(
        &self,
        request: CompleteUploadRequest,
    ) -> Result<CompleteUploadResponse, ClientError> {
        self.call(request, |mut to, request| async move { to.uploads.complete_upload(request).await }).await
    }

    /// Uploads the regular file at `path`, and goes on where it broke off, until it is stored or does not move any more.
    ///
    /// With `upload_id` it goes on with an upload of before; where that is gone, another one is created. `created` is told
    /// of each upload that is created: whoever keeps its id can go on in another process. `progress` is told how many bytes
    /// of the file were sent or are stored already; it goes back where bytes have to be sent again.
    ///
    /// What is stored is read once from the file, for the digest of the whole, and not sent again.
    pub async fn upload_resumable(
        &self,
        path: &Path,
        spec: UploadSpec,
        upload_id: Option<String>,
        mut created: impl FnMut(&Upload) + Send,
        progress: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<UploadFileResponse, ClientError> {
        let progress: Progress = Arc::new(progress);
        let patience = RetryPolicy {
            tries_max: match self.retry.tries_max {
                1 => 1,
                tries => tries.max(TRIES_WITHOUT_PROGRESS_MAX),
            },
            ..self.retry.clone()
        };
        let mut upload = self.known_or_created(path, &spec, upload_id, &mut created).await?;
        let (mut tries, mut stored_before) = (1, upload.persisted_size_bytes);
        loop {
            let failed = match self.send_rest(path, &upload, Arc::clone(&progress)).await {
                Err(failed) => failed,
                done => return done,
            };
            let Some(wait) = wait(&patience, &failed, tries) else { return Err(failed) };
            tokio::time::sleep(wait).await;
            tries += 1;
            match self.get_upload(GetUploadRequest { upload_id: upload.id.clone(), with_urls: false }).await {
                Ok(answer) => upload = answer.upload.unwrap_or_default(),
                // It counts as a try that did not move.
                Err(ClientError::Rejected(gone)) if gone.code == Code::NotFound => return Err(failed),
                Err(_) => continue,
            }
            // Backwards counts as well: the server forgot parts, and the way begins anew.
            if upload.persisted_size_bytes != stored_before {
                (tries, stored_before) = (1, upload.persisted_size_bytes);
            }
        }
    }

    async fn known_or_created(
        &self,
        path: &Path,
        spec: &UploadSpec,
        upload_id: Option<String>,
        created: &mut (impl FnMut(&Upload) + Send),
    ) -> Result<Upload, ClientError> {
        if let Some(upload_id) = upload_id {
            match self.get_upload(GetUploadRequest { upload_id, with_urls: false }).await {
                Ok(answer) => return Ok(answer.upload.unwrap_or_default()),
                Err(ClientError::Rejected(gone)) if gone.code == Code::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let mut spec = spec.clone();
        if spec.size_bytes.is_none() {
            let about = tokio::fs::metadata(path).await.map_err(ClientError::Source)?;
            spec.size_bytes = i64::try_from(about.len()).ok();
        }
        let answer = self.create_upload(CreateUploadRequest { spec: Some(spec), direct: false }).await?;
        let upload = answer.upload.unwrap_or_default();
        created(&upload);
        Ok(upload)
    }

    /// One stream of what is missing.
    async fn send_rest(
        &self,
        path: &Path,
        upload: &Upload,
        progress: Progress,
    ) -> Result<UploadFileResponse, ClientError> {
        let mut file = File::open(path).await.map_err(ClientError::Source)?;
        let stored_bytes = upload.persisted_size_bytes.unsigned_abs();
        let digest = digest_of_first(&mut file, stored_bytes).await.map_err(ClientError::Source)?;
        progress(stored_bytes);
        let beginning = Beginning::of_rest(upload.id.clone(), digest, upload.persisted_size_bytes);
        self.send(beginning, file, progress).await
    }
}

/// The digest of the first bytes of a file, which stands behind them afterwards.
async fn digest_of_first(reader: &mut (impl AsyncRead + Unpin), bytes: u64) -> io::Result<Sha256> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; READ_SIZE_BYTES];
    let mut first = reader.take(bytes);
    let mut read_bytes = 0;
    loop {
        match first.read(&mut buffer).await? {
            0 if read_bytes == bytes => return Ok(digest),
            0 => return Err(io::Error::other("the file is shorter than what was uploaded of it before")),
            read => {
                digest.update(&buffer[..read]);
                read_bytes += read as u64;
            }
        }
    }
}

/// How long to wait before going on; nothing where it makes no sense. An upload that the server says is not finished, or that
/// stands elsewhere than thought, is worth another look at where it stands.
fn wait(patience: &RetryPolicy, failed: &ClientError, tries: u32) -> Option<std::time::Duration> {
    if let ClientError::Rejected(rejection) = failed
        && ["UPLOAD_NOT_FINISHED", "UPLOAD_OFFSET_GAP", "UPLOAD_STALLED"].contains(&&*rejection.reason_name)
    {
        return patience.wait(tries);
    }
    patience.wait_before_retry(failed, tries)
}
