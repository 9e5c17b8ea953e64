//! The mixed load: clients that upload, read, change, delete and import files of their own, while processes are
//! killed.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use strongroom::{
    client::{Client, ClientError},
    proto::v1::{
        CopyFileRequest, DeleteFileRequest, DownloadFileRequest, DownloadHeader, ErrorReason, File,
        FileState, GetFileRequest, ImportItem, ImportOptions, ImportOutcome, PurgeFileRequest,
        UndeleteFileRequest, import_files_response::Message, import_item::Source,
    },
};
use tokio::sync::RwLock;

use super::{
    caller::{Caller, Outcome},
    contents::{Content, Random},
    ledger::{Doubt, Entry, Ledger},
};
use crate::server::Site;

/// The name of the import source.
pub(super) const IMPORT_SOURCE: &str = "old";
/// The directory of the import source.
pub(super) const IMPORT_DIRECTORY: &str = "imports";
/// The number of files of one client above which it purges instead of uploading.
const FILES_MAX: usize = 10;
/// One in this many operations is abandoned when its process is killed.
const ABANDONED_EVERY: usize = 6;

/// A client, which changes only its own files, one operation after the other.
pub(super) struct LoadClient {
    pub(super) number: usize,
    pub(super) caller: Caller,
    pub(super) site: Arc<Site>,
    pub(super) ledger: Arc<Ledger>,
    /// Sends the bytes of direct uploads.
    pub(super) http: reqwest::Client,
    /// The number of names that the client has used.
    pub(super) names: usize,
}

impl LoadClient {
    /// Runs operations without end. Waits at the gate between them while a checkpoint holds it.
    pub(super) async fn run(mut self, gate: Arc<RwLock<()>>) {
        loop {
            let open = gate.read().await;
            self.caller.is_abandoning = self.random().below(ABANDONED_EVERY) == 0;
            self.run_operation().await;
            self.caller.journal.count_attempt();
            drop(open);
            tokio::task::yield_now().await;
        }
    }

    pub(super) fn random(&mut self) -> &mut Random {
        &mut self.caller.random
    }

    async fn run_operation(&mut self) {
        let is_full = self.ledger.list(self.number, Entry::is_settled).len() >= FILES_MAX;
        match self.random().below(22) {
            0..=10 if is_full => self.purge_file().await,
            0..=4 => self.upload_once().await,
            5 => self.upload_in_parts().await,
            6 => self.upload_resumed_stream().await,
            7 => self.upload_directly().await,
            8 => self.check_direct_upload().await,
            9 => self.import_file().await,
            10 => self.copy_file().await,
            11..=12 => self.upload_version().await,
            13..=15 => self.download_file().await,
            16..=17 => self.delete_file().await,
            18..=19 => self.undelete_file().await,
            _ => self.purge_file().await,
        }
    }

    /// Returns a new name.
    pub(super) fn next_name(&mut self) -> String {
        self.names += 1;
        format!("{}-{}.bin", self.number, self.names)
    }

    /// Returns new content under this label, with one of the sizes.
    pub(super) fn next_content(&mut self, label: &str, sizes: &[usize]) -> Content {
        let size = sizes[self.random().below(sizes.len())];
        Content::new(label.to_owned(), size)
    }

    /// Records the result of an operation that creates a file.
    pub(super) fn record_created(
        &self,
        kind: &str,
        name: String,
        mut entry: Entry,
        response: Option<Option<File>>,
    ) {
        if let Some(file) = response {
            let file = file.unwrap();
            assert_eq!((file.name.as_str(), file.version), (name.as_str(), 1), "{kind}");
            entry.id = file.id;
            entry.doubt = None;
            self.caller.journal.count_operation(kind);
        }
        self.ledger.insert(name, entry);
    }

