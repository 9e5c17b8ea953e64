//! A resumable upload that is interrupted by killing the client, the service and the store.

use std::{path::Path, process::Stdio, time::Duration};

use secrecy::ExposeSecret;
use serde_json::Value;
use strongroom::{
    client::Client,
    domain::digest::Digest,
    proto::v1::{DownloadFileRequest, GetUploadRequest, ListUploadsRequest},
};
use tokio::process::{Child, Command};

use crate::{
    database::TestDatabase,
    garage::Garage,
    gate::Gate,
    server::{Server, Site, strongroom_command},
};

const INTERRUPTIONS: usize = 20;
/// The smallest value that `uploads.part_size_bytes` allows.
const PART: usize = 5 << 20;
/// The bytes that pass the gate before each kill: one complete part and half of the next.
const STEP_BYTES: usize = PART + PART / 2;
/// The bytes of frames, headers and other calls per attempt.
const OVERHEAD_BYTES: u64 = 512 << 10;
/// Longer than `uploads.idle_timeout_seconds`, after which the service ends a stalled stream and the client resumes.
const PROGRESS_WAIT_MAX: Duration = Duration::from_secs(180);
/// Larger than all steps together.
const SIZE: usize = INTERRUPTIONS * STEP_BYTES + PART;

/// A `strongroom put` command, which runs as a process that the test can kill.
struct Put<'a> {
    site: &'a Site,
    gate: &'a Gate,
    file: &'a Path,
    state: &'a Path,
}

impl Put<'_> {
    fn start(&self) -> Child {
        let token = self.site.identity.token("alice", "acme", "member");
        let mut command: Command = strongroom_command();
        command.arg("put").arg(self.file).args(["--json", "--server", &self.gate.url]);
        command.env("STRONGROOM_TOKEN", token.expose_secret()).env("XDG_STATE_HOME", self.state);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }
}

/// Returns the persisted size of the open upload, or `None` before it is created.
async fn persisted_bytes(client: &Client) -> Option<u64> {
    let open = client.list_uploads(ListUploadsRequest::default()).await.unwrap().uploads;
    let upload_id = open.first()?.id.clone();
    assert_eq!(open.len(), 1, "the client must resume its upload, not create another one: {open:?}");
    let upload =
        client.get_upload(GetUploadRequest { upload_id, with_urls: false }).await.unwrap().upload.unwrap();
    Some(upload.persisted_size_bytes.unsigned_abs())
}

/// Waits until this many bytes are persisted. Returns `None` if there is no progress for a long time.
async fn wait_until_persisted(client: &Client, bytes: u64) -> Option<u64> {
    let reached = async {
        loop {
            match persisted_bytes(client).await {
                Some(persisted) if persisted >= bytes => return persisted,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(PROGRESS_WAIT_MAX, reached).await.ok()
}

/// Fails with the log of a client that makes no progress.
async fn fail_without_progress(mut client: Child, interruption: usize, gate: &Gate) -> ! {
    let _ = client.start_kill();
    let put = client.wait_with_output().await.unwrap();
    panic!(
        "no progress after {interruption} interruptions and {} bytes; {}: {}",
        gate.passed_bytes(),
        put.status,
        String::from_utf8_lossy(&put.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_upload_resends_at_most_one_part_each_time() {
    let mut garage = Garage::start().await;
    let site = Site::with_database(TestDatabase::create_migrated("resume").await)
        .set("STRONGROOM_UPLOADS__PART_SIZE_BYTES", PART)
        .set_all(garage.settings());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("large.bin");
    let bytes: Vec<u8> = (0..SIZE).map(|n| u8::try_from((n / 3 + n / 65_521) % 251).unwrap()).collect();
    std::fs::write(&file, &bytes).unwrap();

    let mut server = site.start_server().await;
    let gate = Gate::for_requests_to(&server.grpc).await;
    let put = Put { site: &site, gate: &gate, file: &file, state: directory.path() };
    let mut client = put.start();
    let mut persisted = 0;
    for interruption in 0..INTERRUPTIONS {
        let observer = site.client(&server, "alice").await;
        gate.let_through(STEP_BYTES);
        persisted = match wait_until_persisted(&observer, persisted + PART as u64).await {
            Some(persisted) => persisted,
            None => fail_without_progress(client, interruption, &gate).await,
        };
        // Bytes that passed the gate but are not persisted are lost: at most one part per interruption.
        let resent_bytes = gate.passed_bytes().saturating_sub(persisted);
        let times = interruption as u64 + 1;
        assert!(
            resent_bytes <= times * (PART as u64 + OVERHEAD_BYTES),
            "{resent_bytes} bytes were sent again after {times} interruptions"
        );
        match interruption % 3 {
            0 => {
                client.kill().await.unwrap();
                client = put.start();
            }
            1 => {
                server.kill().await;
                server = site.start_server().await;
                gate.set_upstream(&server.grpc);
            }
            _ => {
                garage.kill().await;
                garage.restart().await;
            }
        }
    }
    gate.let_through(4 * SIZE);
    let put = client.wait_with_output().await.unwrap();
    assert!(put.status.success(), "{}", String::from_utf8_lossy(&put.stderr));
    let resent_bytes = gate.passed_bytes() - SIZE as u64;
    assert!(
        resent_bytes <= INTERRUPTIONS as u64 * (PART as u64 + OVERHEAD_BYTES),
        "{resent_bytes} bytes were sent again"
    );

    let result: Value = serde_json::from_slice(&put.stdout).unwrap();
    assert_eq!(result["file"]["sha256"], Digest::compute(&bytes).to_string());
    let alice = site.client(&server, "alice").await;
    let file_id = result["file"]["id"].as_str().unwrap().to_owned();
    let mut copy = Vec::new();
    let request = DownloadFileRequest { file_id, ..DownloadFileRequest::default() };
    alice.download_to(request, &mut copy, |_| {}).await.unwrap();
    assert!(copy == bytes, "the download differs from the upload");
    assert_eq!(std::fs::read_dir(directory.path().join("strongroom/uploads")).unwrap().count(), 0);
    stop_server(server).await;
    site.close().await;
}

async fn stop_server(server: Server) {
    server.terminate().await;
    let (status, log) = server.wait_for_exit().await;
    assert!(status.success(), "{log:#?}");
}
