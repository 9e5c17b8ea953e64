//! `strongroom worker` as a process of its own: killed in the middle of a job, told to stop, asked about its queue.

use std::{future::Future, io::Cursor, process::Stdio, time::Duration};

use secrecy::ExposeSecret as _;
use serde_json::Value;
use strongroom::{
    client::Client,
    proto::v1::{CreateWebhookRequest, UploadSpec, Webhook, webhook_service_client::WebhookServiceClient},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
    process::{Child, Command},
    task::JoinHandle,
};
use tokio_postgres::{Client as Sql, NoTls};

use crate::server::{Server, Site};

/// How many files a job has to delete, and how many of them it gets to before it hangs.
const FILES: i64 = 12;
const BEFORE: i64 = 4;

/// A worker that looks often and is soon missed.
async fn site(name: &str) -> Site {
    Site::new(name)
        .await
        .set("STRONGROOM_WORKER__LEASE_SECONDS", 3)
        .set("STRONGROOM_WORKER__HEARTBEAT_SECONDS", 1)
        .set("STRONGROOM_WORKER__TICK_SECONDS", 1)
        .set("STRONGROOM_WORKER__POLL_MAX_MILLISECONDS", 200)
}

/// A running worker.
pub(crate) struct Worker {
    child: Child,
    log: JoinHandle<Vec<String>>,
}

impl Worker {
    /// Starts one and waits until it works.
    pub(crate) async fn start(site: &Site) -> Self {
        Self::run(site.command(&["worker"])).await
    }

    /// Starts one that is configured by this command.
    pub(crate) async fn run(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut log = Vec::new();
        loop {
            let line = lines.next_line().await.unwrap();
            log.push(line.unwrap_or_else(|| panic!("the worker ended before it worked: {log:#?}")));
            if log.last().is_some_and(|line| line.contains("\"working\"")) {
                break;
            }
        }
        let log = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                log.push(line);
            }
            log
        });
        Self { child, log }
    }

    /// kill -9.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGTERM, and its log when it has ended well.
    pub(crate) async fn stop(mut self) -> Vec<String> {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        let status = self.child.wait().await.unwrap();
        let log = self.log.await.unwrap();
        assert!(status.success(), "{status}: {log:#?}");
        log
    }
}