    /// Returns a random file of this client that matches.
    pub(super) fn pick(&mut self, is_match: impl Fn(&Entry) -> bool) -> Option<(String, Entry)> {
        let mut files = self.ledger.list(self.number, is_match);
        if files.is_empty() {
            return None;
        }
        let chosen = self.random().below(files.len());
        Some(files.swap_remove(chosen))
    }

    /// Records the result of an operation that changes a file.
    pub(super) fn record_change(&self, kind: &str, name: &str, change: Doubt, is_acknowledged: bool) {
        self.ledger.record(name, change, is_acknowledged);
        if is_acknowledged {
            self.caller.journal.count_operation(kind);
        }
    }

    /// Reads a direct upload again that was PROCESSING.
    async fn check_direct_upload(&mut self) {
        let Some((name, entry)) = self.pick(|entry| entry.doubt.is_none() && entry.is_unverified) else {
            return;
        };
        let request = GetFileRequest { file_id: entry.id };
        let found = self.caller.repeat("get file", |client| {
            let request = request.clone();
            async move { client.get_file(request).await }
        });
        let Some(found) = found.await.or_abandoned("get file") else { return };
        let file = found.file.unwrap();
        match file.state() {
            FileState::Processing => {}
            FileState::Available => self.ledger.update(&name, |entry| entry.is_unverified = false),
            state => self.caller.journal.report_lost(format!("{name}: {state:?} {:?}", file.state_reason())),
        }
    }

    async fn copy_file(&mut self) {
        let Some((_, source)) = self.pick(Entry::is_readable) else { return };
        let name = self.next_name();
        let request = CopyFileRequest {
            file_id: source.id.clone(),
            name: name.clone(),
            request_id: next_request_id(),
            ..CopyFileRequest::default()
        };
        let copied = self.caller.repeat("copy", |client| {
            let request = request.clone();
            async move { client.copy_file(request).await }
        });
        let copied = copied.await.or_abandoned("copy");
        let entry = Entry::new(self.number, source.content().clone());
        self.record_created("copy", name, entry, copied.map(|response| response.file));
    }

    /// Downloads a whole version or a range of it, and compares the bytes.
    async fn download_file(&mut self) {
        let Some((name, entry)) = self.pick(Entry::is_readable) else { return };
        let index = self.random().below(entry.versions.len());
        let content = &entry.versions[index];
        let expected = content.bytes();
        let (start, length) = match self.random().below(2) {
            0 => (0, content.size),
            _ if content.size == 0 => return,
            _ => {
                let start = self.random().below(content.size);
                (start, 1 + self.random().below(content.size - start))
            }
        };
        let request = DownloadFileRequest {
            file_id: entry.id.clone(),
            version: i32::try_from(index + 1).unwrap(),
            read_offset: i64::try_from(start).unwrap(),
            read_limit: if length == content.size { 0 } else { i64::try_from(length).unwrap() },
            ..DownloadFileRequest::default()
        };
        let outcome = self.caller.repeat("download", |client| download_bytes(client, request.clone())).await;
        let (header, bytes) = match outcome {
            Outcome::Done(downloaded) => downloaded,
            Outcome::Abandoned => return,
            Outcome::Refused(rejection) => {
                self.caller.journal.report_lost(format!("{name} version {}: {rejection}", index + 1));
                return;
            }
        };
        let is_equal =
            bytes == expected[start..start + length] && header.sha256[..] == content.digest.as_bytes()[..];
        if !is_equal {
            let finding = format!("{name} version {}: bytes {start} to {} differ", index + 1, start + length);
            self.caller.journal.report_lost(finding);
        }
        self.caller.journal.count_work(u64::try_from(length).unwrap());
        self.caller.journal.count_operation(if length == content.size {
            "download"
        } else {
            "ranged download"
        });
    }

    async fn delete_file(&mut self) {
        let Some((name, entry)) = self.pick(Entry::is_readable) else { return };
        let request = DeleteFileRequest {
            file_id: entry.id,
            request_id: next_request_id(),
            ..DeleteFileRequest::default()
        };
        let deleted = self.caller.repeat("delete", |client| {
            let request = request.clone();
            async move { client.delete_file(request).await }
        });
        let deleted = deleted.await.or_abandoned("delete");
        self.record_change("delete", &name, Doubt::Trashed, deleted.is_some());
    }

