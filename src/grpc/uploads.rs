//! The stream of an upload: its first message, the messages for the use case, and the bytes that still arrive after
//! the result is known.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{Stream, StreamExt};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Status;

use super::{convert, status};
use crate::{
    app::{
        App, Error, Stall,
        uploads::{UploadMessage, resumable::resume::resume, upload::upload},
    },
    config::UploadsConfig,
    domain::{caller::Caller, upload::Upload, violations::Violations},
    proto::v1::{self, UploadFileRequest, UploadFileResponse, UploadSpec, upload_file_request::Message},
};

/// The longest time for which bytes are read after the result of an upload is known.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// A client that sends nothing for this long waits for the response.
const DRAIN_SILENCE: Duration = Duration::from_millis(500);

/// Receives uploads.
pub(super) struct Uploads {
    config: UploadsConfig,
    message_bytes_max: usize,
}

impl Uploads {
    pub(super) fn new(config: UploadsConfig, message_bytes_max: usize) -> Self {
        Self { config, message_bytes_max }
    }

    /// The largest message of a stream of requests, in bytes.
    pub(super) fn message_bytes_max(&self) -> usize {
        self.message_bytes_max
    }

    /// Receives one upload. If the result is known before the client has sent everything, some of the remaining
    /// bytes are read first: otherwise a client that is sending sees its stream cancelled, and never the result.
    pub(super) async fn receive<S>(
        &self,
        app: &Arc<App>,
        caller: &Caller,
        stream: S,
    ) -> Result<UploadFileResponse, Status>
    where
        S: Stream<Item = Result<UploadFileRequest, Status>> + Send + Unpin,
    {
        let limits = StreamLimits {
            chunk_size_max_bytes: self.config.chunk_size_max_bytes,
            message_bytes_max: self.message_bytes_max,
        };
        let mut messages = Messages::new(stream, limits, caller.origin.call_id.clone());
        let received = async {
            match self.first(&mut messages).await? {
                First::Spec(spec) => upload(app, caller, convert::upload::spec(*spec), &mut messages).await,
                First::UploadId(id) => resume(app, caller, convert::id::upload_id(&id)?, &mut messages).await,
            }
        };
        let received = received.await;
        messages.drain(self.config.drain_bytes_max).await;
        match received {
            Ok(uploaded) => Ok(convert::upload::uploaded(uploaded)),
            Err(error) => Err(messages.status(&error)),
        }
    }

    /// An upload, with the limits for its stream.
    pub(super) fn shown(&self, upload: Upload) -> v1::Upload {
        convert::upload::upload(upload, self.config.chunk_size_max_bytes)
    }

    /// The first message. Nothing else bounds the wait for it: an upload has no deadline of its own.
    async fn first<S>(&self, messages: &mut Messages<S>) -> Result<First, Error>
    where
        S: Stream<Item = Result<UploadFileRequest, Status>> + Send + Unpin,
    {
        let idle = self.config.idle_timeout();
        let first = timeout(idle, messages.message())
            .await
            .map_err(|_elapsed| Error::UploadStalled(Stall::Idle(idle)))?;
        match first {
            Some(UploadFileRequest { message: Some(Message::Spec(spec)) }) => Ok(First::Spec(Box::new(spec))),
            Some(UploadFileRequest { message: Some(Message::UploadId(id)) }) => Ok(First::UploadId(id)),
            Some(_) => {
                Err(Error::StreamOrder("the first message of an upload must be its spec or its upload_id"))
            }
            None => Err(Error::UploadNotFinished),
        }
    }
}

/// What an upload begins with.
#[derive(Debug)]
enum First {
    /// A file of one stream.
    Spec(Box<UploadSpec>),
    /// An upload that was created before.
    UploadId(String),
}

/// The limits for the messages of one upload.
#[derive(Clone, Copy)]
struct StreamLimits {
    chunk_size_max_bytes: usize,
    message_bytes_max: usize,
}

/// The messages of one upload, until the client's stream ends or breaks. Neither end commits anything.
struct Messages<S> {
    stream: S,
    is_ended: bool,
    limits: StreamLimits,
    call_id: String,
    /// Why the stream was ended on this side, if its sender can act on it.
    fault: Option<Status>,
}

