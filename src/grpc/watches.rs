//! The stream of a watch. It is read as fast as the client takes it: nothing runs ahead.

use std::sync::Arc;

use futures::{Stream, StreamExt, stream, stream::BoxStream};
use tonic::Status;

use super::{convert, status};
use crate::{
    app::{App, files::watch::Watch},
    domain::caller::Origin,
    proto::v1::WatchFilesResponse,
};

/// What tonic sends to the client.
pub(super) type WatchStream = BoxStream<'static, Result<WatchFilesResponse, Status>>;

/// The messages of a watch. It ends with the status that says why; by itself it does not end.
pub(super) fn sent(app: Arc<App>, watch: Watch, origin: &Origin) -> WatchStream {
    messages(app, watch, origin.call_id.clone()).boxed()
}

fn messages(
    app: Arc<App>,
    watch: Watch,
    call_id: String,
) -> impl Stream<Item = Result<WatchFilesResponse, Status>> {
    stream::unfold(Some((app, watch, call_id)), |state| async move {
        let (app, mut watch, call_id) = state?;
        // The future is large; it is moved once.
        match Box::pin(watch.next(&app)).await {
            Ok(message) => Some((Ok(convert::watch::message(message)), Some((app, watch, call_id)))),
            Err(error) => Some((Err(status::status(&error, &call_id)), None)),
        }
    })
}