    async fn undelete_file(&mut self) {
        let is_in_trash = |entry: &Entry| entry.doubt.is_none() && entry.is_trashed;
        let Some((name, entry)) = self.pick(is_in_trash) else { return };
        let request = UndeleteFileRequest { file_id: entry.id, request_id: next_request_id() };
        let undeleted = self.caller.repeat("undelete", |client| {
            let request = request.clone();
            async move { client.undelete_file(request).await }
        });
        let undeleted = undeleted.await.or_abandoned("undelete");
        self.record_change("undelete", &name, Doubt::Undeleted, undeleted.is_some());
    }

    async fn purge_file(&mut self) {
        let Some((name, entry)) = self.pick(Entry::is_settled) else { return };
        let request = PurgeFileRequest {
            file_id: entry.id,
            request_id: next_request_id(),
            ..PurgeFileRequest::default()
        };
        let purged = self.caller.repeat("purge", |client| {
            let request = request.clone();
            async move { client.purge_file(request).await }
        });
        let purged = purged.await.or_abandoned("purge");
        self.record_change("purge", &name, Doubt::Purged, purged.is_some());
    }

    /// Imports a file from a directory. A repeated import must find the file of the first one.
    async fn import_file(&mut self) {
        let name = self.next_name();
        let content = self.next_content(&name, &[0, 900, 80_000, 400_000]);
        let path = self.site.path(IMPORT_DIRECTORY).join(&name);
        tokio::fs::write(&path, content.bytes()).await.unwrap();
        let imported = self
            .caller
            .repeat("import", |client| import_object(client, name.clone()))
            .await
            .or_abandoned("import");
        tokio::fs::remove_file(&path).await.unwrap();
        let file = imported.map(|id| Some(File { id, name: name.clone(), version: 1, ..File::default() }));
        self.record_created("import", name, Entry::new(self.number, content), file);
    }
}

/// Returns a new request id. A process uses each only once.
pub(super) fn next_request_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("00000000-0000-4000-8000-{:012x}", NEXT.fetch_add(1, Ordering::Relaxed))
}

async fn download_bytes(
    client: Client,
    request: DownloadFileRequest,
) -> Result<(DownloadHeader, Bytes), ClientError> {
    let mut bytes = Vec::new();
    let header = client.download_to(request, &mut bytes, |_| {}).await?;
    Ok((header, Bytes::from(bytes)))
}

/// Imports one object, and returns the id of its file.
async fn import_object(client: Client, key: String) -> Result<String, ClientError> {
    let options = ImportOptions { source: IMPORT_SOURCE.to_owned(), ..ImportOptions::default() };
    let item = ImportItem { source: Some(Source::ObjectKey(key)), ..ImportItem::default() };
    let mut responses = client.import_files(options, stream::iter([item])).await?;
    while let Some(response) = responses.next().await {
        let Some(Message::Result(result)) = response?.message else { continue };
        match result.outcome() {
            ImportOutcome::Imported | ImportOutcome::AlreadyImported => return Ok(result.file_id),
            _ => {
                let is_temporary = matches!(
                    result.reason(),
                    ErrorReason::StorageUnavailable
                        | ErrorReason::DatabaseUnavailable
                        | ErrorReason::DeadlineExceeded
                        | ErrorReason::RequestInProgress
                        | ErrorReason::Overloaded
                        // The repeated import finds the file if there is one.
                        | ErrorReason::OutcomeUnknown
                );
                assert!(is_temporary, "import failed: {result:?}");
                return Err(ClientError::Transport { source: result.message.into() });
            }
        }
    }
    Err(ClientError::Transport { source: "import ended without a result".into() })
}