impl<S> Messages<S>
where
    S: Stream<Item = Result<UploadFileRequest, Status>> + Send + Unpin,
{
    fn new(stream: S, limits: StreamLimits, call_id: String) -> Self {
        Self { stream, is_ended: false, limits, call_id, fault: None }
    }

    async fn message(&mut self) -> Option<UploadFileRequest> {
        std::future::poll_fn(|context| self.poll_message(context)).await
    }

    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Option<UploadFileRequest>> {
        if self.is_ended {
            return Poll::Ready(None);
        }
        match ready!(self.stream.poll_next_unpin(context)) {
            Some(Ok(message)) => return Poll::Ready(Some(message)),
            Some(Err(status)) => {
                tracing::debug!(code = ?status.code(), "upload stream broke");
                self.fault = status::of_stream(status, self.limits.message_bytes_max, &self.call_id);
            }
            None => {}
        }
        self.is_ended = true;
        Poll::Ready(None)
    }

    fn chunk_too_large(&self, size_bytes: usize) -> Status {
        let limit_bytes = self.limits.chunk_size_max_bytes;
        let description = format!("has {size_bytes} bytes; the limit is {limit_bytes} bytes");
        status::status(&Violations::one("chunk.data", description).into(), &self.call_id)
    }

    /// Reads and discards messages, up to a number of bytes and for a short time.
    async fn drain(&mut self, bytes_max: usize) {
        let mut bytes = 0_usize;
        let until = Instant::now() + DRAIN_TIME_MAX;
        while bytes < bytes_max {
            let until = until.min(Instant::now() + DRAIN_SILENCE);
            let Ok(Some(message)) = timeout_at(until, self.message()).await else { return };
            bytes += match message.message {
                Some(Message::Chunk(chunk)) => chunk.data.len(),
                _ => 0,
            };
        }
    }

    /// The status of a failed upload. If the stream was ended because of a fault, the upload is not finished because
    /// of it, and the fault is returned.
    fn status(&mut self, error: &Error) -> Status {
        match (error, self.fault.take()) {
            (Error::UploadNotFinished | Error::UploadPaused { .. }, Some(fault)) => fault,
            (error, _) => status::status(error, &self.call_id),
        }
    }
}

