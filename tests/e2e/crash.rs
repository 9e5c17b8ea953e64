//! kill -9 at random moments of mixed uploads.

use std::{
    collections::HashMap,
    io::Cursor,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::{StreamExt, future::join_all};
use strongroom::{
    client::Client,
    domain::digest::Digest,
    proto::v1::{DownloadFileRequest, File, ListFilesRequest, UploadSpec},
};
use tokio::sync::Notify;

use crate::server::Site;

const KILLS: u64 = 10;
/// With STRONGROOM_TEST_FULL=1.
const KILLS_FULL: u64 = 100;
const UPLOADERS: u64 = 8;
/// The sizes that take turns: nothing, one write, just one part, several parts.
const SIZES: [usize; 8] = [0, 700, 90_000, 4_000, 8 << 20, 33_000, 19 << 20, 1];
/// The service dies after at most so many bytes of a round were sent.
const KILL_AFTER_BYTES_MAX: u64 = 48 << 20;

/// A small generator of fixed seeds: what failed once fails again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// What was tried under a name, and what came of it.
struct Attempt {
    digest: Digest,
    acknowledged: Option<String>,
}

type Ledger = Arc<Mutex<HashMap<String, Attempt>>>;

#[tokio::test(flavor = "multi_thread")]
async fn kill_minus_nine_during_mixed_uploads_loses_nothing_acknowledged() {
    let kills = if std::env::var("STRONGROOM_TEST_FULL").is_ok() { KILLS_FULL } else { KILLS };
    let site = Site::new("crash").await;
    let ledger = Ledger::default();
    let mut random = Random(0x5EED_0001);
    for round in 0..kills {
        let server = site.serve().await;
        let trigger = Arc::new(Trigger {
            sent: AtomicU64::new(0),
            at: random.next() % KILL_AFTER_BYTES_MAX,
            pulled: Notify::new(),
        });
        let mut uploaders = Vec::new();
        for uploader in 0..UPLOADERS {
            let client = site.client(&server, "alice").await;
            let (ledger, trigger) = (ledger.clone(), trigger.clone());
            uploaders.push(tokio::spawn(upload_until_it_breaks(
                client,
                format!("{round}-{uploader}"),
                ledger,
                trigger,
            )));
        }
        trigger.pulled.notified().await;
        server.kill().await;
        for uploader in join_all(uploaders).await {
            uploader.unwrap();
        }
    }
    let server = site.serve().await;
    let ledger = std::mem::take(&mut *ledger.lock().unwrap());
    check(&site.client(&server, "alice").await, &ledger).await;
    let (is_clean, report) = site.fsck().await;
    assert!(is_clean, "{report:#}");
    server.kill().await;
    site.close().await;
}

/// Fires when so many bytes were sent.
struct Trigger {
    sent: AtomicU64,
    at: u64,
    pulled: Notify,
}

impl Trigger {
    fn count(&self, bytes: u64) {
        // Every upload counts one more, so that empty files move things on too.
        if self.sent.fetch_add(bytes + 1, Ordering::SeqCst) + bytes + 1 >= self.at {
            self.pulled.notify_one();
        }
    }
}

async fn upload_until_it_breaks(client: Client, uploader: String, ledger: Ledger, trigger: Arc<Trigger>) {
    for (index, size) in SIZES.iter().cycle().enumerate() {
        let name = format!("{uploader}-{index}");
        let bytes = bytes(&name, *size);
        ledger
            .lock()
            .unwrap()
            .insert(name.clone(), Attempt { digest: Digest::of(&bytes), acknowledged: None });
        let spec = UploadSpec {
            name: name.clone(),
            size_bytes: (index % 2 == 0).then_some(i64::try_from(*size).unwrap()),
            ..UploadSpec::default()
        };
        let (counted, before) = (trigger.clone(), AtomicU64::new(0));
        let progress = move |sent: u64| counted.count(sent - before.swap(sent, Ordering::SeqCst));
        match client.upload(spec, Cursor::new(bytes), progress).await {
            Ok(answer) => {
                ledger.lock().unwrap().get_mut(&name).unwrap().acknowledged = Some(answer.file.unwrap().id);
                trigger.count(0);
            }
            Err(_) => return,
        }
    }
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

/// Everything acknowledged is there with its bytes; nothing is there that was not tried, or that differs from what was.
async fn check(client: &Client, ledger: &HashMap<String, Attempt>) {
    let mut visible: HashMap<String, File> = HashMap::new();
    let mut files =
        pin!(client.list_all(ListFilesRequest { page_size: 1000, ..ListFilesRequest::default() }));
    while let Some(file) = files.next().await {
        let file = file.unwrap();
        assert!(visible.insert(file.id.clone(), file).is_none(), "a file is listed twice");
    }
    let mut acknowledged = 0;
    for (name, attempt) in ledger {
        let Some(id) = &attempt.acknowledged else { continue };
        let file = visible.get(id).unwrap_or_else(|| panic!("{name} was acknowledged and is gone"));
        assert_eq!(&file.name, name);
        acknowledged += 1;
    }
    assert!(acknowledged > 0, "the service never lived long enough to acknowledge anything");
    for file in visible.values() {
        let attempt = ledger.get(&file.name).unwrap_or_else(|| panic!("nobody uploaded {}", file.name));
        assert_eq!(file.sha256.as_ref(), attempt.digest.as_bytes(), "{}", file.name);
        let request = DownloadFileRequest { file_id: file.id.clone(), ..DownloadFileRequest::default() };
        let mut sink = Vec::new();
        // The client compares the digest of what it reads with the one recorded.
        client.download_to(request, &mut sink, |_| {}).await.unwrap();
        assert_eq!(sink.len(), usize::try_from(file.size_bytes).unwrap());
    }
}
