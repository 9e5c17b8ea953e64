//! A thousand slow uploads at the same time.

use std::{io::Cursor, time::Duration};

use futures::{channel::mpsc, future::join_all};
use secrecy::{ExposeSecret, SecretString};
use strongroom::{
    client::Client,
    proto::v1::{
        GetFileRequest, GetQuotaRequest, UploadChunk, UploadFileRequest, UploadFileResponse, UploadFinish,
        UploadSpec, file_service_client::FileServiceClient, upload_file_request::Message,
    },
};
use tokio::{sync::watch, task::JoinHandle};
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint},
};

use crate::server::{Server, Site, WHOLE_MACHINE};

/// The time after which a test fails that waits.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(300);

const CONNECTIONS: usize = 8;
const UPLOADS: usize = 1_000;
/// A client sends one chunk of this size at a time.
const CHUNK_BYTES: usize = 16 * 1024;
/// Enough chunks that all uploads together exceed the byte budget.
const CHUNKS_PER_UPLOAD: usize = 3;

const MIB: usize = 1 << 20;
const BYTE_BUDGET: usize = 32 * MIB;
const PART: usize = 5 * MIB;

/// Configures a server for a small machine: a memory bound of about 840 MiB.
fn small_server_command(site: &Site) -> tokio::process::Command {
    let mut command = site.command(&["serve", "--with-worker"]);
    for (key, value) in [
        ("SERVER__CONNECTIONS_MAX", 32),
        // One caller alone gets three eighths of a limit.
        ("SERVER__REQUESTS_MAX", 3 * UPLOADS),
        ("UPLOADS__STREAMS_MAX", 3 * UPLOADS),
        ("SERVER__HTTP2__STREAM_WINDOW_BYTES", 64 * 1024),
        ("UPLOADS__BYTE_BUDGET_BYTES", BYTE_BUDGET),
        ("UPLOADS__PART_SIZE_BYTES", PART),
        ("UPLOADS__DECODE_PERMITS", 12),
        ("DOWNLOADS__STREAMS_MAX", 4),
        // All uploads start at once. Until all have their bytes, the others wait.
        ("UPLOADS__FIRST_MESSAGE_SECONDS", 600),
        ("UPLOADS__IDLE_TIMEOUT_SECONDS", 600),
        ("UPLOADS__RATE_GRACE_SECONDS", 600),
    ] {
        command.env(format!("STRONGROOM_{key}"), value.to_string());
    }
    command
}

/// An upload that sends one chunk per call of [`Self::send_chunk`].
pub(crate) struct SlowUpload {
    sender: mpsc::UnboundedSender<UploadFileRequest>,
    sent_bytes: usize,
}

impl SlowUpload {
    pub(crate) fn start(
        mut files: FileServiceClient<Channel>,
        token: &SecretString,
        name: String,
    ) -> (Self, JoinHandle<Result<UploadFileResponse, Status>>) {
        let (sender, messages) = mpsc::unbounded();
        let mut request = Request::new(messages);
        let bearer = format!("Bearer {}", token.expose_secret()).parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        let response = tokio::spawn(async move { Ok(files.upload_file(request).await?.into_inner()) });
        let slow = Self { sender, sent_bytes: 0 };
        slow.send(Message::Spec(UploadSpec { name, ..UploadSpec::default() }));
        (slow, response)
    }

    fn send(&self, message: Message) {
        // If the call has failed, its response reports the error.
        let _ = self.sender.unbounded_send(UploadFileRequest { message: Some(message) });
    }

    pub(crate) fn send_chunk(&mut self) {
        let data = vec![7; CHUNK_BYTES].into();
        let offset = i64::try_from(self.sent_bytes).unwrap();
        self.send(Message::Chunk(UploadChunk { offset, data, crc32c: None }));
        self.sent_bytes += CHUNK_BYTES;
    }

