//! Watches, which reconnect automatically.

use futures::{Stream, StreamExt, stream};
use tonic::Streaming;

use super::{connection::Client, error::ClientError};
use crate::proto::v1::{WatchFilesRequest, WatchFilesResponse};

impl Client {
    /// Watches changes to files after `request.cursor`, or from now on if it is empty.
    ///
    /// If the stream breaks, it is reopened after the last returned message, according to the retry policy.
    /// Each message resets the number of attempts. The stream ends after the first error that is not retried,
    /// for example CURSOR_TOO_OLD, after which the caller must list all files again, or an expired token. A
    /// restore or failover of the database ends the stream only if the database lost events that were returned.
    ///
    /// The stream also returns heartbeats. They carry a cursor, and an event position, which a caller
    /// can compare with the position of its own change.
    pub fn watch_files(
        &self,
        request: WatchFilesRequest,
    ) -> impl Stream<Item = Result<WatchFilesResponse, ClientError>> + Send + use<> {
        let watch = Watch { client: self.clone(), request, stream: None, attempts: 0 };
        stream::unfold(Some(watch), |watch| async move {
            let mut watch = watch?;
            match watch.next_message().await {
                Ok(message) => Some((Ok(message), Some(watch))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }
}

struct Watch {
    client: Client,
    /// The request that reopens the stream. Its cursor is that of the last message.
    request: WatchFilesRequest,
    stream: Option<Streaming<WatchFilesResponse>>,
    /// The number of failed attempts since the last message.
    attempts: u32,
}

impl Watch {
    async fn next_message(&mut self) -> Result<WatchFilesResponse, ClientError> {
        loop {
            match self.receive_message().await {
                Ok(message) => {
                    self.attempts = 0;
                    self.request.cursor.clone_from(&message.cursor);
                    return Ok(message);
                }
                Err(error) => {
                    self.stream = None;
                    self.attempts += 1;
                    match self.client.retry.delay_after_error(&error, self.attempts) {
                        Some(delay) => tokio::time::sleep(delay).await,
                        None => return Err(error),
                    }
                }
            }
        }
    }

    async fn receive_message(&mut self) -> Result<WatchFilesResponse, ClientError> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let mut events = self.client.services.events.clone();
                let response =
                    events.watch_files(self.request.clone()).await.map_err(ClientError::from_status)?;
                none.insert(response.into_inner())
            }
        };
        match stream.message().await.map_err(ClientError::from_status)? {
            Some(message) => Ok(message),
            // The server always ends a watch with an error.
            None => Err(ClientError::Transport { source: "watch ended without an error".into() }),
        }
    }
}
