//! Clients that upload, download, delete and purge, through everything that is killed under them, and a ledger of what
//! was promised to them.

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
/// The sizes that take turns: nothing, one write, just one part, several parts.
const SIZES: [usize; 9] = [0, 700, 90_000, 4_000, PART, 33_000, PART + 300_000, 2 * PART + 1, 1];
/// The smallest part that can be configured.
pub(crate) const PART: usize = 5 << 20;
/// What a finished operation counts for, beside its bytes.
const OPERATION_BYTES: u64 = 32 << 10;

/// A small generator of fixed seeds: what failed once fails again.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// What was tried under a name, and what came of it.
struct Attempt {
    digest: Digest,
    fate: Fate,
}

#[derive(Clone, PartialEq, Eq)]
enum Fate {
    /// Nobody said what became of it: a whole file, or none.
    Unknown,
    /// It must be there.
    Acknowledged(String),
    /// Its end was asked for, and nobody said what came of that: it may be there.
    Leaving,
    /// It must not be there.
    Gone(String),
}

/// What the workers stand before.
#[derive(Clone)]
enum Service {
    Down,
    Up(Box<Client>),
    Over,
}

/// Clients at work.
pub(crate) struct MixedLoad {
    shared: Arc<Shared>,
    service: watch::Sender<Service>,
    workers: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    ledger: Mutex<HashMap<String, Attempt>>,
    sent_bytes: AtomicU64,
    /// Pulls the trigger when so many bytes were sent; none is set at 0.
    trigger_bytes: AtomicU64,
    pulled: Notify,
}

impl MixedLoad {
    /// Workers that wait for a service.
    pub(crate) fn new() -> Self {
        let shared = Arc::new(Shared::default());
        let service = watch::Sender::new(Service::Down);
        let mut workers = JoinSet::new();
        for worker in 0..WORKERS {
            workers.spawn(work(shared.clone(), service.subscribe(), worker));
        }
        Self { shared, service, workers }
    }

    /// Here is a service.
    pub(crate) fn up(&self, client: Client) {
        self.service.send_replace(Service::Up(Box::new(client)));
    }

    /// Something is about to be killed; who ends or fails now waits.
    pub(crate) fn down(&self) {
        self.service.send_replace(Service::Down);
    }

    /// Waits until so many bytes more were sent.
    pub(crate) async fn after_bytes(&self, bytes: u64) {
        let at = self.shared.sent_bytes.load(Ordering::SeqCst) + bytes + 1;
        self.shared.trigger_bytes.store(at, Ordering::SeqCst);
        self.shared.pulled.notified().await;
    }

    /// Ends the workers, each after what it is doing.
    pub(crate) async fn end(&mut self) {
        self.service.send_replace(Service::Over);
        while let Some(ended) = self.workers.join_next().await {
            ended.unwrap();
        }
    }

    /// Everything acknowledged is there with its bytes; nothing is there that was not tried, that differs from what was, or
    /// whose end was acknowledged. Answers how many files were acknowledged, and how many ends.
    pub(crate) async fn check(&self, client: &Client) -> (usize, usize) {
        let ledger = std::mem::take(&mut *self.shared.ledger.lock().unwrap());
        let mut visible: HashMap<String, File> = HashMap::new();
        let request = ListFilesRequest { page_size: 1000, ..ListFilesRequest::default() };
        let mut files = pin!(client.list_all(request));
        while let Some(file) = files.next().await {
            let file = file.unwrap();
            assert!(visible.insert(file.id.clone(), file).is_none(), "a file is listed twice");
        }
        let (mut acknowledged, mut gone) = (0, 0);
        for (name, attempt) in &ledger {
            match &attempt.fate {
                Fate::Acknowledged(id) => {
                    let file =
                        visible.get(id).unwrap_or_else(|| panic!("{name} was acknowledged and is gone"));
                    assert_eq!(&file.name, name);
                    acknowledged += 1;
                }
                Fate::Gone(id) => {
                    assert!(!visible.contains_key(id), "{name} was removed and is there");
                    gone += 1;
                }
                Fate::Unknown | Fate::Leaving => {}
            }
        }
        for file in visible.values() {
            let attempt = ledger.get(&file.name).unwrap_or_else(|| panic!("nobody uploaded {}", file.name));
            assert_eq!(file.sha256.as_ref(), attempt.digest.as_bytes(), "{}", file.name);
            let mut sink = Vec::new();
            // The client compares the digest of what it reads with the one recorded.
            client.download_to(download(&file.id), &mut sink, |_| {}).await.unwrap();
            assert_eq!(sink.len(), usize::try_from(file.size_bytes).unwrap());
        }
        (acknowledged, gone)
    }
}

