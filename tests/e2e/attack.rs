//! A member of one tenant and an unauthenticated client attack `strongroom serve` with every kind of request,
//! while another tenant and the operator work: none of their calls may fail, and memory stays below the bound that
//! the server logs.

use std::{
    io::Cursor,
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use strongroom::{
    client::{Client, ClientOptions, RetryPolicy},
    proto::{
        admin::v1::{GetTenantRequest, ListTenantsRequest, ResumeTenantRequest, SuspendTenantRequest},
        v1::{
            DownloadFileRequest, GetQuotaRequest, ListFilesRequest, ListWebhooksRequest, UploadFileRequest,
            UploadSpec, upload_file_request::Message,
        },
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, interval, timeout},
};
use tonic::{
    Status,
    body::Body,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::Service as _;

use crate::{
    server::{Server, Site, WHOLE_MACHINE, connect},
    stalled_calls::{CHECK, CHUNK_BYTES, DOWNLOAD, UPLOAD, frame, raw_request, stalled_request, whole_frame},
};

/// How long the attack lasts.
const ATTACK: Duration = Duration::from_secs(30);

/// How long it lasts with `STRONGROOM_TEST_FULL=1`.
const ATTACK_FULL: Duration = Duration::from_secs(120);

/// The shortest time between two attempts of an attacker, and between two probes.
const PAUSE: Duration = Duration::from_millis(200);

/// The time that a call of the others has, and the time to wait for a connection. An unoptimized server that shares two
/// cores with its attackers, with PostgreSQL and with whatever else runs needs up to 10 s for one call: each of a dozen
/// round trips to the database takes less than a millisecond there, and waits for up to 3 s behind the tasks of the
/// attackers. It is shorter than the attack, so a call that waits for something that the attackers hold still fails.
const WAIT_MAX_SECONDS: u64 = 25;
const _: () = assert!(WAIT_MAX_SECONDS < ATTACK.as_secs());

const WEBHOOKS: &str = "/strongroom.v1.WebhookService/ListWebhooks";

/// The values that the attackers of one test share.
#[derive(Clone)]
struct Target {
    grpc: String,
    edge: String,
    token: SecretString,
    /// A file of the attacker that is larger than all windows and queues.
    large_file: String,
}

/// The addresses of the attackers. The others have 127.0.0.1.
fn attacker(number: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, 1 + number).into()
}

async fn open_channel(target: &Target, from: IpAddr) -> Option<Channel> {
    let endpoint = Endpoint::from_shared(target.grpc.clone()).unwrap();
    endpoint.local_address(Some(from)).connect().await.ok()
}

async fn open_socket(address: &str, from: IpAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(address.parse().unwrap()).await
}

/// Sends some bytes of a call and then nothing, and waits for the end of the response. Every error is fine.
async fn stall(mut channel: Channel, token: Option<SecretString>, path: &'static str, sent: Vec<u8>) {
    let request = stalled_request(token.as_ref().map(ExposeSecret::expose_secret), path, sent);
    if std::future::poll_fn(|context| channel.poll_ready(context)).await.is_err() {
        return;
    }
    if let Ok(response) = channel.call(request).await
        && Status::from_header_map(response.headers()).is_none()
    {
        // The response is not read.
        let _unread = response;
        std::future::pending::<()>().await;
    }
}

/// Calls that are stalled after these bytes.
#[derive(Clone)]
struct StalledCalls {
    connections: usize,
    /// The calls on each connection.
    calls: usize,
    is_member: bool,
    path: &'static str,
    sent: Vec<u8>,
}

/// Keeps stalled calls open.
fn stall_calls(attack: &mut JoinSet<()>, target: &Target, stalled: &StalledCalls) {
    for _ in 0..stalled.connections {
        let (target, StalledCalls { calls, is_member, path, sent, .. }) = (target.clone(), stalled.clone());
        attack.spawn(async move {
            let mut pause = interval(PAUSE);
            loop {
                pause.tick().await;
                let Some(channel) = open_channel(&target, attacker(1)).await else { continue };
                let token = is_member.then(|| target.token.clone());
                let stalled = (0..calls).map(|_| stall(channel.clone(), token.clone(), path, sent.clone()));
                // Calls that were refused are sent again, but not in a busy loop.
                let all = futures::future::join_all(stalled);
                let _ended = timeout(Duration::from_secs(8), all).await;
            }
        });
    }
}

/// Keeps connections open that send this and nothing else, and replaces those that are closed.
fn hold_connections(
    attack: &mut JoinSet<()>,
    address: &str,
    from: IpAddr,
    count: usize,
    sent: &'static [u8],
) {
    let address = address.strip_prefix("http://").unwrap().to_owned();
    for _ in 0..count {
        let address = address.clone();
        attack.spawn(async move {
            let mut pause = interval(PAUSE);
            loop {
                pause.tick().await;
                let Ok(mut stream) = open_socket(&address, from).await else { continue };
                if stream.write_all(sent).await.is_ok() {
                    let mut buffer = [0; 256];
                    while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
                }
            }
        });
    }
}

fn start_attack(target: &Target) -> JoinSet<()> {
    let mut attack = JoinSet::new();
    let spec = UploadSpec { name: "a".to_owned(), ..UploadSpec::default() };
    let spec = UploadFileRequest { message: Some(Message::Spec(spec)) };
    let download = DownloadFileRequest { file_id: target.large_file.clone(), ..Default::default() };
    let chunk_header = [whole_frame(&spec), frame(CHUNK_BYTES, b"12345")].concat();
    let of_member =
        |connections, calls, path, sent| StalledCalls { connections, calls, is_member: true, path, sent };
    for stalled in [
        of_member(3, 100, DOWNLOAD, whole_frame(&download)),
        of_member(10, 120, UPLOAD, Vec::new()),
        of_member(1, 64, UPLOAD, chunk_header),
        StalledCalls { is_member: false, ..of_member(18, 126, CHECK, frame(1_000, b"")) },
        StalledCalls { is_member: false, ..of_member(2, 126, CHECK, frame(64 << 10, b"")) },
    ] {
        stall_calls(&mut attack, target, &stalled);
    }
    for number in 2..7 {
        let silent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        hold_connections(&mut attack, &target.grpc, attacker(number), 220, silent);
    }
    hold_connections(&mut attack, &target.edge, attacker(1), 64, b"GET /livez HTTP/1.1\r\nhost: ed");
    for is_member in [true, false] {
        let target = target.clone();
        attack.spawn(async move { repeat_refused_call(&target, is_member).await });
    }
    attack
}

/// Repeats a call that only admins may make.
async fn repeat_refused_call(target: &Target, is_member: bool) {
    loop {
        let Some(mut channel) = open_channel(target, attacker(1)).await else { continue };
        for _ in 0..10_000 {
            let token = if is_member { target.token.expose_secret() } else { "a.b.c" };
            let message = Bytes::from(whole_frame(&ListWebhooksRequest::default()));
            let body = Body::new(http_body_util::Full::new(message));
            let request = raw_request(Some(token), WEBHOOKS).body(body).unwrap();
            if std::future::poll_fn(|context| channel.poll_ready(context)).await.is_err()
                || channel.call(request).await.is_err()
            {
                break;
            }
        }
    }
}

async fn connect_without_retries(server: &Server, token: SecretString) -> Client {
    let retry = RetryPolicy { attempts_max: 1, ..RetryPolicy::default() };
    let options = ClientOptions { retry, ..ClientOptions::new(server.grpc.clone(), token) };
    Client::connect(options).await.unwrap()
}

/// Uploads, lists and downloads as another tenant.
async fn work(client: &Client, number: u64) {
    let size = [700, 300_000, 6 << 20][usize::try_from(number % 3).unwrap()];
    let data = vec![u8::try_from(number % 251).unwrap(); size];
    let spec = UploadSpec { name: format!("report-{number}"), ..UploadSpec::default() };
    let uploaded = client.upload_reader(spec, Cursor::new(data.clone()), |_| {}).await;
    let file = uploaded.expect("upload").file.unwrap();
    let request = ListFilesRequest { page_size: 10, ..ListFilesRequest::default() };
    assert!(!client.list_files(request).await.expect("list").files.is_empty());
    let mut read = Vec::new();
    let request = DownloadFileRequest { file_id: file.id, ..DownloadFileRequest::default() };
    client.download_to(request, &mut read, |_| {}).await.expect("download");
    assert!(read == data, "the bytes differ");
}

/// The operator of the platform, and a tenant that nobody uses.
struct Operator {
    client: Client,
    tenant_id: String,
}

impl Operator {
    async fn connect(server: &Server, site: &Site) -> Self {
        // The first call creates the tenant.
        let spare = connect(&server.grpc, site.identity.token("sam", "spare", "member")).await;
        spare.get_quota(GetQuotaRequest::default()).await.unwrap();
        let client = connect_without_retries(server, site.identity.operator_token("root")).await;
        let listed = client.list_tenants(ListTenantsRequest::default()).await.unwrap().tenants;
        let spare = listed.into_iter().find(|tenant| tenant.external_id == "spare").unwrap();
        Self { client, tenant_id: spare.id }
    }

    /// Reads, suspends and resumes the tenant.
    async fn work(&self) {
        let tenant_id = || self.tenant_id.clone();
        let get = GetTenantRequest { tenant_id: tenant_id() };
        self.client.get_tenant(get).await.expect("get tenant");
        let reason = "attack".to_owned();
        let suspend = SuspendTenantRequest { tenant_id: tenant_id(), reason, ..Default::default() };
        self.client.suspend_tenant(suspend).await.expect("suspend tenant");
        let resume = ResumeTenantRequest { tenant_id: tenant_id(), ..Default::default() };
        self.client.resume_tenant(resume).await.expect("resume tenant");
    }
}

/// Probes as an orchestrator does.
async fn probe(server: &Server) {
    let address = server.edge.strip_prefix("http://").unwrap();
    let livez = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: edge\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    };
    livez.await;
    let channel = Endpoint::from_shared(server.grpc.clone()).unwrap().connect().await.unwrap();
    HealthClient::new(channel).check(HealthCheckRequest::default()).await.expect("health check");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_fails_no_call_of_others() {
    let _machine = WHOLE_MACHINE.lock().await;
    let site = Site::new("attack")
        .await
        .with_operators()
        .set("STRONGROOM_DEADLINES__UNARY_SECONDS", WAIT_MAX_SECONDS)
        .set("STRONGROOM_DEADLINES__LIST_SECONDS", WAIT_MAX_SECONDS)
        .set("STRONGROOM_DATABASE__ACQUIRE_TIMEOUT_SECONDS", WAIT_MAX_SECONDS);
    let server = site.start_server().await;
    let token = site.identity.token("mallory", "globex", "member");
    let attacker = connect(&server.grpc, token.clone()).await;
    let spec = UploadSpec { name: "large".to_owned(), ..UploadSpec::default() };
    let large = attacker.upload_reader(spec, Cursor::new(vec![7; 12 << 20]), |_| {}).await.unwrap();
    let target = Target {
        grpc: server.grpc.clone(),
        edge: server.edge.clone(),
        token,
        large_file: large.file.unwrap().id,
    };
    let client = connect_without_retries(&server, site.identity.token("alice", "acme", "member")).await;
    work(&client, 0).await;
    let operator = Operator::connect(&server, &site).await;

    let mut attack = start_attack(&target);
    let duration = if std::env::var("STRONGROOM_TEST_FULL").is_ok() { ATTACK_FULL } else { ATTACK };
    let (until, rounds) = (Instant::now() + duration, AtomicU64::new(0));
    let working = async {
        while Instant::now() < until {
            work(&client, rounds.fetch_add(1, Ordering::Relaxed)).await;
        }
    };
    let probing = async {
        let mut pause = interval(PAUSE);
        while Instant::now() < until {
            pause.tick().await;
            probe(&server).await;
        }
    };
    let operating = async {
        let mut pause = interval(PAUSE);
        while Instant::now() < until {
            pause.tick().await;
            operator.work().await;
        }
    };
    tokio::join!(working, probing, operating);
    attack.shutdown().await;
    assert!(rounds.load(Ordering::Relaxed) > 0);
    let (peak, bound) = (server.peak_resident_bytes(), server.memory_bound_bytes);
    assert!(peak < bound, "the server used {peak} bytes; its bound is {bound}");
    server.kill().await;
    site.close().await;
}
