//! A fake server with scripted responses on a local port, for the tests of this library and of the client
//! commands. It records requests and applies no rules.

mod services;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::TcpIncoming},
};

use super::{Client, ClientOptions, Code, RetryPolicy};
use crate::proto::v1::{
    event_service_server::EventServiceServer,
    file_service_server::{FileService, FileServiceServer},
    import_service_server::ImportServiceServer,
    quota_service_server::QuotaServiceServer,
    service_info_service_server::ServiceInfoServiceServer,
    upload_service_server::UploadServiceServer,
    *,
};

/// A running fake server. Dropping it stops it.
pub(crate) struct FakeServer {
    pub(crate) endpoint: String,
    pub(crate) script: Arc<Mutex<Script>>,
    /// The messages of each upload stream, after the stream has ended.
    pub(crate) uploads: mpsc::UnboundedReceiver<Vec<upload_file_request::Message>>,
    server_task: JoinHandle<()>,
}

/// The scripted responses, and the recorded requests.
#[derive(Default)]
pub(crate) struct Script {
    /// The statuses with which the next calls fail, before they read a message.
    pub(crate) refusals: VecDeque<Status>,
    /// The messages of each download.
    pub(crate) download: Vec<Result<DownloadFileResponse, Status>>,
    /// The pages of a list. The page token is the index of the page.
    pub(crate) pages: Vec<Vec<File>>,
    /// The upload that `CreateUpload` and `GetUpload` return.
    pub(crate) upload: Option<Upload>,
    /// The `authorization` header of the last call.
    pub(crate) authorization: Option<String>,
    /// The request ids of all changes, in order.
    pub(crate) request_ids: Vec<String>,
    /// The messages of each watch. After them, the stream ends; that of the last watch stays open.
    pub(crate) watches: VecDeque<Vec<Result<WatchFilesResponse, Status>>>,
    /// The cursors of the watch requests.
    pub(crate) cursors: Vec<String>,
    /// The options and items of each import.
    pub(crate) imports: Vec<(ImportOptions, Vec<ImportItem>)>,
    pub(crate) call_count: usize,
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.server_task.abort();
    }
}

impl FakeServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let script = Arc::new(Mutex::new(Script::default()));
        let (received, uploads) = mpsc::unbounded_channel();
        let fake = Fake { script: Arc::clone(&script), received };
        let server_task = tokio::spawn(async move {
            let server = Server::builder()
                .add_service(FileServiceServer::new(fake.clone()))
                .add_service(UploadServiceServer::new(fake.clone()))
                .add_service(ImportServiceServer::new(fake.clone()))
                .add_service(EventServiceServer::new(fake.clone()))
                .add_service(QuotaServiceServer::new(fake.clone()))
                .add_service(ServiceInfoServiceServer::new(fake));
            server.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap();
        });
        Self { endpoint, script, uploads, server_task }
    }

    pub(crate) async fn connect(&self) -> Client {
        let retry = RetryPolicy { backoff: std::time::Duration::from_millis(1), ..RetryPolicy::default() };
        Client::connect(ClientOptions { retry, ..ClientOptions::new(&self.endpoint, "alice".into()) })
            .await
            .unwrap()
    }

    pub(crate) fn refuse_next_call(&self, status: Status) {
        self.script.lock().unwrap().refusals.push_back(status);
    }

    /// Refuses the next call with a status without details.
    pub(crate) fn refuse_next_call_with(&self, code: Code) {
        self.refuse_next_call(Status::new(code, ""));
    }

    pub(crate) fn script_download(&self, messages: Vec<DownloadFileResponse>) {
        self.script.lock().unwrap().download = messages.into_iter().map(Ok).collect();
    }
}

impl Script {
    /// Appends an error to the messages of each download.
    pub(crate) fn fail_download_at_end(&mut self, code: Code) {
        self.download.push(Err(Status::new(code, "")));
    }
}

/// Returns the report of an import. Objects whose keys begin with "bad" fail. If a key begins with "cut", the
/// report ends without a summary.
fn build_report(items: &[ImportItem]) -> Vec<Result<ImportFilesResponse, Status>> {
    let key = |item: &ImportItem| match &item.source {
        Some(import_item::Source::ObjectKey(key) | import_item::Source::ObjectPrefix(key)) => key.clone(),
        _ => String::new(),
    };
    let result = |item: &ImportItem| {
        let outcome =
            if key(item).starts_with("bad") { ImportOutcome::Failed } else { ImportOutcome::Imported };
        ImportResult { object_key: key(item), outcome: outcome.into(), ..ImportResult::default() }
    };
    let results: Vec<_> = items.iter().map(result).collect();
    let failed_count = results.iter().filter(|result| result.outcome() == ImportOutcome::Failed).count();
    let summary = ImportSummary {
        imported_count: i64::try_from(results.len() - failed_count).unwrap(),
        failed_count: i64::try_from(failed_count).unwrap(),
        ..ImportSummary::default()
    };
    let mut report: Vec<_> = results.into_iter().map(import_files_response::Message::Result).collect();
    if !items.iter().any(|item| key(item).starts_with("cut")) {
        report.push(import_files_response::Message::Summary(summary));
    }
    report.into_iter().map(|message| Ok(ImportFilesResponse { message: Some(message) })).collect()
}

