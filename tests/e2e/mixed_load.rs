//! Clients that upload, download, delete and purge while processes are killed, and a ledger of the expected
//! result of every operation.

use std::{
    collections::HashMap,
    io::Cursor,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::StreamExt;
use strongroom::{
    client::{Client, ClientError},
    domain::digest::Digest,
    proto::v1::{
        DeleteFileRequest, DownloadFileRequest, File, ListFilesRequest, PurgeFileRequest, UploadSpec,
    },
};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};

const WORKERS: u64 = 8;
/// The sizes of the uploads in rotation: empty, a single write, exactly one part, and several parts.
const SIZES: [usize; 9] = [0, 700, 90_000, 4_000, PART, 33_000, PART + 300_000, 2 * PART + 1, 1];
/// The smallest part that can be configured.
pub(crate) const PART: usize = 5 << 20;
/// The weight of a finished operation in [`MixedLoad::wait_for_bytes`], in addition to its bytes.
const OPERATION_BYTES: u64 = 32 << 10;

/// A deterministic random number generator (xorshift64), so that a failure is reproducible.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// An upload under a name, and the expected state of its file.
struct Attempt {
    digest: Digest,
    expected: Expected,
}

#[derive(Clone, PartialEq, Eq)]
enum Expected {
    /// The upload was not acknowledged: the file exists completely or not at all.
    Unknown,
    /// The upload was acknowledged: the file must exist.
    Present(String),
    /// A deletion was requested but not acknowledged: the file may exist.
    Deleting,
    /// The deletion was acknowledged: the file must not exist.
    Absent(String),
}

/// The state of the service as the workers see it.
#[derive(Clone)]
enum Service {
    Disconnected,
    Connected(Box<Client>),
    Finished,
}

/// Concurrent clients, and their ledger.
pub(crate) struct MixedLoad {
    shared: Arc<Shared>,
    service: watch::Sender<Service>,
    workers: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    ledger: Mutex<HashMap<String, Attempt>>,
    sent_bytes: AtomicU64,
    /// The number of sent bytes at which `triggered` is notified; 0 means never.
    trigger_bytes: AtomicU64,
    triggered: Notify,
}

impl MixedLoad {
    /// Starts workers that wait for a connection.
    pub(crate) fn new() -> Self {
        let shared = Arc::new(Shared::default());
        let service = watch::Sender::new(Service::Disconnected);
        let mut workers = JoinSet::new();
        for worker in 0..WORKERS {
            workers.spawn(run_worker(shared.clone(), service.subscribe(), worker));
        }
        Self { shared, service, workers }
    }

    /// Lets the workers use this client.
    pub(crate) fn connect(&self, client: Client) {
        self.service.send_replace(Service::Connected(Box::new(client)));
    }

    /// Lets each worker wait after its current operation, because a process is about to be killed.
    pub(crate) fn disconnect(&self) {
        self.service.send_replace(Service::Disconnected);
    }

    /// Waits until the workers have sent this number of additional bytes.
    pub(crate) async fn wait_for_bytes(&self, bytes: u64) {
        let at = self.shared.sent_bytes.load(Ordering::SeqCst) + bytes + 1;
        self.shared.trigger_bytes.store(at, Ordering::SeqCst);
        self.shared.triggered.notified().await;
    }

    /// Stops each worker after its current operation.
    pub(crate) async fn finish(&mut self) {
        self.service.send_replace(Service::Finished);
        while let Some(ended) = self.workers.join_next().await {
            ended.unwrap();
        }
    }

    /// Verifies that every acknowledged file exists with its bytes, and that no other file exists: no file
    /// that was not uploaded, that differs from its upload, or whose deletion was acknowledged. Returns the
    /// number of acknowledged uploads and of acknowledged deletions.
    pub(crate) async fn verify(&self, client: &Client) -> (usize, usize) {
        let ledger = std::mem::take(&mut *self.shared.ledger.lock().unwrap());
        let mut visible: HashMap<String, File> = HashMap::new();
        let request = ListFilesRequest { page_size: 1000, ..ListFilesRequest::default() };
        let mut files = pin!(client.list_all_files(request));
        while let Some(file) = files.next().await {
            let file = file.unwrap();
            assert!(visible.insert(file.id.clone(), file).is_none(), "a file is listed twice");
        }
        let (mut acknowledged, mut deleted) = (0, 0);
        for (name, attempt) in &ledger {
            match &attempt.expected {
                Expected::Present(id) => {
                    let file = visible
                        .get(id)
                        .unwrap_or_else(|| panic!("{name} was acknowledged and does not exist"));
                    assert_eq!(&file.name, name);
                    acknowledged += 1;
                }
                Expected::Absent(id) => {
                    assert!(!visible.contains_key(id), "{name} was deleted and still exists");
                    deleted += 1;
                }
                Expected::Unknown | Expected::Deleting => {}
            }
        }
        for file in visible.values() {
            let attempt =
                ledger.get(&file.name).unwrap_or_else(|| panic!("{} was never uploaded", file.name));
            assert_eq!(file.sha256.as_ref(), attempt.digest.as_bytes(), "{}", file.name);
            let mut sink = Vec::new();
            // The client verifies the digest of the download.
            client.download_to(download_request(&file.id), &mut sink, |_| {}).await.unwrap();
            assert_eq!(sink.len(), usize::try_from(file.size_bytes).unwrap());
        }
        (acknowledged, deleted)
    }
}

