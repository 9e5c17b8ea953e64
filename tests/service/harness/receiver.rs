//! An endpoint that receives webhook messages.

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

#[derive(Debug, Clone)]
pub(crate) struct ReceivedMessage {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// The status and a header of a response.
type QueuedResponse = (u16, &'static str, String);

#[derive(Clone, Default)]
struct Shared {
    messages: Arc<Mutex<Vec<ReceivedMessage>>>,
    /// The next responses, in order.
    queued_responses: Arc<Mutex<VecDeque<QueuedResponse>>>,
    gate: Arc<RwLock<()>>,
}

/// A running endpoint, which stops when it is dropped.
pub(crate) struct Receiver {
    pub(crate) url: String,
    shared: Shared,
    server: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn receive(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, [(&'static str, String); 1]) {
    shared.messages.lock().unwrap().push(ReceivedMessage { headers, body });
    drop(shared.gate.read().await);
    let queued = shared.queued_responses.lock().unwrap().pop_front();
    let (status, header, value) = queued.unwrap_or((200, "location", String::new()));
    (StatusCode::from_u16(status).unwrap(), [(header, value)])
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        // As in `main`. The call fails only if a provider is already installed.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let shared = Shared::default();
        let router = Router::new().fallback(receive).with_state(shared.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, shared, server }
    }

    /// Sets the statuses of the next responses. All later ones have status 200.
    pub(crate) fn respond_with(&self, statuses: &[u16]) {
        self.shared
            .queued_responses
            .lock()
            .unwrap()
            .extend(statuses.iter().map(|status| (*status, "location", String::new())));
    }

    /// Answers the next message with this status and `Retry-After`.
    pub(crate) fn retry_next_after(&self, status: u16, retry_after: &str) {
        self.shared.queued_responses.lock().unwrap().push_back((
            status,
            "retry-after",
            retry_after.to_owned(),
        ));
    }

    /// Delays all responses until the guard is dropped.
    pub(crate) async fn hold_responses(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.shared.gate).write_owned().await
    }

    /// Redirects the next message to another URL.
    pub(crate) fn redirect_next_to(&self, url: &str) {
        self.shared.queued_responses.lock().unwrap().push_back((307, "location", url.to_owned()));
    }

    pub(crate) fn messages(&self) -> Vec<ReceivedMessage> {
        self.shared.messages.lock().unwrap().clone()
    }

    /// Returns the file ids of the messages in the order of arrival.
    pub(crate) fn received_file_ids(&self) -> Vec<String> {
        let file_id =
            |message: &ReceivedMessage| message.json()["data"]["file_id"].as_str().unwrap().to_owned();
        self.messages().iter().map(file_id).collect()
    }
}

impl ReceivedMessage {
    pub(crate) fn header(&self, name: &str) -> String {
        self.headers[name].to_str().unwrap().to_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Returns whether one of the signatures was made with this secret.
    pub(crate) fn is_signed_with(&self, secret: &str) -> bool {
        let timestamp = self.header("webhook-timestamp").parse().unwrap();
        let secret = WebhookSecret::from_text(secret.to_owned());
        let expected = secret.sign(&self.header("webhook-id"), timestamp, &self.body).unwrap();
        self.header("webhook-signature").split(' ').any(|signature| signature == expected)
    }
}
