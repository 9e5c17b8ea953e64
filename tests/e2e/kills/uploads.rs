//! The uploads of the mixed load: in one stream, resumed in parts or as a stream, and directly to the store.

use std::{
    io::Cursor,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use strongroom::{
    client::ClientError,
    proto::v1::{
        CompleteUploadRequest, CompletedPart, CreateUploadRequest, DirectPart, DirectUpload, File,
        FileEventKind, GetUploadRequest, Upload, UploadPartRequest, UploadSpec,
    },
};

use super::{
    contents::{Content, PART},
    journal::Journal,
    ledger::{Doubt, Entry},
    load::{LoadClient, next_request_id},
};

/// The sizes of uploads in one stream: empty, a single write, exactly one part, and several parts.
const STREAM_SIZES: [usize; 12] =
    [0, 1, 700, 4_000, 33_000, 90_000, 260_000, 1_100_000, 70_000, PART, PART + 300_000, 2 * PART + 1];
const RESUMED_SIZES: [usize; 4] = [70_000, PART, PART + 300_000, 2 * PART + 1];
/// The largest direct upload that is sent in one request. It is the smallest value that can be configured.
pub(super) const DIRECT_PUT_MAX: usize = PART;
const DIRECT_SIZES: [usize; 4] = [0, 100_000, 900_000, DIRECT_PUT_MAX + 7];
const VERSION_SIZES: [usize; 6] = [0, 900, 50_000, 300_000, PART, PART + 5];

impl LoadClient {
    pub(super) async fn upload_once(&mut self) {
        let name = self.next_name();
        let content = self.next_content(&name, &STREAM_SIZES);
        let is_size_declared = self.random().below(2) == 0;
        let spec = UploadSpec {
            name: name.clone(),
            size_bytes: is_size_declared.then_some(content.size_bytes()),
            ..UploadSpec::default()
        };
        let file = self.send_stream("upload", spec, &content).await;
        self.record_created("upload", name, Entry::new(self.number, content), file.map(Some));
    }

    pub(super) async fn upload_version(&mut self) {
        let Some((name, entry)) = self.pick(Entry::is_readable) else { return };
        let number = entry.versions.len() + 1;
        let content = self.next_content(&format!("{name} {number}"), &VERSION_SIZES);
        let spec = UploadSpec { file_id: entry.id, ..UploadSpec::default() };
        let file = self.send_stream("version", spec, &content).await;
        if let Some(file) = &file {
            assert_eq!(usize::try_from(file.version).unwrap(), number, "{name}");
        }
        self.record_change("version", &name, Doubt::Versioned(content), file.is_some());
    }

    /// Uploads in one stream, and repeats the whole stream after a failure. The request id prevents a second file.
    async fn send_stream(&mut self, what: &str, spec: UploadSpec, content: &Content) -> Option<File> {
        let spec = UploadSpec { request_id: next_request_id(), ..spec };
        let (bytes, journal) = (content.bytes(), self.caller.journal.clone());
        let sent = self.caller.repeat(what, |client| {
            let (spec, bytes, progress) = (spec.clone(), bytes.clone(), count_progress(&journal));
            async move { client.upload_reader(spec, Cursor::new(bytes), progress).await }
        });
        Some(sent.await.or_abandoned(what)?.file.unwrap())
    }

    /// Creates an upload and sends its parts, each at the persisted size that the service reports.
    pub(super) async fn upload_in_parts(&mut self) {
        let name = self.next_name();
        let content = self.next_content(&name, &RESUMED_SIZES);
        let file = self.send_parts(&name, &content).await;
        self.record_created("upload in parts", name, Entry::new(self.number, content), file.map(Some));
    }

    async fn send_parts(&mut self, name: &str, content: &Content) -> Option<File> {
        let (upload, _) = self.create_upload(name, content, false).await?;
        let bytes = content.bytes();
        loop {
            let upload = self.get_upload(&upload.id, false).await?.0;
            let start = usize::try_from(upload.persisted_size_bytes).unwrap();
            if start == bytes.len() {
                break;
            }
            let end = bytes.len().min(start + usize::try_from(upload.part_size_bytes).unwrap());
            let request = UploadPartRequest {
                upload_id: upload.id,
                offset: upload.persisted_size_bytes,
                data: bytes.slice(start..end),
                crc32c: None,
            };
            // After a failure, the persisted size says whether the part was stored.
            match self.caller.client().await.upload_part(request).await {
                Ok(_) => self.caller.journal.count_work((end - start) as u64),
                Err(error) if self.is_interrupted("part", &error) => return None,
                Err(_) => tokio::task::yield_now().await,
            }
        }
        self.complete_upload(&upload.id, content, Vec::new()).await
    }

    /// Creates an upload and sends it as a stream, which resumes at the persisted size after each failure.
    pub(super) async fn upload_resumed_stream(&mut self) {
        let name = self.next_name();
        let content = self.next_content(&name, &RESUMED_SIZES);
        let path = self.site.path(&format!("upload-{}", self.number));
        tokio::fs::write(&path, content.bytes()).await.unwrap();
        let file = self.send_resumed_stream(&name, &content, &path).await;
        self.record_created("resumed upload", name, Entry::new(self.number, content), file.map(Some));
    }

    async fn send_resumed_stream(&mut self, name: &str, content: &Content, path: &Path) -> Option<File> {
        let (upload, _) = self.create_upload(name, content, false).await?;
        loop {
            let (client, progress) = (self.caller.client().await, count_progress(&self.caller.journal));
            let (spec, id) = (UploadSpec::default(), Some(upload.id.clone()));
            match client.upload_resumable(path, spec, id, |_| {}, progress).await {
                Ok(response) => return Some(response.file.unwrap()),
                Err(error) if self.is_interrupted("resumed upload", &error) => return None,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    /// Sends the parts of an upload to the store, and completes the upload. A worker verifies the bytes later.
    pub(super) async fn upload_directly(&mut self) {
        let name = self.next_name();
        let content = self.next_content(&name, &DIRECT_SIZES);
        let file = self.send_directly(&name, &content).await;
        let mut entry = Entry::new(self.number, content);
        entry.events.push(FileEventKind::Verified);
        entry.is_unverified = true;
        self.record_created("direct upload", name, entry, file.map(Some));
    }

    async fn send_directly(&mut self, name: &str, content: &Content) -> Option<File> {
        let (upload, urls) = self.create_upload(name, content, true).await?;
        let (mut urls, bytes) = (urls.unwrap(), content.bytes());
        let mut sent = Vec::new();
        while let Some(part) = urls.parts.get(sent.len()) {
            let start = usize::try_from(part.offset).unwrap();
            let end = start + usize::try_from(part.size_bytes).unwrap();
            if let Some(etag) = put_part(&self.http, part, bytes.slice(start..end)).await {
                sent.push(CompletedPart { number: part.number, etag });
                self.caller.journal.count_work((end - start) as u64);
            } else {
                self.caller.journal.count_repeat("direct part");
                urls = self.get_upload(&upload.id, true).await?.1.unwrap();
            }
        }
        self.complete_upload(&upload.id, content, sent).await
    }

    async fn create_upload(
        &mut self,
        name: &str,
        content: &Content,
        is_direct: bool,
    ) -> Option<(Upload, Option<DirectUpload>)> {
        let spec = UploadSpec {
            name: name.to_owned(),
            size_bytes: Some(content.size_bytes()),
            request_id: next_request_id(),
            ..UploadSpec::default()
        };
        let request = CreateUploadRequest { spec: Some(spec), direct: is_direct };
        let created = self.caller.repeat("create upload", |client| {
            let request = request.clone();
            async move { client.create_upload(request).await }
        });
        let created = created.await.or_abandoned("create upload")?;
        Some((created.upload.unwrap(), created.direct))
    }

    async fn get_upload(&mut self, id: &str, with_urls: bool) -> Option<(Upload, Option<DirectUpload>)> {
        let request = GetUploadRequest { upload_id: id.to_owned(), with_urls };
        let found = self.caller.repeat("get upload", |client| {
            let request = request.clone();
            async move { client.get_upload(request).await }
        });
        let found = found.await.or_abandoned("get upload")?;
        Some((found.upload.unwrap(), found.direct))
    }

    async fn complete_upload(
        &mut self,
        id: &str,
        content: &Content,
        parts: Vec<CompletedPart>,
    ) -> Option<File> {
        let digest = Bytes::copy_from_slice(&content.digest.as_bytes()[..]);
        let request = CompleteUploadRequest {
            upload_id: id.to_owned(),
            size_bytes: Some(content.size_bytes()),
            sha256: Some(digest),
            parts,
        };
        let completed = self.caller.repeat("complete upload", |client| {
            let request = request.clone();
            async move { client.complete_upload(request).await }
        });
        Some(completed.await.or_abandoned("complete upload")?.file.unwrap())
    }

    /// Counts a failure that a kill can cause. Returns whether the client abandons the upload.
    fn is_interrupted(&self, what: &str, error: &ClientError) -> bool {
        self.caller.note_failure(what, error);
        if self.caller.is_abandoning {
            self.caller.journal.count_abandoned();
        }
        self.caller.is_abandoning
    }
}

/// Returns a callback that counts the bytes of one attempt as work.
fn count_progress(journal: &Arc<Journal>) -> impl Fn(u64) + Send + Sync + 'static {
    let (journal, counted) = (journal.clone(), AtomicU64::new(0));
    move |sent| {
        let before = counted.swap(sent, Ordering::SeqCst);
        journal.count_work(sent.saturating_sub(before));
    }
}

/// Sends a part to its URL, and returns its etag, or `None` if the store did not confirm it.
async fn put_part(http: &reqwest::Client, part: &DirectPart, body: Bytes) -> Option<String> {
    // The URL signs the length. This client sends none for an empty body.
    let mut request = http.put(&part.url).header("content-length", body.len()).body(body);
    for (name, value) in &part.headers {
        request = request.header(name, value);
    }
    let response = request.send().await.ok().filter(|response| response.status().is_success())?;
    Some(response.headers().get("etag")?.to_str().unwrap().to_owned())
}