pub(crate) async fn sql(site: &Site) -> Sql {
    let (client, connection) = tokio_postgres::connect(&site.database.superuser_url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub(crate) async fn number(sql: &Sql, query: &str) -> i64 {
    sql.query_one(&format!("SELECT ({query})::bigint"), &[]).await.unwrap().get(0)
}

/// Asks until the answer is yes.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let asked = async { while !is_so().await {} };
    tokio::time::timeout(Duration::from_secs(120), asked).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Files whose time has come; one of them is locked, so that whoever deletes them hangs in the middle.
async fn expired_files(client: &Client, watch: &Sql, lock: &Sql) {
    for n in 0..FILES {
        let spec = UploadSpec { name: format!("{n}.txt"), ..UploadSpec::default() };
        client.upload(spec, Cursor::new(b"bytes".to_vec()), |_| {}).await.unwrap();
    }
    let locked = format!("BEGIN; SELECT FROM files WHERE name = '{BEFORE}.txt' FOR UPDATE");
    watch
        .batch_execute(
            "UPDATE files SET expire_time = now() - interval '1 hour'
                 + interval '1 second' * substring(name FROM '^[0-9]+')::integer",
        )
        .await
        .unwrap();
    lock.batch_execute(&locked).await.unwrap();
}

const TRASHED: &str = "SELECT count(*) FROM files WHERE delete_time IS NOT NULL";

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_in_the_middle_of_a_job_has_it_done_once_in_effect_by_another() {
    let site = site("worker_killed").await;
    let server = Server::start(site.command(&["serve"])).await;
    let client = site.client(&server, "alice").await;
    let (watch, lock) = (sql(&site).await, sql(&site).await);
    expired_files(&client, &watch, &lock).await;

    let first = Worker::start(&site).await;
    until("it is in the middle", || async { number(&watch, TRASHED).await == BEFORE }).await;
    let second = Worker::start(&site).await;
    // Heartbeats keep the job with the first one for longer than its lease, though the second one looks for work.
    let lease = "SELECT extract(epoch FROM lease_expire_time) * 1000 FROM jobs WHERE state = 2";
    let begun = number(&watch, lease).await;
    until("heartbeats keep it", || async { number(&watch, lease).await > begun + 3_000 }).await;
    assert_eq!(number(&watch, "SELECT attempts FROM jobs WHERE state = 2").await, 1);

    first.kill().await;
    until("the second one has it", || async {
        number(&watch, "SELECT coalesce(max(attempts), 0) FROM jobs WHERE state = 2").await == 2
    })
    .await;
    lock.batch_execute("ROLLBACK").await.unwrap();
    // The clock may have asked for it again meanwhile: then it runs once more, and finds nothing to do.
    until("it is done", || async { number(&watch, "SELECT count(*) FROM jobs").await == 0 }).await;

    assert_eq!(number(&watch, TRASHED).await, FILES);
    for table in ["audit_entries WHERE action = 4", "events WHERE kind = 2"] {
        let rows = number(&watch, &format!("SELECT count(*) FROM {table}")).await;
        let files = number(&watch, &format!("SELECT count(DISTINCT file_id) FROM {table}")).await;
        assert_eq!((rows, files), (FILES, FILES), "{table}: each file was deleted once");
    }
    second.stop().await;
    server.kill().await;
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_gives_a_job_back_that_does_not_end_and_serve_alone_does_no_work() {
    let site = site("worker_stopped").await.set("STRONGROOM_SERVER__DRAIN_SECONDS", 0);
    let server = Server::start(site.command(&["serve"])).await;
    let client = site.client(&server, "alice").await;
    let (watch, lock) = (sql(&site).await, sql(&site).await);
    expired_files(&client, &watch, &lock).await;
    let worker = Worker::start(&site).await;
    until("it is in the middle", || async { number(&watch, TRASHED).await == BEFORE }).await;
    let log = worker.stop().await;
    assert!(log.iter().any(|line| line.contains("giving back")), "{log:#?}");

    let (code, jobs) = site.run(&["jobs", "list", "--json"]).await;
    let job = &jobs[0];
    assert_eq!(
        (code, job["state"].as_str(), job["attempts"].as_i64()),
        (Some(0), Some("ready"), Some(0)),
        "{jobs}"
    );
    let id = job["id"].as_str().unwrap();
    let (code, shown) = site.run(&["jobs", "show", id, "--json"]).await;
    assert_eq!((code, &shown["kind"]), (Some(0), &Value::from("delete_expired_files")));
    lock.batch_execute("ROLLBACK").await.unwrap();
    let (code, _) = site.run(&["jobs", "discard", id, "--json"]).await;
    assert_eq!(code, Some(0));
    let again = site.command(&["jobs", "retry", id]).output().await.unwrap();
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(again.status.code() == Some(3) && said.contains("no job"), "{said}");
    assert_eq!(number(&watch, TRASHED).await, BEFORE, "nobody works any more");
    server.kill().await;
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_delivers_to_webhooks_whose_secrets_another_process_sealed() {
    let site = site("worker_webhooks").await.set("STRONGROOM_WEBHOOKS__ALLOW_PRIVATE_ADDRESSES", true);
    let server = Server::start(site.command(&["serve"])).await;
    let receiver = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", receiver.local_addr().unwrap());
    let mut request = tonic::Request::new(CreateWebhookRequest {
        webhook: Some(Webhook { url, ..Webhook::default() }),
        request_id: "0193a7a0-0000-7000-8000-0000000000ab".to_owned(),
    });
    let token = site.identity.token("ada", "acme", "admin");
    let bearer = format!("Bearer {}", token.expose_secret()).parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    let mut webhooks = WebhookServiceClient::connect(server.grpc.clone()).await.unwrap();
    webhooks.create_webhook(request).await.unwrap();
    let spec = UploadSpec { name: "a.txt".to_owned(), ..UploadSpec::default() };
    let client = site.client(&server, "alice").await;
    client.upload(spec, Cursor::new(b"bytes".to_vec()), |_| {}).await.unwrap();

    let worker = Worker::start(&site).await;
    let watch = sql(&site).await;
    let (mut connection, _) =
        tokio::time::timeout(Duration::from_secs(60), receiver.accept()).await.expect("a message").unwrap();
    let mut request = vec![0; 4_096];
    let length = connection.read(&mut request).await.unwrap();
    assert!(String::from_utf8_lossy(&request[..length]).contains("webhook-signature: v1,"));
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    connection.write_all(answer).await.unwrap();
    let behind = "SELECT count(*) FROM webhooks AS w JOIN events AS e USING (tenant_id)
                  WHERE (e.xid, e.n) > (w.position_xid, w.position_n)";
    until("it is written down", || async { number(&watch, behind).await == 0 }).await;
    assert_eq!(number(&watch, "SELECT state FROM webhooks").await, 1, "it is still active");
    worker.stop().await;
    server.kill().await;
    site.close().await;
}
