//! A body that an observer polls instead of its reader. The observer can watch the frames, change them, or end
//! the body early.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Status, body::Body};

/// The result of polling a body for its next frame.
pub(super) type PolledFrame = Poll<Option<Result<Frame<Bytes>, Status>>>;

/// Observes a body until it is dropped with it. By default, the body is read as it is.
pub(super) trait BodyObserver: Send + Unpin + 'static {
    /// Polls the body for its next frame.
    fn poll_frame(&mut self, body: &mut Body, context: &mut Context<'_>) -> PolledFrame {
        poll_inner(body, context)
    }

    /// Returns whether there are no more frames.
    fn is_end_stream(&self, body: &Body) -> bool {
        body.is_end_stream()
    }

    /// Returns the size of the rest. An exact size becomes a `content-length`, so an observer that may end the body
    /// early must return none.
    fn size_hint(&self, body: &Body) -> SizeHint {
        body.size_hint()
    }
}

/// Keeps a value until the body is dropped.
pub(super) struct Holding<H>(pub(super) H);

impl<H: Send + Unpin + 'static> BodyObserver for Holding<H> {}

/// Adds an observer to a body.
pub(super) fn observe(body: Body, observer: impl BodyObserver) -> Body {
    Body::new(ObservedBody { body, observer })
}

/// Polls a body for its next frame.
pub(super) fn poll_inner(body: &mut Body, context: &mut Context<'_>) -> PolledFrame {
    Pin::new(body).poll_frame(context)
}

/// A body with its observer.
pub(super) struct ObservedBody<O> {
    pub(super) body: Body,
    pub(super) observer: O,
}

impl<O: BodyObserver> HttpBody for ObservedBody<O> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> PolledFrame {
        let Self { body, observer } = &mut *self;
        observer.poll_frame(body, context)
    }

    fn is_end_stream(&self) -> bool {
        self.observer.is_end_stream(&self.body)
    }

    fn size_hint(&self) -> SizeHint {
        self.observer.size_hint(&self.body)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::{BodyExt as _, Full};

    use super::*;

    #[tokio::test]
    async fn body_keeps_its_size_and_what_it_holds() {
        let held = Arc::new(());
        let full = Body::new(Full::new(Bytes::from_static(b"abc")));
        let body = observe(full, Holding(Arc::clone(&held)));
        assert_eq!(body.size_hint().exact(), Some(3));
        assert_eq!(Arc::strong_count(&held), 2);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
