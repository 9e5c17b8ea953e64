//! A thousand slow uploads at once.

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

use crate::server::{Server, Site};

const CONNECTIONS: usize = 8;
const UPLOADS: usize = 1_000;
/// A client sends this much and then takes its time.
const CHUNK_BYTES: usize = 16 * 1024;
/// Together more than the buffers may hold, so that the crowd leans on the limit.
const CHUNKS: usize = 3;

const MIB: usize = 1 << 20;
const BYTE_BUDGET: usize = 32 * MIB;
const PART: usize = 5 * MIB;

/// The limits that the memory bound is made of, set as low as a small machine would have them: about 380 MiB in all.
fn lowered(site: &Site) -> tokio::process::Command {
    let mut command = site.command(&["serve", "--with-worker"]);
    for (key, value) in [
        ("SERVER__CONNECTIONS_MAX", 16),
        ("SERVER__REQUESTS_MAX", UPLOADS + 100),
        ("SERVER__HTTP2__STREAM_WINDOW_BYTES", 64 * 1024),
        ("UPLOADS__BYTE_BUDGET_BYTES", BYTE_BUDGET),
        ("UPLOADS__PART_SIZE_BYTES", PART),
        ("UPLOADS__DECODE_PERMITS", 8),
        ("DOWNLOADS__STREAMS_MAX", 4),
    ] {
        command.env(format!("STRONGROOM_{key}"), value.to_string());
    }
    command
}

/// An upload that sends one chunk each time the crowd is told to.
struct Slow {
    sender: mpsc::UnboundedSender<UploadFileRequest>,
    sent_bytes: usize,
}

impl Slow {
    fn begin(
        mut files: FileServiceClient<Channel>,
        token: &SecretString,
        name: String,
    ) -> (Self, JoinHandle<Result<UploadFileResponse, Status>>) {
        let (sender, messages) = mpsc::unbounded();
        let mut request = Request::new(messages);
        let bearer = format!("Bearer {}", token.expose_secret()).parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        let answer = tokio::spawn(async move { Ok(files.upload_file(request).await?.into_inner()) });
        let slow = Self { sender, sent_bytes: 0 };
        slow.send(Message::Spec(UploadSpec { name, ..UploadSpec::default() }));
        (slow, answer)
    }

    fn send(&self, message: Message) {
        // A call that has failed says so by its answer.
        let _ = self.sender.unbounded_send(UploadFileRequest { message: Some(message) });
    }

    fn drip(&mut self) {
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

/// Small calls, one after the other, until told to stop; answers how many were answered.
async fn small_calls(client: Client, file_id: String, stop: watch::Receiver<bool>) -> usize {
    let mut answered = 0;
    while !*stop.borrow() {
        client.get_quota(GetQuotaRequest::default()).await.unwrap();
        client.get_file(GetFileRequest { file_id: file_id.clone() }).await.unwrap();
        answered += 2;
    }
    answered
}

/// What the buffers of uploads hold, as `/metrics` says.
async fn held_bytes(server: &Server) -> usize {
    let metrics = reqwest::get(format!("{}/metrics", server.edge)).await.unwrap().text().await.unwrap();
    let line = metrics.lines().find(|line| line.starts_with("strongroom_byte_budget_used_bytes")).unwrap();
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_slow_uploads_stay_within_the_printed_memory_bound_while_small_calls_are_answered() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let site = Site::new("crowd").await;
    let server = Server::start(lowered(&site)).await;
    let bystander = site.client(&server, "bob").await;
    let spec = UploadSpec { name: "small".into(), ..UploadSpec::default() };
    let small = bystander.upload(spec.clone(), b"bytes".as_slice(), |_| {}).await.unwrap().file.unwrap();

    let endpoint = Endpoint::from_shared(server.grpc.clone()).unwrap();
    let channels = join_all((0..CONNECTIONS).map(|_| endpoint.connect())).await;
    let files: Vec<_> =
        channels.into_iter().map(|channel| FileServiceClient::new(channel.unwrap())).collect();
    let token = site.identity.token("alice", "acme", "member");
    let begin = |n: usize| Slow::begin(files[n % CONNECTIONS].clone(), &token, format!("{n}"));
    let (mut crowd, answers): (Vec<_>, Vec<_>) = (0..UPLOADS).map(begin).unzip();

    let (stop, stopped) = watch::channel(false);
    let calls = tokio::spawn(small_calls(bystander.clone(), small.id, stopped));
    for _ in 0..CHUNKS {
        crowd.iter_mut().for_each(Slow::drip);
    }
    // A tenant may hold three quarters of the pool; all that it may is held when the last chunk found no room.
    let share = (BYTE_BUDGET - PART) * 3 / 4;
    let full = async { while held_bytes(&server).await < share - CHUNK_BYTES {} };
    tokio::time::timeout(Duration::from_secs(60), full).await.expect("the buffers fill");
    // Another tenant finds room all the same.
    let visitor =
        crate::server::connect(&server.grpc, site.identity.token("mallory", "globex", "member")).await;
    visitor.upload(spec, Cursor::new(vec![7; MIB]), |_| {}).await.unwrap();
    assert!(held_bytes(&server).await <= BYTE_BUDGET);
    stop.send(true).unwrap();
    assert!(calls.await.unwrap() > 0);

    crowd.into_iter().for_each(Slow::finish);
    for answer in join_all(answers).await {
        let file = answer.unwrap().unwrap().file.unwrap();
        assert_eq!(usize::try_from(file.size_bytes), Ok(CHUNKS * CHUNK_BYTES));
    }
    let (peak, bound) = (server.peak_resident_bytes(), server.memory_bound_bytes);
    assert!(peak <= bound, "the service held {} MiB and said {} MiB", peak >> 20, bound >> 20);
    assert_eq!(held_bytes(&server).await, 0);
    server.kill().await;
    site.close().await;
}