impl Shared {
    fn count_bytes(&self, bytes: u64) {
        let sent = self.sent_bytes.fetch_add(bytes, Ordering::SeqCst) + bytes;
        let at = self.trigger_bytes.load(Ordering::SeqCst);
        // Only the worker that resets the trigger notifies, so that it is notified once.
        if at > 0
            && sent >= at
            && self.trigger_bytes.compare_exchange(at, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        {
            self.triggered.notify_one();
        }
    }

    fn set_expected(&self, name: &str, expected: Expected) {
        self.ledger.lock().unwrap().get_mut(name).unwrap().expected = expected;
    }
}

/// Runs random operations until the load is finished. After an error, continues as soon as a client is
/// available.
async fn run_worker(shared: Arc<Shared>, mut service: watch::Receiver<Service>, worker: u64) {
    let mut random = Random(0x5EED_0001 + worker);
    let mut files: Vec<(String, String)> = Vec::new();
    let mut uploads = 0;
    loop {
        let state = service.wait_for(|state| !matches!(state, Service::Disconnected)).await;
        let Ok(Service::Connected(client)) = state.map(|state| state.clone()) else { return };
        let choice = random.next() % 10;
        if choice < 6 || files.is_empty() {
            let name = format!("{worker}-{uploads}");
            let size = SIZES[uploads % SIZES.len()];
            // Alternate between declared and undeclared sizes.
            let is_size_declared = (uploads / SIZES.len()).is_multiple_of(2);
            uploads += 1;
            if let Some(id) = upload(&shared, &client, &name, size, is_size_declared).await {
                files.push((name, id));
            }
        } else {
            let chosen = usize::try_from(random.next()).unwrap() % files.len();
            match choice {
                6 | 7 => download(&client, &files[chosen]).await,
                _ => {
                    let (name, id) = files.swap_remove(chosen);
                    delete(&shared, &client, &name, id, choice == 8).await;
                }
            }
        }
        shared.count_bytes(OPERATION_BYTES);
        tokio::task::yield_now().await;
    }
}

async fn upload(
    shared: &Arc<Shared>,
    client: &Client,
    name: &str,
    size: usize,
    is_size_declared: bool,
) -> Option<String> {
    let bytes = bytes_for(name, size);
    let attempt = Attempt { digest: Digest::compute(&bytes), expected: Expected::Unknown };
    shared.ledger.lock().unwrap().insert(name.to_owned(), attempt);
    let spec = UploadSpec {
        name: name.to_owned(),
        size_bytes: is_size_declared.then_some(i64::try_from(size).unwrap()),
        ..UploadSpec::default()
    };
    let (shared_counter, before) = (shared.clone(), AtomicU64::new(0));
    let progress =
        move |sent: u64| shared_counter.count_bytes(sent.saturating_sub(before.swap(sent, Ordering::SeqCst)));
    let response = client.upload_reader(spec, Cursor::new(bytes), progress).await.ok()?;
    let id = response.file.unwrap().id;
    shared.set_expected(name, Expected::Present(id.clone()));
    Some(id)
}

async fn download(client: &Client, (name, id): &(String, String)) {
    let mut sink = Vec::new();
    match client.download_to(download_request(id), &mut sink, |_| {}).await {
        Ok(_) | Err(ClientError::Transport { .. }) => {}
        Err(ClientError::Rejected(rejection)) => {
            let reason = rejection.reason_name.as_str();
            let is_lost = matches!(reason, "OBJECT_MISSING" | "OBJECT_DAMAGED" | "NOT_FOUND" | "INTERNAL");
            assert!(!is_lost, "{name}: {rejection}");
        }
        Err(error) => panic!("{name}: {error}"),
    }
}

async fn delete(shared: &Arc<Shared>, client: &Client, name: &str, id: String, is_purge: bool) {
    shared.set_expected(name, Expected::Deleting);
    let is_acknowledged = if is_purge {
        let request = PurgeFileRequest { file_id: id.clone(), ..PurgeFileRequest::default() };
        client.purge_file(request).await.is_ok()
    } else {
        let request = DeleteFileRequest { file_id: id.clone(), ..DeleteFileRequest::default() };
        client.delete_file(request).await.is_ok()
    };
    if is_acknowledged {
        shared.set_expected(name, Expected::Absent(id));
    }
}

fn download_request(id: &str) -> DownloadFileRequest {
    DownloadFileRequest { file_id: id.to_owned(), ..DownloadFileRequest::default() }
}

/// Returns pseudo-random bytes that are derived from the name.
fn bytes_for(name: &str, size: usize) -> Vec<u8> {
    let seed = u64::from_le_bytes(Digest::compute(name.as_bytes()).as_bytes()[..8].try_into().unwrap());
    let mut random = Random(seed | 1);
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}
