//! One upload through everything that can be killed: the client, the service, the store.

use std::{path::Path, process::Stdio};

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
    server::{Server, Site, binary},
};

const INTERRUPTIONS: usize = 20;
/// The smallest part that can be configured.
const PART: usize = 5 << 20;
/// What goes through the gate before something is killed: one whole part, and half of the next.
const STEP: usize = PART + PART / 2;
/// Frames, headers and the calls beside the bytes of one attempt.
const OVERHEAD: u64 = 512 << 10;
/// More than all the steps can bring.
const SIZE: usize = INTERRUPTIONS * STEP + PART;

/// `strongroom put` of a file, as a process that can be killed.
struct Put<'a> {
    site: &'a Site,
    gate: &'a Gate,
    file: &'a Path,
    state: &'a Path,
}

impl Put<'_> {
    fn start(&self) -> Child {
        let token = self.site.identity.token("alice", "acme", "member");
        let mut command: Command = binary();
        command.arg("put").arg(self.file).args(["--json", "--server", &self.gate.url]);
        command.env("STRONGROOM_TOKEN", token.expose_secret()).env("XDG_STATE_HOME", self.state);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }
}

/// How far the one open upload has come; nothing before it is there.
async fn persisted(client: &Client) -> Option<u64> {
    let open = client.list_uploads(ListUploadsRequest::default()).await.unwrap().uploads;
    let upload_id = open.first()?.id.clone();
    assert_eq!(open.len(), 1, "it goes on with the upload that it began: {open:?}");
    let upload =
        client.get_upload(GetUploadRequest { upload_id, with_urls: false }).await.unwrap().upload.unwrap();
    Some(upload.persisted_size_bytes.unsigned_abs())
}

async fn until_persisted(client: &Client, bytes: u64) -> u64 {
    let moved = async {
        loop {
            match persisted(client).await {
                Some(persisted) if persisted >= bytes => return persisted,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), moved).await.expect("the upload does not move")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_interrupted_twenty_times_is_stored_whole_and_sends_at_most_a_part_again_each_time() {
    let mut garage = Garage::start().await;
    let site = Site::with(TestDatabase::migrated("resume").await)
        .set("STRONGROOM_UPLOADS__PART_SIZE_BYTES", PART)
        .set_all(garage.settings());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("large.bin");
    let bytes: Vec<u8> = (0..SIZE).map(|n| u8::try_from((n / 3 + n / 65_521) % 251).unwrap()).collect();
    std::fs::write(&file, &bytes).unwrap();

    let mut server = site.serve().await;
    let gate = Gate::before(&server.grpc).await;
    let put = Put { site: &site, gate: &gate, file: &file, state: directory.path() };
    let mut client = put.start();
    let mut stored = 0;
    for interruption in 0..INTERRUPTIONS {
        let beside = site.client(&server, "alice").await;
        gate.let_through(STEP);
        stored = until_persisted(&beside, stored + PART as u64).await;
        // What went through and is not stored was lost by now, or will be: at most a part each time.
        let sent_again = gate.passed_bytes().saturating_sub(stored);
        let times = interruption as u64 + 1;
        assert!(sent_again <= times * (PART as u64 + OVERHEAD), "{sent_again} bytes after {times} times");
        match interruption % 3 {
            0 => {
                client.kill().await.unwrap();
                client = put.start();
            }
            1 => {
                server.kill().await;
                server = site.serve().await;
                gate.lead_to(&server.grpc);
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
    let sent_again = gate.passed_bytes() - SIZE as u64;
    assert!(sent_again <= INTERRUPTIONS as u64 * (PART as u64 + OVERHEAD), "{sent_again} bytes in all");

    let answer: Value = serde_json::from_slice(&put.stdout).unwrap();
    assert_eq!(answer["file"]["sha256"], Digest::of(&bytes).to_string());
    let alice = site.client(&server, "alice").await;
    let file_id = answer["file"]["id"].as_str().unwrap().to_owned();
    let mut copy = Vec::new();
    let request = DownloadFileRequest { file_id, ..DownloadFileRequest::default() };
    alice.download_to(request, &mut copy, |_| {}).await.unwrap();
    assert!(copy == bytes, "the bytes that come back are those that were sent");
    assert_eq!(std::fs::read_dir(directory.path().join("strongroom/uploads")).unwrap().count(), 0);
    server_ends(server).await;
    site.close().await;
}

async fn server_ends(server: Server) {
    server.terminate().await;
    let (status, log) = server.ended().await;
    assert!(status.success(), "{log:#?}");
}
