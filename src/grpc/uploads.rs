//! The adapter of `UploadService`, and the stream of `UploadFile`: its first message, the messages for the
//! use case, and the bytes that still arrive after the result is known.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{Stream, StreamExt};
use tokio::time::Instant;
use tonic::{Request, Response, Status, async_trait};

use super::{
    arrivals::Arrivals,
    call::{CallerCall, StreamSender, extract_caller, respond},
    convert,
    peer_waits::wait_for_peer,
    status,
};
use crate::{
    admission::{Holder, ShareLimits, ShareStatus, Shares, Slot},
    app::{
        App, Error, Workload,
        uploads::{
            self, Arrived, PaceLimits, PaceMonitor, UploadError, UploadMessage, UploadStream,
            UploadStreamOrder,
        },
    },
    config::UploadsConfig,
    domain::{upload::Upload, upload_spec::UploadSpec, violations::Violations},
    proto::{
        codec,
        v1::{self, upload_file_request::Message, upload_service_server::UploadService},
    },
};

/// The longest time for which bytes are read after the result of an upload is known.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// A client that sends nothing for this long waits for the response.
const DRAIN_SILENCE: Duration = Duration::from_millis(500);

pub(super) struct Uploads {
    pub(super) app: Arc<App>,
    pub(super) streams: UploadStreams,
}

#[async_trait]
impl UploadService for Uploads {
    async fn create_upload(
        &self,
        request: Request<v1::CreateUploadRequest>,
    ) -> Result<Response<v1::CreateUploadResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let spec = convert::upload::spec_from_proto(request.spec.unwrap_or_default());
            let upload = uploads::create_upload(&self.app, &caller, spec, request.direct).await?;
            let urls = if request.direct {
                uploads::presign_upload_urls(&self.app, &caller, upload.id).await?
            } else {
                None
            };
            let direct = urls.map(convert::upload::direct_urls_to_proto);
            Ok(v1::CreateUploadResponse { upload: Some(self.streams.upload_to_proto(upload)), direct })
        })
        .await
    }

    async fn get_upload(
        &self,
        request: Request<v1::GetUploadRequest>,
    ) -> Result<Response<v1::GetUploadResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let id = convert::id::parse_upload_id(&request.upload_id)?;
            let upload = uploads::get_upload(&self.app, &caller, id).await?;
            let urls = if request.with_urls {
                uploads::presign_upload_urls(&self.app, &caller, id).await?
            } else {
                None
            };
            let direct = urls.map(convert::upload::direct_urls_to_proto);
            Ok(v1::GetUploadResponse { upload: Some(self.streams.upload_to_proto(upload)), direct })
        })
        .await
    }

    async fn list_uploads(
        &self,
        request: Request<v1::ListUploadsRequest>,
    ) -> Result<Response<v1::ListUploadsResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let listed =
                uploads::list_uploads(&self.app, &caller, request.page_size, &request.page_token).await?;
            let uploads =
                listed.uploads.into_iter().map(|upload| self.streams.upload_to_proto(upload)).collect();
            Ok(v1::ListUploadsResponse { uploads, next_page_token: listed.next_page_token })
        })
        .await
    }

    async fn cancel_upload(
        &self,
        request: Request<v1::CancelUploadRequest>,
    ) -> Result<Response<v1::CancelUploadResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let ids = convert::id::parse_upload_change(&request.upload_id, &request.request_id)?;
            uploads::cancel_upload(&self.app, &caller, ids.upload, ids.request).await?;
            Ok(v1::CancelUploadResponse {})
        })
        .await
    }

    async fn upload_part(
        &self,
        request: Request<v1::UploadPartRequest>,
    ) -> Result<Response<v1::UploadPartResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let part = convert::upload::part_request_from_proto(request)?;
            let upload = uploads::upload_part(&self.app, &caller, part.upload, part.part).await?;
            Ok(v1::UploadPartResponse { upload: Some(self.streams.upload_to_proto(upload)) })
        })
        .await
    }

    async fn complete_upload(
        &self,
        request: Request<v1::CompleteUploadRequest>,
    ) -> Result<Response<v1::CompleteUploadResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let id = convert::id::parse_upload_id(&request.upload_id)?;
            let committed = uploads::complete_upload(
                &self.app,
                &caller,
                id,
                convert::upload::completion_from_proto(request),
            )
            .await?;
            let v1::UploadFileResponse { file, quota_state, warnings, event_position } =
                convert::upload::committed_upload_to_proto(committed);
            Ok(v1::CompleteUploadResponse { file, quota_state, warnings, event_position })
        })
        .await
    }
}

