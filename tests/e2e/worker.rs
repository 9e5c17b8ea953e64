//! `strongroom worker` as a separate process: kills during a job, shutdown, and the `strongroom jobs`
//! commands.

use std::{future::Future, io::Cursor, process::Stdio, time::Duration};

use secrecy::ExposeSecret as _;
use serde_json::Value;
use strongroom::{
    client::Client,
    db::migrate::replace_state_names,
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

/// The number of files that the job deletes.
const FILES: i64 = 12;
/// The number of files that it deletes before it blocks on a locked row.
const FILES_BEFORE_LOCK: i64 = 4;

/// The lease duration of jobs. It is a multiple of the heartbeat interval, so that a worker on a busy machine
/// does not lose its job.
const LEASE_SECONDS: i64 = 10;

/// Creates a site whose workers poll often and have short leases.
async fn create_site(name: &str) -> Site {
    Site::new(name)
        .await
        // Jobs wait for a locked row until the test has seen what it waits for.
        .set("STRONGROOM_DATABASE__STATEMENT_TIMEOUT_SECONDS", 600)
        .set("STRONGROOM_WORKER__LEASE_SECONDS", LEASE_SECONDS)
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
    /// Starts a worker and waits until it polls for jobs.
    pub(crate) async fn start(site: &Site) -> Self {
        Self::start_command(site.command(&["worker"])).await
    }

    /// Starts a worker with this command and waits until it polls for jobs.
    pub(crate) async fn start_command(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut log = Vec::new();
        loop {
            let line = lines.next_line().await.unwrap();
            log.push(line.unwrap_or_else(|| panic!("the worker exited before it was ready: {log:#?}")));
            if log.last().is_some_and(|line| line.contains("\"worker started\"")) {
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

    /// Kills the process with SIGKILL.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Sends SIGTERM, waits for a successful exit, and returns the log.
    pub(crate) async fn stop(mut self) -> Vec<String> {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        let status = self.child.wait().await.unwrap();
        let log = self.log.await.unwrap();
        assert!(status.success(), "{status}: {log:#?}");
        log
    }
}

pub(crate) async fn connect_database(site: &Site) -> Sql {
    let (client, connection) = tokio_postgres::connect(&site.database.superuser_url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Returns up to 20 rows of a table or subquery, as JSON. The query names states like the migrations.
pub(crate) async fn query_json(sql: &Sql, rows: &str) -> String {
    let query = format!(
        "SELECT jsonb_pretty(jsonb_agg(to_jsonb(r)))::text FROM (SELECT * FROM {rows} LIMIT 20) AS r"
    );
    let found: Option<String> =
        sql.query_one(&replace_state_names(&query).unwrap(), &[]).await.unwrap().get(0);
    found.unwrap_or_default()
}

/// Returns the number that a query selects. The query names states like the migrations.
pub(crate) async fn query_number(sql: &Sql, query: &str) -> i64 {
    let query = replace_state_names(&format!("SELECT ({query})::bigint")).unwrap();
    sql.query_one(&query, &[]).await.unwrap().get(0)
}

/// Polls `condition` until it is true, for at most 120 seconds.
pub(crate) async fn wait_until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    assert!(is_reached(condition).await, "timed out waiting until {what}");
}

/// Polls `condition` until it is true, for at most 120 seconds. Returns whether it became true.
pub(crate) async fn is_reached<F: Future<Output = bool>>(condition: impl Fn() -> F) -> bool {
    let polled = async { while !condition().await {} };
    tokio::time::timeout(Duration::from_secs(120), polled).await.is_ok()
}

/// Creates expired files and locks the row of one, so that the job that deletes them blocks there.
async fn create_expired_files(client: &Client, database: &Sql, lock: &Sql) {
    for n in 0..FILES {
        let spec = UploadSpec { name: format!("{n}.txt"), ..UploadSpec::default() };
        client.upload_reader(spec, Cursor::new(b"bytes".to_vec()), |_| {}).await.unwrap();
    }
    let locked = format!("BEGIN; SELECT FROM files WHERE name = '{FILES_BEFORE_LOCK}.txt' FOR UPDATE");
    database
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
async fn job_of_killed_worker_is_completed_by_another() {
    let site = create_site("worker_killed").await;
    let server = Server::start(site.command(&["serve"])).await;
    let client = site.client(&server, "alice").await;
    let (database, lock) = (connect_database(&site).await, connect_database(&site).await);
    create_expired_files(&client, &database, &lock).await;

    let first = Worker::start(&site).await;
    wait_until("the job is blocked", || async {
        query_number(&database, TRASHED).await == FILES_BEFORE_LOCK
    })
    .await;
    let second = Worker::start(&site).await;
    // Heartbeats extend the lease of the first worker beyond its duration, although the second one polls for
    // jobs.
    let lease =
        "SELECT extract(epoch FROM lease_expire_time) * 1000 FROM jobs WHERE state = {job_state.running}";
    let lease_start = query_number(&database, lease).await;
    wait_until("heartbeats extend the lease", || async {
        query_number(&database, lease).await > lease_start + LEASE_SECONDS * 1_000
    })
    .await;
    assert_eq!(
        query_number(&database, "SELECT attempts FROM jobs WHERE state = {job_state.running}").await,
        1
    );

    first.kill().await;
    wait_until("the second worker has claimed the job", || async {
        query_number(
            &database,
            "SELECT coalesce(max(attempts), 0) FROM jobs WHERE state = {job_state.running}",
        )
        .await
            == 2
    })
    .await;
    lock.batch_execute("ROLLBACK").await.unwrap();
    // A tick may have enqueued the job again in the meantime. It then runs again and finds nothing to do.
    wait_until("the job is done", || async {
        query_number(&database, "SELECT count(*) FROM jobs").await == 0
    })
    .await;

    assert_eq!(query_number(&database, TRASHED).await, FILES);
    for table in [
        "audit_entries WHERE action = {audit_action.file_delete}",
        "events WHERE kind = {event_kind.file_deleted}",
    ] {
        let rows = query_number(&database, &format!("SELECT count(*) FROM {table}")).await;
        let files = query_number(&database, &format!("SELECT count(DISTINCT file_id) FROM {table}")).await;
        assert_eq!((rows, files), (FILES, FILES), "{table}: each file must be deleted once");
    }
    second.stop().await;
    server.kill().await;
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_releases_blocked_job_and_serve_runs_no_jobs() {
    let site = create_site("worker_stopped").await.set("STRONGROOM_SERVER__DRAIN_SECONDS", 0);
    let server = Server::start(site.command(&["serve"])).await;
    let client = site.client(&server, "alice").await;
    let (database, lock) = (connect_database(&site).await, connect_database(&site).await);
    create_expired_files(&client, &database, &lock).await;
    let worker = Worker::start(&site).await;
    wait_until("the job is blocked", || async {
        query_number(&database, TRASHED).await == FILES_BEFORE_LOCK
    })
    .await;
    let log = worker.stop().await;
    assert!(log.iter().any(|line| line.contains("releasing jobs")), "{log:#?}");

    let (code, jobs) = site.run_json(&["jobs", "list", "--json"]).await;
    let job = &jobs[0];
    assert_eq!(
        (code, job["state"].as_str(), job["attempts"].as_i64()),
        (Some(0), Some("ready"), Some(0)),
        "{jobs}"
    );
    let id = job["id"].as_str().unwrap();
    let (code, shown) = site.run_json(&["jobs", "show", id, "--json"]).await;
    assert_eq!((code, &shown["kind"]), (Some(0), &Value::from("delete_expired_files")));
    lock.batch_execute("ROLLBACK").await.unwrap();
    let (code, _) = site.run_json(&["jobs", "discard", id, "--json"]).await;
    assert_eq!(code, Some(0));
    let retried = site.command(&["jobs", "retry", id]).output().await.unwrap();
    let error = String::from_utf8_lossy(&retried.stderr);
    assert!(retried.status.code() == Some(3) && error.contains("is not queued"), "{error}");
    assert_eq!(query_number(&database, TRASHED).await, FILES_BEFORE_LOCK, "no worker is running");

    retry_all_parked_jobs(&site, &database).await;
    for usage in
        [&["jobs", "retry"][..], &["jobs", "retry", id, "--all"], &["jobs", "retry", id, "--dry-run"]]
    {
        assert_eq!(site.command(usage).output().await.unwrap().status.code(), Some(2), "{usage:?}");
    }
    server.kill().await;
    site.close().await;
}

/// Parks a job, and retries it with the command for all parked jobs.
async fn retry_all_parked_jobs(site: &Site, database: &Sql) {
    let parked = "INSERT INTO jobs (tenant_id, id, payload, state, run_time, enqueue_time)
                  SELECT id, gen_random_uuid(), '{\"kind\": \"delete_expired_files\"}', {job_state.parked}, now(), now()
                  FROM tenants LIMIT 1";
    database.batch_execute(&replace_state_names(parked).unwrap()).await.unwrap();
    for (arguments, retried, ready) in [
        (&["--kind", "verify_upload"][..], 0, 0),
        (&["--dry-run"][..], 1, 0),
        (&[][..], 1, 1),
        (&[][..], 0, 1),
    ] {
        let command = [&["jobs", "retry", "--all", "--json"][..], arguments].concat();
        let (code, report) = site.run_json(&command).await;
        let count = report["retried"].as_array().unwrap().len();
        assert_eq!((code, count), (Some(0), retried), "{arguments:?}: {report}");
        let query = "SELECT count(*) FROM jobs WHERE state = {job_state.ready}";
        assert_eq!(query_number(database, query).await, ready);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_delivers_webhooks_created_through_server() {
    let site = create_site("worker_webhooks").await.set("STRONGROOM_WEBHOOKS__ALLOW_PRIVATE_ADDRESSES", true);
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
    client.upload_reader(spec, Cursor::new(b"bytes".to_vec()), |_| {}).await.unwrap();

    let worker = Worker::start(&site).await;
    let database = connect_database(&site).await;
    let (mut connection, _) = tokio::time::timeout(Duration::from_secs(60), receiver.accept())
        .await
        .expect("no webhook request")
        .unwrap();
    let mut request = vec![0; 4_096];
    let length = connection.read(&mut request).await.unwrap();
    assert!(String::from_utf8_lossy(&request[..length]).contains("webhook-signature: v1,"));
    let response = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    connection.write_all(response).await.unwrap();
    let undelivered = "SELECT count(*) FROM webhooks AS w JOIN events AS e USING (tenant_id)
                  WHERE (e.epoch, e.xid, e.n) > (w.position_epoch, w.position_xid, w.position_n)";
    wait_until("the delivery is recorded", || async { query_number(&database, undelivered).await == 0 })
        .await;
    assert_eq!(
        query_number(&database, "SELECT state FROM webhooks").await,
        1,
        "the webhook must stay active"
    );
    worker.stop().await;
    server.kill().await;
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn server_without_worker_creates_partitions() {
    const PARTITIONS: &str = "SELECT count(*) FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'events'::regclass AND c.relname ~ '_[0-9]+$'";
    const DROP: &str = "DO $$ DECLARE name text; BEGIN
        FOR name IN SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
            WHERE i.inhparent = 'events'::regclass AND c.relname ~ '_[0-9]+$'
        LOOP EXECUTE format('DROP TABLE %I', name); END LOOP; END $$";
    let site = Site::new("partitions").await;
    let database = connect_database(&site).await;
    database.batch_execute(DROP).await.unwrap();
    assert_eq!(query_number(&database, PARTITIONS).await, 0);
    let server = Server::start(site.command(&["serve"])).await;
    wait_until("the partitions of this month and the next one exist", || async {
        query_number(&database, PARTITIONS).await == 2
    })
    .await;
    server.kill().await;
    site.close().await;
}
