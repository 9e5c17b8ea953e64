//! The port over real connections.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
};

use super::*;
use crate::{config::Config, telemetry::health::Component};

struct Port {
    address: SocketAddr,
    state: EdgeState,
    stop: oneshot::Sender<()>,
    served: JoinHandle<io::Result<()>>,
}

impl Port {
    async fn open(change: impl FnOnce(&mut EdgeConfig)) -> Self {
        let mut config = Config::defaults().unwrap().edge;
        change(&mut config);
        let state = EdgeState { health: Health::new(), metrics: Metrics::for_tests().unwrap() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shown = state.clone();
        let served = tokio::spawn(async move {
            let shutdown = async { stopped.await.unwrap_or_default() };
            serve(listener, &config, shown, shutdown).await
        });
        Self { address, state, stop, served }
    }

    /// Sends this and reads until the connection is closed.
    async fn send(&self, text: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn get(&self, path: &str) -> String {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: edge\r\nconnection: close\r\n\r\n")).await
    }
}

#[tokio::test]
async fn readiness_is_lost_when_a_component_goes_down_and_liveness_is_not() {
    let port = Port::open(|_| {}).await;
    port.state.health.set_up(Component::Database);
    port.state.health.set_up(Component::Storage);
    let ready = port.get("/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains(r#""ready":true"#), "{ready}");

    port.state.health.set_down(Component::Storage, "the directory cannot be written");
    let unready = port.get("/readyz").await;
    assert!(unready.starts_with("HTTP/1.1 503"), "{unready}");
    assert!(
        unready.contains(r#""storage":{"state":"down","why":"the directory cannot be written"}"#),
        "{unready}"
    );
    assert!(unready.contains(r#""database":{"state":"up"}"#), "{unready}");
    assert!(port.get("/livez").await.starts_with("HTTP/1.1 200"));

    port.state.health.set_up(Component::Storage);
    port.state.health.drain();
    let draining = port.get("/readyz").await;
    assert!(draining.starts_with("HTTP/1.1 503") && draining.contains(r#""draining":true"#), "{draining}");
}

#[tokio::test]
async fn a_scrape_shows_a_counted_request() {
    let port = Port::open(|_| {}).await;
    port.state.metrics.request("strongroom.v1.FileService/GetFile").set_code("OK");
    let scrape = port.get("/metrics").await;
    assert!(scrape.starts_with("HTTP/1.1 200"), "{scrape}");
    let line = r#"strongroom_requests_total{code="OK",method="strongroom.v1.FileService/GetFile"} 1"#;
    assert!(scrape.contains(line), "{scrape}");
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_a_body_is_not_read() {
    let port = Port::open(|_| {}).await;
    assert!(port.get("/metrics/").await.starts_with("HTTP/1.1 404"));
    let announced = "GET /livez HTTP/1.1\r\nhost: edge\r\ncontent-length: 1000000\r\n\r\n";
    assert!(port.send(announced).await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_off() {
    let port = Port::open(|config| config.idle_timeout_seconds = 1).await;
    // It ends because the server closes the connection: this client never does.
    assert_eq!(port.send("GET /livez HTTP/1.1\r\nhost: ed").await, "");
}

#[tokio::test]
async fn the_port_closes_when_it_is_told_to() {
    let port = Port::open(|_| {}).await;
    assert!(port.get("/livez").await.starts_with("HTTP/1.1 200"));
    port.stop.send(()).unwrap();
    port.served.await.unwrap().unwrap();
}