/// Receives the streams of `UploadFile`.
#[derive(Clone)]
pub(super) struct UploadStreams {
    config: UploadsConfig,
    message_bytes_max: usize,
    slots: Arc<Shares>,
}

impl UploadStreams {
    pub(super) fn new(config: UploadsConfig, message_bytes_max: usize) -> Self {
        let slots = Shares::new(ShareLimits::slots(config.streams_max).with_tenant_half());
        Self { config, message_bytes_max, slots }
    }

    /// Returns how callers share the streams.
    pub(super) fn status(&self) -> ShareStatus {
        self.slots.status()
    }

    /// Receives one upload. If the result is known before the client has sent everything, some of the
    /// remaining bytes are read first: otherwise a client that is still sending gets a cancelled stream
    /// instead of the result.
    pub(super) async fn receive<S>(
        &self,
        app: &Arc<App>,
        sender: StreamSender,
        stream: S,
    ) -> Result<v1::UploadFileResponse, Status>
    where
        S: Stream<Item = Result<v1::UploadFileRequest, Status>> + Send + Unpin,
    {
        let call_id = &sender.origin.call_id;
        let opened = sender.holder().and_then(|holder| self.open_stream(stream, holder, call_id));
        let mut messages = opened.map_err(|error| status::status(&error, call_id))?;
        messages.arrivals = sender.arrivals();
        let received = async {
            let first = self.receive_first_message(&mut messages).await?;
            let caller = &sender.resolve_caller().await?;
            match first {
                FirstMessage::Spec(spec) => uploads::upload_file(app, caller, *spec, &mut messages).await,
                FirstMessage::UploadId(id) => {
                    uploads::resume_upload(app, caller, convert::id::parse_upload_id(&id)?, &mut messages)
                        .await
                }
            }
        };
        let received = received.await;
        messages.drain(self.config.drain_bytes_max).await;
        match received {
            Ok(committed) => Ok(convert::upload::committed_upload_to_proto(committed)),
            Err(error) => Err(messages.status_for(&error)),
        }
    }

    /// Takes a slot for a stream, which holds it until the rest of its messages is drained.
    fn open_stream<S>(&self, stream: S, holder: Holder, call_id: &str) -> Result<Messages<S>, Error>
    where
        S: Stream<Item = Result<v1::UploadFileRequest, Status>> + Send + Unpin,
    {
        let slot = self.slots.try_acquire(holder, 1).map_err(|_| Error::Overloaded(Workload::Uploads))?;
        let limits = StreamLimits {
            chunk_size_max_bytes: self.config.chunk_size_max_bytes,
            message_bytes_max: self.message_bytes_max,
        };
        Ok(Messages { _slot: Some(slot), ..Messages::new(stream, limits, call_id.to_owned()) })
    }

    /// Converts an upload, with the limits for its stream.
    pub(super) fn upload_to_proto(&self, upload: Upload) -> v1::Upload {
        convert::upload::to_proto(upload, self.config.chunk_size_max_bytes)
    }

    /// Receives the first message. It has a time of its own, because a client that sends nothing holds a slot.
    /// A message that takes longer must arrive at the minimum rate.
    async fn receive_first_message<S>(&self, messages: &mut Messages<S>) -> Result<FirstMessage, Error>
    where
        S: Stream<Item = Result<v1::UploadFileRequest, Status>> + Send + Unpin,
    {
        let mut pace = PaceMonitor::new(PaceLimits::of_first_message(&self.config));
        let first = pace.wait(0, |context| (messages.poll_message(context), messages.arrivals.arrived()));
        let first = first.await.map_err(UploadError::Stalled)?;
        let first = match first {
            Some(v1::UploadFileRequest { message: Some(Message::Spec(spec)) }) => {
                Ok(FirstMessage::Spec(Box::new(convert::upload::spec_from_proto(spec))))
            }
            Some(v1::UploadFileRequest { message: Some(Message::UploadId(id)) }) => {
                Ok(FirstMessage::UploadId(id))
            }
            Some(_) => Err(UploadError::from(UploadStreamOrder::SpecNotFirst).into()),
            None => Err(UploadError::NotFinished.into()),
        };
        // The message is converted, and the client may be silent from now on.
        drop(codec::take_space());
        first
    }
}

