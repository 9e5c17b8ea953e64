//! The service behind a real Envoy, which sends the requests of all its clients over one connection.

use std::{path::PathBuf, process::Stdio};

use reqwest::Client as HttpClient;
use secrecy::{ExposeSecret as _, SecretString};
use strongroom::proto::v1::{
    GetFileRequest, WatchFilesRequest, event_service_client::EventServiceClient,
    file_service_client::FileServiceClient,
};
use tokio::process::{Child, Command};
use tonic::{Request, transport::Channel};

use crate::{
    server::{Server, Site},
    worker::wait_until,
};

/// The headers of the request: more than the service accepts by default, and less than Envoy accepts here. Envoy
/// accepts no single value of this size.
const HEADERS: [&str; 8] = ["x-a", "x-b", "x-c", "x-d", "x-e", "x-f", "x-g", "x-h"];
const HEADER_BYTES: usize = 10 * 1024;

/// An Envoy in front of one service.
struct Envoy {
    url: String,
    admin: String,
    _process: Child,
    _directory: tempfile::TempDir,
}

impl Envoy {
    /// Starts Envoy with one worker thread, because each worker has connections of its own.
    async fn start(upstream: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("envoy.json");
        std::fs::write(&config, envoy_config(upstream).to_string()).unwrap();
        let admin_file = directory.path().join("admin");
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let mut command = Command::new(find_envoy().await);
        command
            .args(["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warn", "--config-path"])
            .arg(&config)
            .arg("--admin-address-path")
            .arg(&admin_file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        let process = command.spawn().unwrap();
        let mut envoy =
            Self { url: String::new(), admin: String::new(), _process: process, _directory: directory };
        wait_until("Envoy has written its administration address", || async {
            std::fs::read_to_string(&admin_file).is_ok_and(|address| !address.is_empty())
        })
        .await;
        envoy.admin = format!("http://{}", std::fs::read_to_string(&admin_file).unwrap());
        wait_until("Envoy listens", || async { envoy.find_listener().await.is_some() }).await;
        envoy.url = format!("http://{}", envoy.find_listener().await.unwrap());
        envoy
    }

    async fn get(&self, path: &str) -> Option<String> {
        let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = HttpClient::builder().no_proxy().build().unwrap();
        client.get(format!("{}{path}", self.admin)).send().await.ok()?.text().await.ok()
    }

    /// Returns the address of the listener, once it has one. A line is "NAME::ADDRESS".
    async fn find_listener(&self) -> Option<String> {
        let listeners = self.get("/listeners").await?;
        listeners.lines().find_map(|line| Some(line.split_once("::")?.1.trim().to_owned()))
    }

    /// Returns a counter of the connections to the service.
    async fn upstream_counter(&self, name: &str) -> u64 {
        let stats = self.get("/stats?filter=cluster.strongroom.upstream").await.unwrap();
        let prefix = format!("cluster.strongroom.{name}: ");
        let value = stats.lines().find_map(|line| line.strip_prefix(&prefix));
        value.unwrap_or_else(|| panic!("no counter {name} in {stats}")).parse().unwrap()
    }

    async fn connect(&self) -> Channel {
        Channel::from_shared(self.url.clone()).unwrap().connect().await.unwrap()
    }
}

async fn find_envoy() -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/setup/envoy");
    let output = Command::new(script).stderr(Stdio::inherit()).output().await.unwrap();
    assert!(output.status.success(), "{script} failed");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// Returns a configuration that forwards everything to the service at this URL.
fn envoy_config(upstream: &str) -> serde_json::Value {
    let (host, port) = upstream.strip_prefix("http://").unwrap().rsplit_once(':').unwrap();
    let address = |host: &str, port: u16| serde_json::json!({ "socket_address": { "address": host, "port_value": port } });
    let manager = serde_json::json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "grpc",
        "codec_type": "HTTP2",
        "max_request_headers_kb": 128,
        "stream_idle_timeout": "0s",
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
        }],
        "route_config": { "virtual_hosts": [{
            "name": "all", "domains": ["*"],
            "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "strongroom", "timeout": "0s" } }],
        }] },
    });
    let http2 = serde_json::json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": { "http2_protocol_options": {} },
    });
    serde_json::json!({
        "admin": { "address": address("127.0.0.1", 0) },
        "static_resources": {
            "listeners": [{
                "name": "grpc", "address": address("127.0.0.1", 0),
                "filter_chains": [{ "filters": [
                    { "name": "envoy.filters.network.http_connection_manager", "typed_config": manager },
                ] }],
            }],
            "clusters": [{
                "name": "strongroom", "type": "STATIC", "connect_timeout": "5s",
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2,
                },
                "load_assignment": { "cluster_name": "strongroom", "endpoints": [{ "lb_endpoints": [
                    { "endpoint": { "address": address(host, port.parse().unwrap()) } },
                ] }] },
            }],
        },
    })
}

fn authorized<M>(message: M, token: &SecretString) -> Request<M> {
    let mut request = Request::new(message);
    let credentials = format!("Bearer {}", token.expose_secret());
    request.metadata_mut().insert("authorization", credentials.parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn large_headers_do_not_end_the_streams_of_other_callers() {
    let site = Site::new("envoy_headers").await;
    let server = Server::start(site.command(&["serve"])).await;
    let envoy = Envoy::start(&server.grpc).await;
    let alice = site.identity.token("alice", "acme", "member");
    let mallory = site.identity.token("mallory", "acme", "member");
    let mut watches = EventServiceClient::new(envoy.connect().await);
    let request = authorized(WatchFilesRequest::default(), &alice);
    let mut events = watches.watch_files(request).await.unwrap().into_inner();
    events.message().await.unwrap().expect("the watch begins with a position");

    let mut files = FileServiceClient::new(envoy.connect().await);
    for _ in 0..3 {
        let file_id = "01890a5d-ac96-774b-bcce-b302099a8057".to_owned();
        let mut request = authorized(GetFileRequest { file_id }, &mallory);
        for name in HEADERS {
            request.metadata_mut().insert(name, "x".repeat(HEADER_BYTES).parse().unwrap());
        }
        let status = files.get_file(request).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status:?}");
    }

    let message = events.message().await.expect("the watch of another caller has ended");
    assert!(message.is_some());
    assert_eq!(envoy.upstream_counter("upstream_cx_total").await, 1);
    assert_eq!(envoy.upstream_counter("upstream_cx_close_notify").await, 0);
    server.kill().await;
    site.close().await;
}
