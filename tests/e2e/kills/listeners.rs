//! Listens to the changes of all files: a watch that resumes after each kill, and an endpoint of a webhook.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{Router, extract::State};
use futures::StreamExt;
use serde_json::Value;
use strongroom::proto::v1::{
    CreateWebhookRequest, FileEvent, FileEventKind, WatchFilesRequest, Webhook, watch_files_response::Message,
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use super::{caller::Caller, journal::Journal, load::next_request_id};

/// The events that a listener has received, by position.
#[derive(Default)]
pub(super) struct Heard {
    events: Mutex<BTreeMap<String, HeardEvent>>,
}

/// An event as a listener received it. A webhook message has the kind as text, which is not compared.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HeardEvent {
    file_id: String,
    kind: Option<FileEventKind>,
}

impl Heard {
    pub(super) fn count(&self) -> usize {
        self.events.lock().unwrap().len()
    }

    /// Returns the position and file of each event, in order of position.
    pub(super) fn positions(&self) -> Vec<(String, String)> {
        let events = self.events.lock().unwrap();
        events.iter().map(|(position, event)| (position.clone(), event.file_id.clone())).collect()
    }

    /// Returns the kinds of the events of each file, in order of position.
    pub(super) fn kinds_by_file(&self) -> BTreeMap<String, Vec<FileEventKind>> {
        let mut files: BTreeMap<String, Vec<FileEventKind>> = BTreeMap::new();
        for event in self.events.lock().unwrap().values() {
            files.entry(event.file_id.clone()).or_default().extend(event.kind);
        }
        files
    }

    /// Records an event. Returns how it relates to those before it.
    fn record(&self, position: String, event: HeardEvent) -> Receipt {
        let mut events = self.events.lock().unwrap();
        if let Some(former) = events.get(&position) {
            return if *former == event { Receipt::Repeated } else { Receipt::Changed };
        }
        let is_in_order = events.last_key_value().is_none_or(|(last, _)| *last < position);
        events.insert(position, event);
        if is_in_order { Receipt::New } else { Receipt::OutOfOrder }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Receipt {
    New,
    /// The same event was received before.
    Repeated,
    /// Another event was received before at this position.
    Changed,
    OutOfOrder,
}

/// Starts a watch of all files, and waits until it is open.
pub(super) async fn start_watch(caller: Caller, tasks: &mut JoinSet<()>) -> Arc<Heard> {
    let heard = Arc::new(Heard::default());
    let (cursor, mut opened) = watch::channel(String::new());
    tasks.spawn(run_watch(caller, heard.clone(), cursor));
    opened.wait_for(|cursor| !cursor.is_empty()).await.unwrap();
    heard
}

/// Watches without end. After each failure, resumes after the last message, on any service.
async fn run_watch(mut caller: Caller, heard: Arc<Heard>, cursor: watch::Sender<String>) {
    loop {
        let client = caller.client().await;
        let request = WatchFilesRequest { cursor: cursor.borrow().clone(), filter: None };
        let mut messages = std::pin::pin!(client.watch_files(request));
        while let Some(message) = messages.next().await {
            match message {
                Ok(message) => {
                    if let Some(Message::Event(event)) = message.message {
                        record_watched(&caller.journal, &heard, event);
                    }
                    cursor.send_replace(message.cursor);
                }
                // The stream ends after an error.
                Err(error) => caller.note_failure("watch", &error),
            }
        }
        tokio::task::yield_now().await;
    }
}

/// A watch neither repeats nor skips an event, also across its resumptions.
fn record_watched(journal: &Journal, heard: &Heard, event: FileEvent) {
    let recorded = HeardEvent { file_id: event.file_id.clone(), kind: Some(event.kind()) };
    let receipt = heard.record(event.position.clone(), recorded);
    if receipt != Receipt::New {
        journal.report_other(format!("the watch received an event {receipt:?}: {event:?}"));
    }
}

/// Starts an endpoint that accepts every message, and creates a webhook for it.
pub(super) async fn start_webhook(caller: &mut Caller, tasks: &mut JoinSet<()>) -> Arc<Heard> {
    let heard = Arc::new(Heard::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let router = Router::new().fallback(receive).with_state((heard.clone(), caller.journal.clone()));
    tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
    let webhook = Webhook { url, ..Webhook::default() };
    let request = CreateWebhookRequest { webhook: Some(webhook), request_id: next_request_id() };
    let created = caller.repeat("create webhook", |client| {
        let request = request.clone();
        async move { client.create_webhook(request).await }
    });
    created.await.or_abandoned("create webhook").unwrap();
    heard
}

/// Records a message. It may be repeated; new ones arrive in the order of their positions.
async fn receive(State((heard, journal)): State<(Arc<Heard>, Arc<Journal>)>, body: bytes::Bytes) {
    let message: Value = serde_json::from_slice(&body).unwrap();
    let text = |name: &str| message["data"][name].as_str().unwrap().to_owned();
    let receipt = heard.record(text("position"), HeardEvent { file_id: text("file_id"), kind: None });
    match receipt {
        Receipt::New | Receipt::Repeated => {}
        Receipt::Changed | Receipt::OutOfOrder => {
            journal.report_other(format!("the endpoint received a message {receipt:?}: {message}"));
        }
    }
}