    fn finish(self) {
        let size_bytes = i64::try_from(self.sent_bytes).unwrap();
        self.send(Message::Finish(UploadFinish { size_bytes, sha256: None }));
    }
}

/// Makes small calls one after the other until `stop` is set, and returns their number.
pub(crate) async fn run_small_calls(client: Client, file_id: String, stop: watch::Receiver<bool>) -> usize {
    let mut count = 0;
    while !*stop.borrow() {
        client.get_quota(GetQuotaRequest::default()).await.unwrap();
        client.get_file(GetFileRequest { file_id: file_id.clone() }).await.unwrap();
        count += 2;
    }
    count
}

/// Returns the buffered bytes of all uploads, from `/metrics`.
async fn buffered_bytes(server: &Server) -> usize {
    let metrics = reqwest::get(format!("{}/metrics", server.edge)).await.unwrap().text().await.unwrap();
    let line = metrics.lines().find(|line| line.starts_with("strongroom_byte_budget_used_bytes")).unwrap();
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn thousand_slow_uploads_stay_within_memory_bound() {
    let _machine = WHOLE_MACHINE.lock().await;
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let site = Site::new("concurrent_uploads").await;
    let server = Server::start(small_server_command(&site)).await;
    let bob = site.client(&server, "bob").await;
    let spec = UploadSpec { name: "small".into(), ..UploadSpec::default() };
    let small = bob.upload_reader(spec.clone(), b"bytes".as_slice(), |_| {}).await.unwrap().file.unwrap();

    let endpoint = Endpoint::from_shared(server.grpc.clone()).unwrap();
    let channels = join_all((0..CONNECTIONS).map(|_| endpoint.connect())).await;
    let files: Vec<_> =
        channels.into_iter().map(|channel| FileServiceClient::new(channel.unwrap())).collect();
    let token = site.identity.token("alice", "acme", "member");
    let start = |n: usize| SlowUpload::start(files[n % CONNECTIONS].clone(), &token, format!("{n}"));
    let (mut uploads, responses): (Vec<_>, Vec<_>) = (0..UPLOADS).map(start).unzip();

    let (stop, stopped) = watch::channel(false);
    let calls = tokio::spawn(run_small_calls(bob.clone(), small.id, stopped));
    for _ in 0..CHUNKS_PER_UPLOAD {
        uploads.iter_mut().for_each(SlowUpload::send_chunk);
    }
    // A caller alone may use three quarters of three quarters of the budget. That share is exhausted when less
    // than one chunk is left.
    let share = (BYTE_BUDGET - PART) * 9 / 16;
    let exhausted = async { while buffered_bytes(&server).await < share - CHUNK_BYTES {} };
    tokio::time::timeout(WAIT_MAX, exhausted).await.expect("the budget was not exhausted");
    // Another tenant can still upload.
    let mallory =
        crate::server::connect(&server.grpc, site.identity.token("mallory", "globex", "member")).await;
    mallory.upload_reader(spec, Cursor::new(vec![7; MIB]), |_| {}).await.unwrap();
    assert!(buffered_bytes(&server).await <= BYTE_BUDGET);
    stop.send(true).unwrap();
    assert!(calls.await.unwrap() > 0);

    uploads.into_iter().for_each(SlowUpload::finish);
    for response in join_all(responses).await {
        let file = response.unwrap().unwrap().file.unwrap();
        assert_eq!(usize::try_from(file.size_bytes), Ok(CHUNKS_PER_UPLOAD * CHUNK_BYTES));
    }
    let (peak, bound) = (server.peak_resident_bytes(), server.memory_bound_bytes);
    assert!(peak <= bound, "the service used {} MiB; its memory bound is {} MiB", peak >> 20, bound >> 20);
    let released = async { while buffered_bytes(&server).await > 0 {} };
    tokio::time::timeout(WAIT_MAX, released).await.expect("the budget was not released");
    server.kill().await;
    site.close().await;
}
