//! How many bytes of half-received messages this process holds.
//!
//! tonic makes room for a whole message as soon as it has seen its length, and fills it as the client sends.
//! This body follows the gRPC framing (a flag, a length, the message) and takes the length out of a shared
//! budget before the message's first bytes are handed on, so that the sum is bounded by
//! `uploads.decode_permits` messages of the largest size, whatever the number of clients. Who finds no room
//! waits, and the client with it by flow control; but not for long: those that do have room may be slow, and
//! whoever comes again later finds them gone.
//!
//! A budget in bytes, not in messages: slow clients with small chunks then take little of it. A caller that
//! begins a message and falls silent is ended by the upload's idle timeout or by its deadline.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tonic::{Status, body::Body};

use super::{Around, Inner, Next};

/// Messages up to this size need no room of the budget: they mostly come in one piece.
const SMALL_BYTES: usize = 16 * 1024;

/// The budget is counted in these, so that it fits a semaphore.
const UNIT_BYTES: usize = 1024;

/// How long a message waits for room before its stream is told to come again.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(5);

/// The flag and the length before each message.
const PREFIX_BYTES: usize = 5;

/// The method whose message is a whole part, and so larger than any other.
const PART_METHOD: &str = "/strongroom.v1.UploadService/UploadPart";

/// Bounds what is received and not decoded yet.
#[derive(Clone)]
pub(in crate::grpc) struct MessageBudget {
    room: Arc<Semaphore>,
    message_bytes_max: usize,
    part_message_bytes_max: usize,
}

impl MessageBudget {
    /// Room for so many messages of the largest size. One message of [`PART_METHOD`] may have `part_message_bytes_max`, and
    /// takes as much room.
    pub(in crate::grpc) fn new(
        messages_max: usize,
        message_bytes_max: usize,
        part_message_bytes_max: usize,
    ) -> Self {
        let bytes = messages_max.saturating_mul(message_bytes_max).max(part_message_bytes_max);
        let units = bytes.div_ceil(UNIT_BYTES).min(Semaphore::MAX_PERMITS);
        Self { room: Arc::new(Semaphore::new(units)), message_bytes_max, part_message_bytes_max }
    }

    /// What a message of this length takes out of the budget. A small one takes nothing.
    fn units(length: usize) -> Option<u32> {
        (length > SMALL_BYTES).then(|| u32::try_from(length.div_ceil(UNIT_BYTES)).ok()).flatten()
    }
}

impl Around for MessageBudget {
    async fn around<S: Inner>(&self, request: Request<Body>, next: Next<S>) -> Response<Body> {
        let mut budget = self.clone();
        if request.uri().path() == PART_METHOD {
            budget.message_bytes_max = budget.part_message_bytes_max;
        }
        next.run(request.map(|inner| Body::new(BudgetedBody::new(inner, budget)))).await
    }
}

struct BudgetedBody {
    inner: Body,
    budget: MessageBudget,
    framing: Framing,
    /// The room of the message that is being received.
    permit: Option<OwnedSemaphorePermit>,
    /// Bytes that wait for room.
    waiting: Option<(Bytes, BoxFuture<'static, Option<OwnedSemaphorePermit>>)>,
}

impl BudgetedBody {
    fn new(inner: Body, budget: MessageBudget) -> Self {
        Self { inner, budget, framing: Framing::default(), permit: None, waiting: None }
    }

