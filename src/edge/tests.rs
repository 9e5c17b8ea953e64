//! Tests of the HTTP server over real connections.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

use super::*;
use crate::{config::Config, telemetry::health::Component};

struct TestServer {
    address: SocketAddr,
    state: EdgeState,
    stop: oneshot::Sender<()>,
    served: JoinHandle<io::Result<()>>,
}

impl TestServer {
    async fn start(change: impl FnOnce(&mut EdgeConfig)) -> Self {
        let mut config = Config::defaults().unwrap().edge;
        change(&mut config);
        let state = EdgeState { health: Health::new(), metrics: Metrics::for_tests().unwrap() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served_state = state.clone();
        let served = tokio::spawn(async move {
            let shutdown = async { stopped.await.unwrap_or_default() };
            serve(listener, &config, served_state, shutdown).await
        });
        Self { address, state, stop, served }
    }

    /// Sends a request and reads until the connection is closed.
    async fn send(&self, text: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    async fn get(&self, path: &str) -> String {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: edge\r\nconnection: close\r\n\r\n")).await
    }
}

#[tokio::test]
async fn readiness_depends_on_components_but_liveness_does_not() {
    let server = TestServer::start(|_| {}).await;
    server.state.health.mark_up(Component::Database);
    server.state.health.mark_up(Component::Storage);
    server.state.health.mark_degraded(Component::StoreOwner, "reads only");
    let ready = server.get("/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains(r#""ready":true"#), "{ready}");
    assert!(ready.contains(r#""store_owner":{"reason":"reads only","state":"degraded"}"#), "{ready}");

    server.state.health.mark_down(Component::Storage, "the directory cannot be written");
    let unready = server.get("/readyz").await;
    assert!(unready.starts_with("HTTP/1.1 503"), "{unready}");
    assert!(
        unready.contains(r#""storage":{"reason":"the directory cannot be written","state":"down"}"#),
        "{unready}"
    );
    assert!(unready.contains(r#""database":{"state":"up"}"#), "{unready}");
    assert!(server.get("/livez").await.starts_with("HTTP/1.1 200"));

    server.state.health.mark_up(Component::Storage);
    server.state.health.start_draining();
    let draining = server.get("/readyz").await;
    assert!(draining.starts_with("HTTP/1.1 503") && draining.contains(r#""draining":true"#), "{draining}");
}

#[tokio::test]
async fn scrape_contains_a_counted_request() {
    let server = TestServer::start(|_| {}).await;
    server.state.metrics.start_request("strongroom.v1.FileService/GetFile").set_code("OK");
    let scrape = server.get("/metrics").await;
    assert!(scrape.starts_with("HTTP/1.1 200"), "{scrape}");
    let line = r#"strongroom_requests_total{code="OK",method="strongroom.v1.FileService/GetFile"} 1"#;
    assert!(scrape.contains(line), "{scrape}");
}

#[tokio::test]
async fn rejects_unknown_paths_and_request_bodies() {
    let server = TestServer::start(|_| {}).await;
    assert!(server.get("/metrics/").await.starts_with("HTTP/1.1 404"));
    let announced = "GET /livez HTTP/1.1\r\nhost: edge\r\ncontent-length: 1000000\r\n\r\n";
    assert!(server.send(announced).await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn incomplete_request_is_closed_after_its_time() {
    for (header_read, idle) in [(1, 300), (300, 1)] {
        let change = |config: &mut EdgeConfig| {
            (config.header_read_seconds, config.idle_timeout_seconds) = (header_read, idle);
        };
        let server = TestServer::start(change).await;
        // The server closes the connection; this client never does. The other limit is reached later.
        let closed = timeout(Duration::from_secs(60), server.send("GET /livez HTTP/1.1\r\nhost: ed"));
        assert_eq!(closed.await.expect("closed after its time"), "");
    }
}

#[tokio::test]
async fn half_sent_requests_do_not_stop_probes() {
    let server = TestServer::start(|_| {}).await;
    let mut half_sent = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: ed").await.unwrap();
        half_sent.push(stream);
    }
    for path in ["/livez", "/metrics"] {
        assert!(server.get(path).await.starts_with("HTTP/1.1 200"), "{path}");
    }
}

#[tokio::test]
async fn shutdown_closes_the_port() {
    let server = TestServer::start(|_| {}).await;
    assert!(server.get("/livez").await.starts_with("HTTP/1.1 200"));
    server.stop.send(()).unwrap();
    server.served.await.unwrap().unwrap();
}