/// Returns the messages of an undamaged download of `data`, in chunks of at most `chunk_size` bytes.
pub(crate) fn download_messages(name: &str, data: &[u8], chunk_size: usize) -> Vec<DownloadFileResponse> {
    let total_bytes = i64::try_from(data.len()).unwrap();
    let file =
        File { id: "0198".to_owned(), name: name.to_owned(), size_bytes: total_bytes, ..File::default() };
    let range = ContentRange { offset: 0, length: total_bytes, total_bytes };
    let sha256 = Bytes::copy_from_slice(&Sha256::digest(data));
    let disposition = Disposition::Attachment.into();
    let header = DownloadHeader { file: Some(file), range: Some(range), sha256, disposition };
    let chunks = data.chunks(chunk_size).enumerate().map(|(number, part)| {
        let offset = i64::try_from(number * chunk_size).unwrap();
        let crc32c = crc_fast::crc32_iscsi(part);
        download_file_response::Message::Chunk(DownloadChunk {
            offset,
            data: Bytes::copy_from_slice(part),
            crc32c,
        })
    });
    std::iter::once(download_file_response::Message::Header(header))
        .chain(chunks)
        .map(|message| DownloadFileResponse { message: Some(message) })
        .collect()
}

#[derive(Clone)]
struct Fake {
    script: Arc<Mutex<Script>>,
    received: mpsc::UnboundedSender<Vec<upload_file_request::Message>>,
}

impl Fake {
    fn record_call<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let mut script = self.script.lock().unwrap();
        script.call_count += 1;
        let header = request.metadata().get("authorization");
        script.authorization = header.map(|value| value.to_str().unwrap().to_owned());
        script.refusals.pop_front().map_or(Ok(()), Err)
    }
}

#[tonic::async_trait]
impl FileService for Fake {
    async fn upload_file(
        &self,
        request: Request<Streaming<UploadFileRequest>>,
    ) -> Result<Response<UploadFileResponse>, Status> {
        self.record_call(&request)?;
        let mut stream = request.into_inner();
        let (mut messages, mut finish) = (Vec::new(), None);
        while let Ok(Some(next)) = stream.message().await {
            let message = next.message.unwrap();
            if let upload_file_request::Message::Finish(message) = &message {
                finish = Some(message.clone());
            }
            messages.push(message);
        }
        let name = match messages.first() {
            Some(upload_file_request::Message::Spec(spec)) => spec.name.clone(),
            Some(upload_file_request::Message::UploadId(id)) => id.clone(),
            _ => return Err(Status::invalid_argument("first message is neither a spec nor an upload id")),
        };
        self.received.send(messages).unwrap();
        let finish = finish.ok_or_else(|| Status::aborted("stream ended without a finish message"))?;
        let file = File {
            id: "0198".to_owned(),
            name,
            size_bytes: finish.size_bytes,
            sha256: finish.sha256.unwrap_or_default(),
            ..File::default()
        };
        Ok(Response::new(UploadFileResponse {
            file: Some(file),
            quota_state: None,
            warnings: vec![],
            event_position: String::new(),
        }))
    }

    type DownloadFileStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<DownloadFileResponse, Status>> + Send>>;

    async fn download_file(
        &self,
        request: Request<DownloadFileRequest>,
    ) -> Result<Response<Self::DownloadFileStream>, Status> {
        self.record_call(&request)?;
        let messages = self.script.lock().unwrap().download.clone();
        Ok(Response::new(stream::iter(messages).boxed()))
    }

    async fn get_file(&self, request: Request<GetFileRequest>) -> Result<Response<GetFileResponse>, Status> {
        self.record_call(&request)?;
        let file = File { id: request.into_inner().file_id, ..File::default() };
        Ok(Response::new(GetFileResponse { file: Some(file) }))
    }

    async fn list_files(
        &self,
        request: Request<ListFilesRequest>,
    ) -> Result<Response<ListFilesResponse>, Status> {
        self.record_call(&request)?;
        let script = self.script.lock().unwrap();
        let page: usize = request.get_ref().page_token.parse().unwrap_or(0);
        let files = script.pages.get(page).cloned().unwrap_or_default();
        let has_more = page + 1 < script.pages.len();
        let next_page_token = if has_more { (page + 1).to_string() } else { String::new() };
        Ok(Response::new(ListFilesResponse { files, next_page_token, ..ListFilesResponse::default() }))
    }

    async fn delete_file(
        &self,
        request: Request<DeleteFileRequest>,
    ) -> Result<Response<DeleteFileResponse>, Status> {
        self.script.lock().unwrap().request_ids.push(request.get_ref().request_id.clone());
        self.record_call(&request)?;
        Ok(Response::new(DeleteFileResponse::default()))
    }