    /// Looks at bytes on their way: they go on at once, unless they begin a message that needs room. One that is too large
    /// is refused by its length, before there is room for it: the decoder takes the largest of any method.
    fn pass(&mut self, data: Bytes) -> Result<Option<Bytes>, Status> {
        let Some(begun) = self.framing.follow(&data) else { return Ok(Some(data)) };
        // The message before was complete; what it held goes back before any more is asked for, so that
        // nobody holds room while waiting for more.
        self.permit = None;
        let max = self.budget.message_bytes_max;
        if let Some(length) = begun.filter(|length| *length > max) {
            return Err(Status::out_of_range(format!(
                "a message of {length} bytes; at most {max} are taken"
            )));
        }
        let Some(units) = begun.and_then(MessageBudget::units) else { return Ok(Some(data)) };
        match Arc::clone(&self.budget.room).try_acquire_many_owned(units) {
            Ok(permit) => self.permit = Some(permit),
            Err(_) => {
                let room = Arc::clone(&self.budget.room).acquire_many_owned(units);
                // The semaphore is never closed.
                let in_time = async { timeout(ROOM_WAIT_MAX, room).await.ok()?.ok() };
                self.waiting = Some((data, Box::pin(in_time)));
                return Ok(None);
            }
        }
        Ok(Some(data))
    }
}

impl HttpBody for BudgetedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if let Some((_, room)) = &mut this.waiting {
                this.permit = ready!(room.as_mut().poll(context));
            }
            if let Some((data, _)) = this.waiting.take() {
                return Poll::Ready(Some(match this.permit {
                    Some(_) => Ok(Frame::data(data)),
                    None => Err(Status::resource_exhausted("too many large messages at once")),
                }));
            }
            match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => match this.pass(data) {
                        Ok(Some(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                        Ok(None) => {}
                        Err(too_large) => return Poll::Ready(Some(Err(too_large))),
                    },
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => {
                    this.permit = None;
                    return Poll::Ready(end);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.inner.is_end_stream()
    }
}

/// Where in the framing a stream of bytes is.
#[derive(Debug, Default)]
struct Framing {
    prefix: [u8; PREFIX_BYTES],
    prefix_length: usize,
    /// What is still to come of the message.
    missing: usize,
}

impl Framing {
    /// Follows some bytes. `Some` when a message ended or began in them, with the length of the one that is
    /// now incomplete, if any.
    fn follow(&mut self, data: &[u8]) -> Option<Option<usize>> {
        let mut rest = data;
        let mut changed = None;
        while !rest.is_empty() {
            if self.missing > 0 {
                let taken = self.missing.min(rest.len());
                self.missing -= taken;
                rest = &rest[taken..];
                if self.missing == 0 {
                    changed = Some(None);
                }
                continue;
            }
            self.prefix[self.prefix_length] = rest[0];
            self.prefix_length += 1;
            rest = &rest[1..];
            if self.prefix_length == PREFIX_BYTES {
                let [_, length @ ..] = self.prefix;
                self.missing = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                self.prefix_length = 0;
                if self.missing > 0 {
                    changed = Some(Some(self.missing));
                }
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use futures::{SinkExt, channel::mpsc};
    use http_body_util::{BodyExt, StreamBody};
    use proptest::prelude::*;

    use super::*;

    const LARGE: usize = 64 * 1024;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
        bytes.resize(PREFIX_BYTES + length, 7);
        bytes
    }

    fn body(budget: &MessageBudget) -> (mpsc::Sender<Result<Frame<Bytes>, Status>>, BudgetedBody) {
        let (sender, frames) = mpsc::channel(8);
        (sender, BudgetedBody::new(Body::new(StreamBody::new(frames)), budget.clone()))
    }

    async fn send(sender: &mut mpsc::Sender<Result<Frame<Bytes>, Status>>, bytes: &[u8]) {
        sender.send(Ok(Frame::data(Bytes::copy_from_slice(bytes)))).await.unwrap();
    }

    #[tokio::test]
    async fn a_message_waits_until_there_is_room_for_it() {
        let budget = MessageBudget::new(1, LARGE, LARGE);
        let (mut first_sender, mut first) = body(&budget);
        let (mut second_sender, mut second) = body(&budget);
        let bytes = message(LARGE);

        send(&mut first_sender, &bytes[..100]).await;
        first.frame().await.unwrap().unwrap();
        send(&mut second_sender, &bytes[..100]).await;
        assert!(futures::poll!(second.frame()).is_pending());

        send(&mut first_sender, &bytes[100..]).await;
        first.frame().await.unwrap().unwrap();
        assert_eq!(second.frame().await.unwrap().unwrap().into_data().unwrap().len(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_finds_no_room_for_long_ends_its_stream() {
        let budget = MessageBudget::new(1, LARGE, LARGE);
        let (mut silent_sender, mut silent) = body(&budget);
        let (mut waiting_sender, mut waiting) = body(&budget);
        for sender in [&mut silent_sender, &mut waiting_sender] {
            send(sender, &message(LARGE)[..100]).await;
        }
        silent.frame().await.unwrap().unwrap();
        let refused = waiting.frame().await.unwrap().unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    }

    #[tokio::test]
    async fn small_messages_pass_also_when_there_is_no_room() {
        let budget = MessageBudget::new(1, LARGE, LARGE);
        let (mut first_sender, mut first) = body(&budget);
        send(&mut first_sender, &message(LARGE)[..100]).await;
        first.frame().await.unwrap().unwrap();
        let (mut second_sender, mut second) = body(&budget);
        send(&mut second_sender, &message(SMALL_BYTES)).await;
        second.frame().await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_message_that_is_too_large_is_refused_by_its_length_and_takes_no_room() {
        let budget = MessageBudget::new(1, LARGE, 2 * LARGE);
        let (mut sender, mut body) = body(&budget);
        send(&mut sender, &message(LARGE + 1)[..100]).await;
        let refused = body.frame().await.unwrap().unwrap_err();
        assert_eq!(refused.code(), tonic::Code::OutOfRange);
        assert_eq!(budget.room.available_permits(), 2 * LARGE / UNIT_BYTES);
    }

    #[tokio::test]
    async fn a_body_that_is_dropped_gives_its_room_back() {
        let budget = MessageBudget::new(1, LARGE, LARGE);
        let (mut sender, mut body) = body(&budget);
        send(&mut sender, &message(LARGE)[..100]).await;
        body.frame().await.unwrap().unwrap();
        assert_eq!(budget.room.available_permits(), 0);
        drop(body);
        assert_eq!(budget.room.available_permits(), LARGE / UNIT_BYTES);
    }

    proptest! {
        #[test]
        fn the_framing_is_followed_however_it_is_cut(
            lengths in proptest::collection::vec(0usize..40, 1..6),
            cut in 1usize..20,
        ) {
            let bytes: Vec<u8> = lengths.iter().flat_map(|length| message(*length)).collect();
            let mut framing = Framing::default();
            for piece in bytes.chunks(cut) {
                framing.follow(piece);
            }
            prop_assert_eq!((framing.missing, framing.prefix_length), (0, 0));
        }
    }
}
