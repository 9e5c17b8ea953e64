//! An endpoint that webhooks are sent to.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use serde_json::Value;
use strongroom::crypto::webhook_secret::WebhookSecret;
use tokio::{
    net::TcpListener,
    sync::{OwnedRwLockWriteGuard, RwLock},
    task::JoinHandle,
};

/// What came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

#[derive(Clone, Default)]
struct Shared {
    received: Arc<Mutex<Vec<Received>>>,
    script: Arc<Mutex<VecDeque<(u16, String)>>>,
    gate: Arc<RwLock<()>>,
}

/// A running endpoint; it ends with the test.
pub(crate) struct Receiver {
    pub(crate) url: String,
    shared: Shared,
    serving: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn take(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, [(&'static str, String); 1]) {
    shared.received.lock().unwrap().push(Received { headers, body });
    drop(shared.gate.read().await);
    let (status, location) = shared.script.lock().unwrap().pop_front().unwrap_or((200, String::new()));
    (StatusCode::from_u16(status).unwrap(), [("location", location)])
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        // As `main` does; it fails only where one is installed already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let shared = Shared::default();
        let router = Router::new().fallback(take).with_state(shared.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, shared, serving }
    }

    /// The next messages are answered with these; all others with 200.
    pub(crate) fn answer(&self, statuses: &[u16]) {
        self.shared.script.lock().unwrap().extend(statuses.iter().map(|status| (*status, String::new())));
    }

    /// No message is answered before the guard is dropped.
    pub(crate) async fn hold(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.shared.gate).write_owned().await
    }

    /// The next message is sent elsewhere.
    pub(crate) fn redirect_to(&self, url: &str) {
        self.shared.script.lock().unwrap().push_back((307, url.to_owned()));
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    /// The files of the messages, in the order in which they came.
    pub(crate) fn files(&self) -> Vec<String> {
        let file = |received: &Received| received.json()["data"]["file_id"].as_str().unwrap().to_owned();
        self.received().iter().map(file).collect()
    }
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> String {
        self.headers[name].to_str().unwrap().to_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Whether one of its signatures was made with this secret.
    pub(crate) fn is_signed_with(&self, secret: &str) -> bool {
        let timestamp = self.header("webhook-timestamp").parse().unwrap();
        let secret = WebhookSecret::from_text(secret.to_owned());
        let expected = secret.sign(&self.header("webhook-id"), timestamp, &self.body).unwrap();
        self.header("webhook-signature").split(' ').any(|signature| signature == expected)
    }
}
