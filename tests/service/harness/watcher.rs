//! A watch, as a test reads it.

use std::time::Duration;

use strongroom::proto::v1::{
    FileEvent, FileEventKind, WatchFilesRequest, WatchFilesResponse, WatchHeartbeat,
    watch_files_response::Message,
};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::Caller;

/// A test that waits for what never comes fails in the end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A watch that has begun.
pub(crate) struct Watcher {
    stream: Streaming<WatchFilesResponse>,
    /// Behind the last message.
    pub(crate) cursor: String,
}

impl Caller {
    /// Begins to watch from now on, and takes the first heartbeat.
    pub(crate) async fn watch(&self) -> Watcher {
        self.watch_with(WatchFilesRequest::default()).await.unwrap()
    }

    /// Begins to watch behind a cursor, and takes the first heartbeat.
    pub(crate) async fn watch_from(&self, cursor: &str) -> Result<Watcher, Status> {
        self.watch_with(WatchFilesRequest { cursor: cursor.to_owned(), filter: None }).await
    }

    pub(crate) async fn watch_with(&self, request: WatchFilesRequest) -> Result<Watcher, Status> {
        let stream = self.events.clone().watch_files(request).await?.into_inner();
        let mut watcher = Watcher { stream, cursor: String::new() };
        match watcher.next().await? {
            Message::Heartbeat(_) => Ok(watcher),
            Message::Event(event) => panic!("the first message is no heartbeat: {event:?}"),
        }
    }
}

impl Watcher {
    pub(crate) async fn next(&mut self) -> Result<Message, Status> {
        let message = self.stream.message().await?.expect("a watch never ends without a word");
        assert_ne!(message.cursor, "", "every message has a cursor");
        self.cursor = message.cursor;
        Ok(message.message.unwrap())
    }

    /// The next event, past heartbeats.
    pub(crate) async fn event(&mut self) -> FileEvent {
        let heard = async {
            loop {
                if let Message::Event(event) = self.next().await.unwrap() {
                    return event;
                }
            }
        };
        timeout(PATIENCE, heard).await.expect("no event came")
    }

    /// The next message, which must be a heartbeat.
    pub(crate) async fn heartbeat(&mut self) -> WatchHeartbeat {
        match self.next().await.unwrap() {
            Message::Heartbeat(heartbeat) => heartbeat,
            Message::Event(event) => panic!("an event: {event:?}"),
        }
    }

    /// Kind and file of the next event.
    pub(crate) async fn what(&mut self) -> (FileEventKind, String) {
        let event = self.event().await;
        (event.kind(), event.file_id)
    }

    /// Why the watch ends.
    pub(crate) async fn end(&mut self) -> Status {
        let ended = async {
            loop {
                match self.next().await {
                    Ok(Message::Heartbeat(_)) => {}
                    Ok(Message::Event(event)) => panic!("an event: {event:?}"),
                    Err(status) => return status,
                }
            }
        };
        timeout(PATIENCE, ended).await.expect("the watch does not end")
    }
}