impl Shared {
    fn count(&self, bytes: u64) {
        let sent = self.sent_bytes.fetch_add(bytes, Ordering::SeqCst) + bytes;
        let at = self.trigger_bytes.load(Ordering::SeqCst);
        // Whoever takes the trigger off pulls it, so that it is pulled once.
        if at > 0
            && sent >= at
            && self.trigger_bytes.compare_exchange(at, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        {
            self.pulled.notify_one();
        }
    }

    fn note(&self, name: &str, fate: Fate) {
        self.ledger.lock().unwrap().get_mut(name).unwrap().fate = fate;
    }
}

/// Until it is over: something, and if that fails, something else as soon as there is a service.
async fn work(shared: Arc<Shared>, mut service: watch::Receiver<Service>, worker: u64) {
    let mut random = Random(0x5EED_0001 + worker);
    let mut mine: Vec<(String, String)> = Vec::new();
    let mut uploads = 0;
    loop {
        let now = service.wait_for(|now| !matches!(now, Service::Down)).await.map(|now| now.clone());
        let Ok(Service::Up(client)) = now else { return };
        let dice = random.next() % 10;
        if dice < 6 || mine.is_empty() {
            let name = format!("{worker}-{uploads}");
            let size = SIZES[uploads % SIZES.len()];
            // Size told and not told take turns, for each size.
            let is_told = (uploads / SIZES.len()).is_multiple_of(2);
            uploads += 1;
            if let Some(id) = upload(&shared, &client, &name, size, is_told).await {
                mine.push((name, id));
            }
        } else {
            let chosen = usize::try_from(random.next()).unwrap() % mine.len();
            match dice {
                6 | 7 => read(&client, &mine[chosen]).await,
                _ => {
                    let (name, id) = mine.swap_remove(chosen);
                    remove(&shared, &client, &name, id, dice == 8).await;
                }
            }
        }
        shared.count(OPERATION_BYTES);
        tokio::task::yield_now().await;
    }
}

async fn upload(
    shared: &Arc<Shared>,
    client: &Client,
    name: &str,
    size: usize,
    is_told: bool,
) -> Option<String> {
    let bytes = bytes(name, size);
    let attempt = Attempt { digest: Digest::of(&bytes), fate: Fate::Unknown };
    shared.ledger.lock().unwrap().insert(name.to_owned(), attempt);
    let spec = UploadSpec {
        name: name.to_owned(),
        size_bytes: is_told.then_some(i64::try_from(size).unwrap()),
        ..UploadSpec::default()
    };
    let (counted, before) = (shared.clone(), AtomicU64::new(0));
    let progress = move |sent: u64| counted.count(sent.saturating_sub(before.swap(sent, Ordering::SeqCst)));
    let answer = client.upload(spec, Cursor::new(bytes), progress).await.ok()?;
    let id = answer.file.unwrap().id;
    shared.note(name, Fate::Acknowledged(id.clone()));
    Some(id)
}

async fn read(client: &Client, (name, id): &(String, String)) {
    let mut sink = Vec::new();
    match client.download_to(download(id), &mut sink, |_| {}).await {
        Ok(_) | Err(ClientError::Transport { .. }) => {}
        Err(ClientError::Rejected(rejection)) => {
            let reason = rejection.reason_name.as_str();
            let is_lost = matches!(reason, "OBJECT_MISSING" | "OBJECT_DAMAGED" | "NOT_FOUND" | "INTERNAL");
            assert!(!is_lost, "{name}: {rejection}");
        }
        Err(error) => panic!("{name}: {error}"),
    }
}

async fn remove(shared: &Arc<Shared>, client: &Client, name: &str, id: String, for_good: bool) {
    shared.note(name, Fate::Leaving);
    let is_gone = if for_good {
        let request = PurgeFileRequest { file_id: id.clone(), ..PurgeFileRequest::default() };
        client.purge_file(request).await.is_ok()
    } else {
        let request = DeleteFileRequest { file_id: id.clone(), ..DeleteFileRequest::default() };
        client.delete_file(request).await.is_ok()
    };
    if is_gone {
        shared.note(name, Fate::Gone(id));
    }
}

fn download(id: &str) -> DownloadFileRequest {
    DownloadFileRequest { file_id: id.to_owned(), ..DownloadFileRequest::default() }
}

/// Bytes that follow from the name.
fn bytes(name: &str, size: usize) -> Vec<u8> {
    let seed = u64::from_le_bytes(Digest::of(name.as_bytes()).as_bytes()[..8].try_into().unwrap());
    let mut random = Random(seed | 1);
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}
