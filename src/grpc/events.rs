//! `EventService`: decode, call the use case, encode. The stream of a watch is read as fast as the client takes it:
//! nothing runs ahead.

use std::sync::Arc;

use futures::{Stream, StreamExt, stream, stream::BoxStream};
use tonic::{Request, Response, Status, async_trait};

use super::{
    call::{ValidUntil, answer, caller},
    convert, status,
};
use crate::{
    app::{
        App,
        files::watch::{Watch, watch_files},
    },
    domain::caller::Origin,
    proto::v1::{WatchFilesRequest, WatchFilesResponse, event_service_server::EventService},
};

/// What tonic sends to the client.
type WatchStream = BoxStream<'static, Result<WatchFilesResponse, Status>>;

/// The adapter of the event service.
pub(super) struct Events(pub(super) Arc<App>);

#[async_trait]
impl EventService for Events {
    type WatchFilesStream = WatchStream;

    async fn watch_files(
        &self,
        request: Request<WatchFilesRequest>,
    ) -> Result<Response<WatchStream>, Status> {
        let valid_until = request.extensions().get::<ValidUntil>().map(|until| until.0);
        let (caller, request) = caller(request)?;
        let origin = caller.origin.clone();
        answer(&origin, async {
            let watch = watch_files(&self.0, caller, convert::watch::request(request)?, valid_until).await?;
            Ok(sent(Arc::clone(&self.0), watch, &origin))
        })
        .await
    }
}

/// The messages of a watch. It ends with the status that says why; by itself it does not end.
fn sent(app: Arc<App>, watch: Watch, origin: &Origin) -> WatchStream {
    messages(app, watch, origin.request_id.clone()).boxed()
}

fn messages(
    app: Arc<App>,
    watch: Watch,
    request_id: String,
) -> impl Stream<Item = Result<WatchFilesResponse, Status>> {
    stream::unfold(Some((app, watch, request_id)), |state| async move {
        let (app, mut watch, request_id) = state?;
        // The future is large; it is moved once.
        match Box::pin(watch.next_message(&app)).await {
            Ok(message) => Some((Ok(convert::watch::message(message)), Some((app, watch, request_id)))),
            Err(error) => Some((Err(status::status(&error, &request_id)), None)),
        }
    })
}