    async fn undelete_file(
        &self,
        request: Request<UndeleteFileRequest>,
    ) -> Result<Response<UndeleteFileResponse>, Status> {
        self.record_call(&request)?;
        Ok(Response::new(UndeleteFileResponse::default()))
    }

    async fn purge_file(
        &self,
        request: Request<PurgeFileRequest>,
    ) -> Result<Response<PurgeFileResponse>, Status> {
        self.record_call(&request)?;
        Ok(Response::new(PurgeFileResponse::default()))
    }

    async fn batch_get_files(
        &self,
        request: Request<BatchGetFilesRequest>,
    ) -> Result<Response<BatchGetFilesResponse>, Status> {
        self.record_call(&request)?;
        Ok(Response::new(BatchGetFilesResponse::default()))
    }

    async fn update_file(
        &self,
        request: Request<UpdateFileRequest>,
    ) -> Result<Response<UpdateFileResponse>, Status> {
        self.script.lock().unwrap().request_ids.push(request.get_ref().request_id.clone());
        self.record_call(&request)?;
        Ok(Response::new(UpdateFileResponse::default()))
    }

    async fn transfer_ownership(
        &self,
        request: Request<TransferOwnershipRequest>,
    ) -> Result<Response<TransferOwnershipResponse>, Status> {
        self.script.lock().unwrap().request_ids.push(request.get_ref().request_id.clone());
        self.record_call(&request)?;
        Ok(Response::new(TransferOwnershipResponse::default()))
    }

    async fn archive_file(
        &self,
        request: Request<ArchiveFileRequest>,
    ) -> Result<Response<ArchiveFileResponse>, Status> {
        self.script.lock().unwrap().request_ids.push(request.get_ref().request_id.clone());
        self.record_call(&request)?;
        Ok(Response::new(ArchiveFileResponse::default()))
    }

    async fn unarchive_file(
        &self,
        request: Request<UnarchiveFileRequest>,
    ) -> Result<Response<UnarchiveFileResponse>, Status> {
        self.script.lock().unwrap().request_ids.push(request.get_ref().request_id.clone());
        self.record_call(&request)?;
        Ok(Response::new(UnarchiveFileResponse::default()))
    }

    async fn list_file_versions(
        &self,
        request: Request<ListFileVersionsRequest>,
    ) -> Result<Response<ListFileVersionsResponse>, Status> {
        self.record_call(&request)?;
        let versions = vec![FileVersion { version: 1, is_current: true, ..FileVersion::default() }];
        Ok(Response::new(ListFileVersionsResponse { versions, next_page_token: String::new() }))
    }

    async fn restore_file_version(
        &self,
        request: Request<RestoreFileVersionRequest>,
    ) -> Result<Response<RestoreFileVersionResponse>, Status> {
        self.script.lock().unwrap().request_ids.push(request.get_ref().request_id.clone());
        self.record_call(&request)?;
        Ok(Response::new(RestoreFileVersionResponse::default()))
    }

    async fn delete_file_version(
        &self,
        request: Request<DeleteFileVersionRequest>,
    ) -> Result<Response<DeleteFileVersionResponse>, Status> {
        self.script.lock().unwrap().request_ids.push(request.get_ref().request_id.clone());
        self.record_call(&request)?;
        Ok(Response::new(DeleteFileVersionResponse::default()))
    }

    async fn copy_file(
        &self,
        request: Request<CopyFileRequest>,
    ) -> Result<Response<CopyFileResponse>, Status> {
        self.script.lock().unwrap().request_ids.push(request.get_ref().request_id.clone());
        self.record_call(&request)?;
        Ok(Response::new(CopyFileResponse::default()))
    }

    async fn batch_delete_files(
        &self,
        request: Request<BatchDeleteFilesRequest>,
    ) -> Result<Response<BatchDeleteFilesResponse>, Status> {
        self.script.lock().unwrap().request_ids.push(request.get_ref().request_id.clone());
        self.record_call(&request)?;
        Ok(Response::new(BatchDeleteFilesResponse::default()))
    }

    async fn set_legal_hold(
        &self,
        request: Request<SetLegalHoldRequest>,
    ) -> Result<Response<SetLegalHoldResponse>, Status> {
        self.script.lock().unwrap().request_ids.push(request.get_ref().request_id.clone());
        self.record_call(&request)?;
        Ok(Response::new(SetLegalHoldResponse::default()))
    }

    async fn release_legal_hold(
        &self,
        request: Request<ReleaseLegalHoldRequest>,
    ) -> Result<Response<ReleaseLegalHoldResponse>, Status> {
        self.script.lock().unwrap().request_ids.push(request.get_ref().request_id.clone());
        self.record_call(&request)?;
        Ok(Response::new(ReleaseLegalHoldResponse::default()))
    }
}
