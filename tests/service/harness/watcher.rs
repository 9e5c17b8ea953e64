//! Reads the messages of `WatchFiles`.

use strongroom::proto::v1::{
    FileEvent, FileEventKind, WatchFilesRequest, WatchFilesResponse, WatchHeartbeat,
    watch_files_response::Message,
};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::{Caller, WAIT_MAX};

/// An open watch.
pub(crate) struct Watcher {
    stream: Streaming<WatchFilesResponse>,
    /// The cursor of the last message.
    pub(crate) cursor: String,
}

impl Caller {
    /// Starts a watch at the current position and reads the first heartbeat.
    pub(crate) async fn watch_files(&self) -> Watcher {
        self.watch_files_with(WatchFilesRequest::default()).await.unwrap()
    }

    /// Starts a watch after a cursor and reads the first heartbeat.
    pub(crate) async fn watch_files_after(&self, cursor: &str) -> Result<Watcher, Status> {
        self.watch_files_with(WatchFilesRequest { cursor: cursor.to_owned(), filter: None }).await
    }

    pub(crate) async fn watch_files_with(&self, request: WatchFilesRequest) -> Result<Watcher, Status> {
        let stream = self.events.clone().watch_files(request).await?.into_inner();
        let mut watcher = Watcher { stream, cursor: String::new() };
        match watcher.next_message().await? {
            Message::Heartbeat(_) => Ok(watcher),
            Message::Event(event) => panic!("first message is not a heartbeat: {event:?}"),
        }
    }
}

impl Watcher {
    pub(crate) async fn next_message(&mut self) -> Result<Message, Status> {
        let message = self.stream.message().await?.expect("watch ended without a status");
        assert_ne!(message.cursor, "", "every message has a cursor");
        self.cursor = message.cursor;
        Ok(message.message.unwrap())
    }

    /// Returns the next event, skipping heartbeats.
    pub(crate) async fn next_event(&mut self) -> FileEvent {
        let received = async {
            loop {
                if let Message::Event(event) = self.next_message().await.unwrap() {
                    return event;
                }
            }
        };
        timeout(WAIT_MAX, received).await.unwrap_or_else(|_| panic!("no event within {WAIT_MAX:?}"))
    }

    /// Returns the next message. Panics if it is not a heartbeat.
    pub(crate) async fn next_heartbeat(&mut self) -> WatchHeartbeat {
        match self.next_message().await.unwrap() {
            Message::Heartbeat(heartbeat) => heartbeat,
            Message::Event(event) => panic!("unexpected event: {event:?}"),
        }
    }

    pub(crate) async fn next_kind_and_file(&mut self) -> (FileEventKind, String) {
        let event = self.next_event().await;
        (event.kind(), event.file_id)
    }

    /// Waits for the end of the watch and returns its status. Panics if an event arrives first.
    pub(crate) async fn wait_for_end(&mut self) -> Status {
        let ended = async {
            loop {
                match self.next_message().await {
                    Ok(Message::Heartbeat(_)) => {}
                    Ok(Message::Event(event)) => panic!("unexpected event: {event:?}"),
                    Err(status) => return status,
                }
            }
        };
        timeout(WAIT_MAX, ended).await.unwrap_or_else(|_| panic!("the watch did not end within {WAIT_MAX:?}"))
    }
}
