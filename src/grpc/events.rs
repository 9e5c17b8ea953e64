//! The adapter of `EventService`. The messages of a watch are read only as fast as the client receives them.

use std::sync::Arc;

use futures::{Stream, StreamExt, stream, stream::BoxStream};
use tonic::{Request, Response, Status, async_trait};

use super::{
    call::{CallerCall, ValidUntil, extract_caller, respond},
    convert, status,
};
use crate::{
    app::{
        App,
        files::watch::{self, Watch},
    },
    proto::v1::{self, event_service_server::EventService},
};

type WatchStream = BoxStream<'static, Result<v1::WatchFilesResponse, Status>>;

pub(super) struct Events(pub(super) Arc<App>);

#[async_trait]
impl EventService for Events {
    type WatchFilesStream = WatchStream;

    async fn watch_files(
        &self,
        request: Request<v1::WatchFilesRequest>,
    ) -> Result<Response<WatchStream>, Status> {
        let valid_until = request.extensions().get::<ValidUntil>().map(|until| until.0);
        let CallerCall { caller, request } = extract_caller(request).await?;
        let origin = caller.origin.clone();
        respond(&origin, async {
            let watch = watch::watch_files(
                &self.0,
                caller,
                convert::watch::request_from_proto(request)?,
                valid_until,
            )
            .await?;
            Ok(stream_messages(Arc::clone(&self.0), watch, origin.call_id.clone()).boxed())
        })
        .await
    }
}

/// Streams the messages of a watch. The stream ends only with an error.
fn stream_messages(
    app: Arc<App>,
    watch: Watch,
    call_id: String,
) -> impl Stream<Item = Result<v1::WatchFilesResponse, Status>> {
    stream::unfold(Some((app, watch, call_id)), |state| async move {
        let (app, mut watch, call_id) = state?;
        // The future is large. Boxed, it is not moved again.
        match Box::pin(watch.next_message(&app)).await {
            Ok(message) => Some((Ok(convert::watch::message_to_proto(message)), Some((app, watch, call_id)))),
            Err(error) => Some((Err(status::status(&error, &call_id)), None)),
        }
    })
}
