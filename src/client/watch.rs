//! Watches that go on by themselves.

use futures::{Stream, StreamExt, stream};
use tonic::Streaming;

use super::{connection::Client, error::ClientError};
use crate::proto::v1::{WatchFilesRequest, WatchFilesResponse};

impl Client {
    /// Watches changes of files, from `request.cursor` on, or from now on where it is empty.
    ///
    /// A stream that breaks is opened again behind the last message that was handed out, as the retry policy says; tries are
    /// counted anew with every message. The stream ends after the first error that a repetition cannot help: among them
    /// CURSOR_TOO_OLD, after which everything must be listed again, and a token that has expired.
    ///
    /// Heartbeats are handed out too: they carry a cursor, and a position to wait for a write of one's own.
    pub fn watch_files(
        &self,
        request: WatchFilesRequest,
    ) -> impl Stream<Item = Result<WatchFilesResponse, ClientError>> + Send + use<> {
        let watching = Watching { client: self.clone(), request, stream: None, tries: 0 };
        stream::unfold(Some(watching), |watching| async move {
            let mut watching = watching?;
            match watching.next().await {
                Ok(message) => Some((Ok(message), Some(watching))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }
}

struct Watching {
    client: Client,
    /// Its cursor moves on.
    request: WatchFilesRequest,
    stream: Option<Streaming<WatchFilesResponse>>,
    /// How often it was tried since the last message.
    tries: u32,
}

impl Watching {
    async fn next(&mut self) -> Result<WatchFilesResponse, ClientError> {
        loop {
            match self.receive().await {
                Ok(message) => {
                    self.tries = 0;
                    self.request.cursor.clone_from(&message.cursor);
                    return Ok(message);
                }
                Err(error) => {
                    self.stream = None;
                    self.tries += 1;
                    match self.client.retry.wait_before_retry(&error, self.tries) {
                        Some(wait) => tokio::time::sleep(wait).await,
                        None => return Err(error),
                    }
                }
            }
        }
    }

    async fn receive(&mut self) -> Result<WatchFilesResponse, ClientError> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let mut events = self.client.services.events.clone();
                let answer =
                    events.watch_files(self.request.clone()).await.map_err(ClientError::from_status)?;
                none.insert(answer.into_inner())
            }
        };
        match stream.message().await.map_err(ClientError::from_status)? {
            Some(message) => Ok(message),
            // The server never ends a watch without a word.
            None => Err(ClientError::Transport { source: "the stream of the watch ended".into() }),
        }
    }
}