impl<S> Stream for Messages<S>
where
    S: Stream<Item = Result<UploadFileRequest, Status>> + Send + Unpin,
{
    type Item = UploadMessage;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<UploadMessage>> {
        let Some(message) = ready!(self.poll_message(context)) else { return Poll::Ready(None) };
        Poll::Ready(Some(match message.message {
            Some(Message::Chunk(chunk)) if chunk.data.len() > self.limits.chunk_size_max_bytes => {
                self.fault = Some(self.chunk_too_large(chunk.data.len()));
                self.is_ended = true;
                return Poll::Ready(None);
            }
            Some(Message::Chunk(chunk)) => {
                UploadMessage::Chunk { offset: chunk.offset, data: chunk.data, crc32c: chunk.crc32c }
            }
            Some(Message::Finish(finish)) => UploadMessage::Finish {
                size_bytes: finish.size_bytes,
                sha256: finish.sha256.map(|digest| digest.to_vec()),
            },
            Some(Message::Spec(_) | Message::UploadId(_)) => {
                UploadMessage::OutOfOrder("the spec or upload_id of an upload comes once, and first")
            }
            None => UploadMessage::OutOfOrder("a message of an upload must be a chunk or the finish"),
        }))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::stream;
    use tonic_types::StatusExt;

    use super::*;
    use crate::{
        config::Config,
        proto::v1::{UploadChunk, UploadFinish},
    };

    const CHUNK_MAX: usize = 10;
    const LIMITS: StreamLimits = StreamLimits { chunk_size_max_bytes: CHUNK_MAX, message_bytes_max: 100 };

    fn reason(status: &Status) -> String {
        status.get_details_error_info().unwrap().reason
    }

    fn message(message: Message) -> Result<UploadFileRequest, Status> {
        Ok(UploadFileRequest { message: Some(message) })
    }

    fn chunk(length: usize) -> Result<UploadFileRequest, Status> {
        let data = Bytes::from(vec![7; length]);
        message(Message::Chunk(UploadChunk { offset: 0, data, crc32c: Some(1) }))
    }

    fn messages(
        sent: Vec<Result<UploadFileRequest, Status>>,
    ) -> Messages<stream::Iter<std::vec::IntoIter<Result<UploadFileRequest, Status>>>> {
        Messages::new(stream::iter(sent), LIMITS, "c-1".to_owned())
    }

    fn spec() -> Result<UploadFileRequest, Status> {
        message(Message::Spec(UploadSpec { name: "notes.txt".into(), ..UploadSpec::default() }))
    }

    #[tokio::test]
    async fn messages_come_as_the_use_case_wants_them() {
        let finish = message(Message::Finish(UploadFinish { size_bytes: 5, sha256: None }));
        let sent = vec![chunk(5), spec(), Ok(UploadFileRequest::default()), finish];
        let seen: Vec<UploadMessage> = messages(sent).collect().await;
        assert!(
            matches!(&seen[0], UploadMessage::Chunk { offset: 0, data, crc32c: Some(1) } if data.len() == 5)
        );
        assert!(matches!(seen[1], UploadMessage::OutOfOrder(_)));
        assert!(matches!(seen[2], UploadMessage::OutOfOrder(_)));
        assert!(matches!(seen[3], UploadMessage::Finish { size_bytes: 5, sha256: None }));
    }

    #[tokio::test]
    async fn a_stream_that_breaks_has_ended() {
        let mut broken = messages(vec![chunk(1), Err(Status::cancelled("")), chunk(1)]);
        assert_eq!((&mut broken).count().await, 1);
        assert_eq!(reason(&broken.status(&Error::UploadNotFinished)), "UPLOAD_NOT_FINISHED");
    }

    #[tokio::test]
    async fn too_large_chunk_ends_the_stream() {
        let mut too_large = messages(vec![chunk(CHUNK_MAX), chunk(CHUNK_MAX + 1), chunk(1)]);
        assert_eq!((&mut too_large).count().await, 1);
        let status = too_large.status(&Error::UploadNotFinished);
        assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "chunk.data");
    }

    #[tokio::test]
    async fn fault_of_the_transport_is_returned() {
        for (sent, expected) in [
            (Status::internal("failed to decode"), "MALFORMED_MESSAGE"),
            (status::status(&Error::Overloaded("messages"), "c-1"), "OVERLOADED"),
        ] {
            for unfinished in [Error::UploadNotFinished, Error::UploadPaused { persisted_size_bytes: 1 }] {
                let mut broken = messages(vec![chunk(1), Err(sent.clone()), chunk(1)]);
                assert_eq!((&mut broken).count().await, 1);
                assert_eq!(reason(&broken.status(&unfinished)), expected);
            }
        }
    }

    #[tokio::test]
    async fn draining_stops_at_its_limit_of_bytes() {
        let mut sent = messages((0..10).map(|_| chunk(4)).collect());
        sent.drain(9).await;
        assert_eq!(sent.count().await, 7);
    }

    #[tokio::test(start_paused = true)]
    async fn draining_stops_when_the_client_waits_for_its_answer() {
        let began = Instant::now();
        let mut silent = Messages::new(stream::pending(), LIMITS, "c-1".to_owned());
        silent.drain(1000).await;
        assert_eq!(began.elapsed(), DRAIN_SILENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_message_is_the_spec_or_the_upload_and_comes_in_time() {
        let uploads = Uploads::new(Config::defaults().unwrap().uploads, 100);
        let first = uploads.first(&mut messages(vec![spec()])).await.unwrap();
        assert!(matches!(first, First::Spec(spec) if spec.name == "notes.txt"));
        let sent = vec![message(Message::UploadId("u".into()))];
        let first = uploads.first(&mut messages(sent)).await.unwrap();
        assert!(matches!(first, First::UploadId(id) if id == "u"));
        let error = uploads.first(&mut messages(vec![chunk(1)])).await.unwrap_err();
        assert!(matches!(error, Error::StreamOrder(_)));
        let error = uploads.first(&mut messages(vec![])).await.unwrap_err();
        assert!(matches!(error, Error::UploadNotFinished));
        let error =
            uploads.first(&mut Messages::new(stream::pending(), LIMITS, "c-1".to_owned())).await.unwrap_err();
        assert!(matches!(error, Error::UploadStalled(_)));
    }
}
