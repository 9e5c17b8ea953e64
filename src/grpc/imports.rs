//! The adapter of `ImportService`: each RPC decodes the request, calls a use case and encodes the response.
//! The next object is imported only when the client has received the report of the previous one.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{
    call::{CallerCall, ValidUntil, extract_caller, extract_stream_sender, respond},
    convert, status,
};
use crate::{
    app::{
        App,
        imports::{self, ImportStop},
    },
    proto::{
        codec,
        v1::{self, import_service_server::ImportService},
    },
};

type ImportStream = BoxStream<'static, Result<v1::ImportFilesResponse, Status>>;

pub(super) struct Imports {
    pub(super) app: Arc<App>,
    /// The maximum size of a message of a request stream, in bytes.
    pub(super) message_bytes_max: usize,
}

#[async_trait]
impl ImportService for Imports {
    type ImportFilesStream = ImportStream;

    async fn import_files(
        &self,
        request: Request<Streaming<v1::ImportFilesRequest>>,
    ) -> Result<Response<ImportStream>, Status> {
        let valid_until = request.extensions().get::<ValidUntil>().map(|until| until.0);
        let (sender, stream) = extract_stream_sender(request);
        let (call_id, message_bytes_max) = (sender.origin.call_id.clone(), self.message_bytes_max);
        let stream_call_id = call_id.clone();
        let messages = stream
            .map_ok(|message| {
                let converted = convert::import::message_from_proto(message);
                // The client may be silent from now on.
                drop(codec::take_space());
                converted
            })
            .map_err(move |status| status::with_details(status, message_bytes_max, &stream_call_id));
        // The future is large. Boxed, it is not moved again.
        let reports =
            Box::pin(imports::import_files(&self.app, sender.resolve_caller(), messages, valid_until)).await;
        let reports = reports.map_err(|stop| stop_to_status(stop, &call_id))?;
        let responses = reports.map(move |report| match report {
            Ok(report) => Ok(convert::import::report_to_proto(report, &call_id)),
            Err(stop) => Err(stop_to_status(stop, &call_id)),
        });
        Ok(Response::new(responses.boxed()))
    }

    async fn find_imported_files(
        &self,
        request: Request<v1::FindImportedFilesRequest>,
    ) -> Result<Response<v1::FindImportedFilesResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let lookup = convert::import::lookup_request_from_proto(request);
            let found = imports::find_imported_files(&self.app, &caller, lookup).await?;
            Ok(convert::import::found_files_to_proto(found))
        })
        .await
    }
}

/// Converts the reason why an import ended early. The errors of its stream are statuses.
fn stop_to_status(stop: ImportStop<Status>, call_id: &str) -> Status {
    match stop {
        ImportStop::Stream(status) => status,
        ImportStop::Failed(error) => status::status(&error, call_id),
    }
}
