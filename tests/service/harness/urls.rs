//! A store that presigns URLs, and a client that writes to them. A URL holds the key and the multipart
//! upload, and a write goes directly to the store without a connection. `tests/e2e/direct.rs` uses real URLs.

use std::sync::Arc;

use bytes::Bytes;
use strongroom::{
    domain::object_key::ObjectKey,
    proto::v1::{
        CompleteUploadRequest, CompleteUploadResponse, CompletedPart, CreateUploadRequest, DirectPart,
        GetUploadRequest, UploadSpec,
    },
    storage::{
        Capabilities, Decorator, MultipartId, ObjectStorage, Payload, PresignRequest, PresignedUrl,
        PutOptions, StorageError, StorageErrorKind,
    },
};
use tonic::Status;
use url::Url;

use super::{Caller, Inner, PART, Service, service_test_in};

/// Runs a test against a service whose store presigns URLs. Direct uploads of more than [`PART`] bytes use
/// several parts.
pub(crate) fn direct_test<F, Fut>(test: F)
where
    F: FnOnce(Service) -> Fut,
    Fut: Future<Output = ()>,
{
    let arrange = |setup: &mut super::Setup| {
        setup.has_urls = true;
        setup.config.uploads.direct_put_max_bytes = PART as u64;
    };
    service_test_in(None, arrange, test);
}

/// An upload whose bytes go to its URLs.
#[derive(Debug, Clone)]
pub(crate) struct DirectUpload {
    pub(crate) id: String,
    pub(crate) parts: Vec<DirectPart>,
}

impl Caller {
    pub(crate) async fn create_direct_upload(&self, spec: UploadSpec) -> Result<DirectUpload, Status> {
        let request = CreateUploadRequest { spec: Some(spec), direct: true };
        let created = self.uploads.clone().create_upload(request).await?.into_inner();
        Ok(DirectUpload { id: created.upload.unwrap().id, parts: created.direct.unwrap().parts })
    }

    /// Returns fresh URLs of an upload, or none if it is completed.
    pub(crate) async fn get_upload_urls(&self, id: &str) -> Result<Vec<DirectPart>, Status> {
        let request = GetUploadRequest { upload_id: id.to_owned(), with_urls: true };
        let response = self.uploads.clone().get_upload(request).await?.into_inner();
        Ok(response.direct.map(|direct| direct.parts).unwrap_or_default())
    }

    pub(crate) async fn complete_direct_upload(
        &self,
        id: &str,
        parts: &[CompletedPart],
    ) -> Result<CompleteUploadResponse, Status> {
        self.complete_upload_with(CompleteUploadRequest {
            upload_id: id.to_owned(),
            parts: parts.to_vec(),
            ..CompleteUploadRequest::default()
        })
        .await
    }

    pub(crate) async fn complete_upload_with(
        &self,
        request: CompleteUploadRequest,
    ) -> Result<CompleteUploadResponse, Status> {
        Ok(self.uploads.clone().complete_upload(request).await?.into_inner())
    }
}

impl Inner {
    /// Writes to a URL and returns the etag. Replaces earlier bytes.
    pub(crate) async fn put_part(&self, part: &DirectPart, bytes: &[u8]) -> Result<String, StorageErrorKind> {
        let url = Url::parse(&part.url).unwrap();
        let key = ObjectKey::parse(url.path().trim_start_matches('/')).unwrap();
        let payload = Payload::from(Bytes::copy_from_slice(bytes));
        if let Some(multipart) = url.query() {
            let number = u32::try_from(part.number).unwrap();
            let put = self.store.put_part(&key, &MultipartId::new(multipart), number, payload).await;
            return put.map(|receipt| receipt.etag).map_err(|error| error.kind);
        }
        self.store.delete(&key).await.unwrap();
        self.store.put(&key, payload, &PutOptions::default()).await.unwrap();
        Ok("single-put".to_owned())
    }

    /// Writes all parts of an upload.
    pub(crate) async fn put_parts(&self, direct: &DirectUpload, bytes: &[u8]) -> Vec<CompletedPart> {
        let mut sent = Vec::new();
        for part in &direct.parts {
            let begin = usize::try_from(part.offset).unwrap();
            let end = begin + usize::try_from(part.size_bytes).unwrap();
            let etag = self.put_part(part, &bytes[begin..end]).await.unwrap();
            sent.push(CompletedPart { number: part.number, etag });
        }
        sent
    }
}

/// Adds presigned URLs to a store that has none.
#[derive(Debug)]
pub(super) struct WithUrls(pub(super) Arc<dyn ObjectStorage>);

impl Decorator for WithUrls {
    fn inner(&self) -> &dyn ObjectStorage {
        &*self.0
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { presigned_urls: true, ..self.0.capabilities() }
    }

    async fn presign(&self, request: &PresignRequest) -> Result<Option<PresignedUrl>, StorageError> {
        let (key, query) = match request {
            PresignRequest::Get { .. } => return Ok(None),
            PresignRequest::Put { key, .. } => (key, String::new()),
            PresignRequest::Part { key, multipart, .. } => (key, format!("?{}", multipart.as_str())),
        };
        let url = Url::parse(&format!("memory://store/{}{query}", key.as_str())).unwrap();
        Ok(Some(PresignedUrl { url, method: "PUT", headers: Vec::new() }))
    }
}