/// The first message of an `UploadFile` stream.
#[derive(Debug)]
enum FirstMessage {
    /// The stream uploads a whole file.
    Spec(Box<UploadSpec>),
    /// The stream resumes an upload.
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
    has_ended: bool,
    limits: StreamLimits,
    call_id: String,
    arrivals: Arrivals,
    /// The error for which the server ended the stream, if the client can act on it.
    fault: Option<Status>,
    /// The slot of the stream.
    _slot: Option<Slot>,
}

impl<S> Messages<S>
where
    S: Stream<Item = Result<v1::UploadFileRequest, Status>> + Send + Unpin,
{
    fn new(stream: S, limits: StreamLimits, call_id: String) -> Self {
        Self {
            stream,
            has_ended: false,
            limits,
            call_id,
            arrivals: Arrivals::default(),
            fault: None,
            _slot: None,
        }
    }

    async fn next_message(&mut self) -> Option<v1::UploadFileRequest> {
        std::future::poll_fn(|context| self.poll_message(context)).await
    }

    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Option<v1::UploadFileRequest>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        match ready!(self.stream.poll_next_unpin(context)) {
            Some(Ok(message)) => return Poll::Ready(Some(message)),
            Some(Err(status)) => {
                tracing::debug!(code = ?status.code(), "upload stream broke");
                self.fault =
                    status::convert_stream_status(status, self.limits.message_bytes_max, &self.call_id);
            }
            None => {}
        }
        self.has_ended = true;
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
        while bytes < bytes_max && Instant::now() < until {
            let message = tokio::select! {
                biased;
                message = self.next_message() => message,
                () = wait_for_peer(DRAIN_SILENCE) => return,
            };
            let Some(message) = message else { return };
            bytes += match message.message {
                Some(Message::Chunk(chunk)) => chunk.data.len(),
                _ => 0,
            };
        }
    }

    /// Returns the status of a failed upload: the fault for which the stream was ended on this side, if there
    /// is one, because it is the cause of an unfinished upload. Otherwise the status for `error`.
    fn status_for(&mut self, error: &Error) -> Status {
        match (error, self.fault.take()) {
            (Error::Upload(UploadError::NotFinished | UploadError::Paused { .. }), Some(fault)) => fault,
            (error, _) => status::status(error, &self.call_id),
        }
    }
}

impl<S> UploadStream for Messages<S>
where
    S: Stream<Item = Result<v1::UploadFileRequest, Status>> + Send + Unpin,
{
    fn arrived(&self) -> Arrived {
        self.arrivals.arrived()
    }
}

impl<S> Stream for Messages<S>
where
    S: Stream<Item = Result<v1::UploadFileRequest, Status>> + Send + Unpin,
{
    type Item = UploadMessage;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<UploadMessage>> {
        let Some(message) = ready!(self.poll_message(context)) else { return Poll::Ready(None) };
        Poll::Ready(Some(match message.message {
            Some(Message::Chunk(chunk)) if chunk.data.len() > self.limits.chunk_size_max_bytes => {
                self.fault = Some(self.chunk_too_large(chunk.data.len()));
                self.has_ended = true;
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
                // The rest of the stream is drained.
                drop(codec::take_space());
                UploadMessage::OutOfOrder(UploadStreamOrder::SpecRepeated)
            }
            None => UploadMessage::OutOfOrder(UploadStreamOrder::MessageEmpty),
        }))
    }
}

#[cfg(test)]
#[path = "uploads_pace_tests.rs"]
mod pace_tests;
#[cfg(test)]
#[path = "uploads_tests.rs"]
mod tests;
