//! The adapter of `ImportService`, and the stream of an import: each item is reported before the next one is
//! read.

use std::sync::Arc;

use futures::{Stream, StreamExt, stream, stream::BoxStream};
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{
    call::{ValidUntil, extract_caller, respond},
    convert, status,
};
use crate::{
    app::{
        App, Error,
        imports::{
            Import, ImportError, ImportItem, ImportOptions, ImportStreamOrder, ObjectKeys, ObjectLocation,
            ObjectOutcome, find_imported_files, start_import,
        },
    },
    domain::{caller::Caller, clock::Timestamp, violations::Violations},
    proto::v1::{
        self, ErrorReason, FindImportedFilesRequest, FindImportedFilesResponse, ImportFilesRequest,
        ImportFilesResponse, ImportOutcome, ImportPrefixEnd, ImportResult, ImportSummary,
        import_files_request::Message, import_files_response::Message as ReportMessage, import_item::Source,
        import_service_server::ImportService,
    },
};

type ImportStream = BoxStream<'static, Result<ImportFilesResponse, Status>>;

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
        request: Request<Streaming<ImportFilesRequest>>,
    ) -> Result<Response<ImportStream>, Status> {
        let valid_until = request.extensions().get::<ValidUntil>().map(|until| until.0);
        let (caller, stream) = extract_caller(request)?;
        let messages = Messages { stream, bytes_max: self.message_bytes_max };
        start_report(&self.app, caller, messages, valid_until).await.map(Response::new)
    }

    async fn find_imported_files(
        &self,
        request: Request<FindImportedFilesRequest>,
    ) -> Result<Response<FindImportedFilesResponse>, Status> {
        let (caller, request) = extract_caller(request)?;
        respond(&caller.origin, async {
            let found =
                find_imported_files(&self.app, &caller, convert::import::lookup_request_from_proto(request))
                    .await?;
            Ok(convert::import::found_files_to_proto(found))
        })
        .await
    }
}

/// The messages of an import.
struct Messages {
    stream: Streaming<ImportFilesRequest>,
    bytes_max: usize,
}

impl Messages {
    /// Receives the next message, within the idle timeout. Returns `None` at the end of the stream.
    async fn next_message(&mut self, app: &App, call_id: &str) -> Result<Option<Message>, Status> {
        let refuse = |error: Error| Err(status::status(&error, call_id));
        let idle = app.limits().uploads.idle_timeout();
        match timeout(idle, self.stream.next()).await {
            Err(_elapsed) => refuse(ImportError::Stalled(idle).into()),
            Ok(Some(Ok(ImportFilesRequest { message: Some(message) }))) => Ok(Some(message)),
            Ok(Some(Ok(_))) => refuse(ImportError::from(ImportStreamOrder::MessageEmpty).into()),
            Ok(Some(Err(status))) => Err(status::with_details(status, self.bytes_max, call_id)),
            Ok(None) => Ok(None),
        }
    }
}

/// Reads the options, starts the import, and returns its report.
async fn start_report(
    app: &Arc<App>,
    caller: Caller,
    mut messages: Messages,
    valid_until: Option<Timestamp>,
) -> Result<ImportStream, Status> {
    let call_id = caller.origin.call_id.clone();
    let refuse = |error: Error| status::status(&error, &call_id);
    let Some(Message::Options(options)) = messages.next_message(app, &call_id).await? else {
        return Err(refuse(ImportError::from(ImportStreamOrder::OptionsNotFirst).into()));
    };
    let options = ImportOptions { source: options.source, is_dry_run: options.dry_run };
    let import = start_import(app, caller, options, valid_until).await.map_err(refuse)?;
    let app = Arc::clone(app);
    let report = Report { app, import, messages, prefix: None, summary: ImportSummary::default(), call_id };
    Ok(report.into_stream().boxed())
}

/// A prefix whose objects are being imported.
struct OpenPrefix {
    prefix: String,
    item: ImportItem,
    objects: ObjectKeys,
    object_count: i64,
}

struct Report {
    app: Arc<App>,
    import: Import,
    messages: Messages,
    prefix: Option<OpenPrefix>,
    summary: ImportSummary,
    call_id: String,
}

impl Report {
    fn into_stream(self) -> impl Stream<Item = Result<ImportFilesResponse, Status>> {
        stream::unfold(Some(self), |report| async move {
            let mut report = report?;
            // The future is large. Boxed, it is not moved again.
            let message = Box::pin(report.next_message()).await;
            let is_last = matches!(message, Err(_) | Ok(ReportMessage::Summary(_)));
            let response = message.map(|message| ImportFilesResponse { message: Some(message) });
            Some((response, (!is_last).then_some(report)))
        })
    }

    async fn next_message(&mut self) -> Result<ReportMessage, Status> {
        if let Some(prefix) = self.prefix.take() {
            self.check_credentials()?;
            return Ok(self.import_next_object(prefix).await);
        }
        match self.messages.next_message(&self.app, &self.call_id).await? {
            Some(Message::Item(item)) => {
                // The credentials may have expired while the item was awaited.
                self.check_credentials()?;
                Ok(self.import_item(item).await)
            }
            Some(Message::Options(_)) => {
                let error = ImportError::from(ImportStreamOrder::OptionsRepeated);
                Err(status::status(&error.into(), &self.call_id))
            }
            None => Ok(ReportMessage::Summary(self.summary)),
        }
    }

    fn check_credentials(&self) -> Result<(), Status> {
        self.import.check_credentials().map_err(|error| status::status(&error, &self.call_id))
    }

    async fn import_item(&mut self, item: v1::ImportItem) -> ReportMessage {
        let (source, item) = convert::import::item_from_proto(item);
        match source {
            Some(Source::ObjectKey(key)) => self.import_object(ObjectLocation::Key(key), item).await,
            Some(Source::Url(url)) => self.import_object(ObjectLocation::Url(url), item).await,
            Some(Source::ObjectPrefix(prefix)) => match self.list_objects(&prefix, &item) {
                Ok(objects) => {
                    self.import_next_object(OpenPrefix { prefix, item, objects, object_count: 0 }).await
                }
                Err(error) => self.report_prefix_end(prefix, 0, Some(error)),
            },
            None => {
                let violations =
                    Violations::one("item.source", "must be an object_key, an object_prefix or a url");
                self.report_result(ObjectLocation::Key(String::new()), item.legacy_id, Err(violations.into()))
            }
        }
    }

    fn list_objects(&self, prefix: &str, item: &ImportItem) -> Result<ObjectKeys, Error> {
        convert::import::check_prefix_item(item)?;
        self.import.list_keys(prefix)
    }

    /// Imports and reports the next object of a prefix, or reports the end of the prefix.
    async fn import_next_object(&mut self, mut prefix: OpenPrefix) -> ReportMessage {
        match prefix.objects.next().await {
            Ok(Some(key)) => {
                prefix.object_count += 1;
                let item = prefix.item.clone();
                self.prefix = Some(prefix);
                self.import_object(ObjectLocation::Key(key), item).await
            }
            Ok(None) => self.report_prefix_end(prefix.prefix, prefix.object_count, None),
            Err(error) => self.report_prefix_end(prefix.prefix, prefix.object_count, Some(error)),
        }
    }

    async fn import_object(&mut self, location: ObjectLocation, item: ImportItem) -> ReportMessage {
        let legacy_id = item.legacy_id.clone();
        let outcome = self.import.import_object(&location, item).await;
        self.report_result(location, legacy_id, outcome)
    }

    fn report_result(
        &mut self,
        location: ObjectLocation,
        legacy_id: String,
        outcome: Result<ObjectOutcome, Error>,
    ) -> ReportMessage {
        let (object_key, url) = match location {
            ObjectLocation::Key(key) => (key, String::new()),
            ObjectLocation::Url(url) => (String::new(), url),
        };
        let mut result = ImportResult { object_key, url, legacy_id, ..ImportResult::default() };
        let (outcome, count) = match outcome {
            Ok(ObjectOutcome::Imported(id, event)) => {
                result.file_id = id.to_string();
                result.event_position = event.to_string();
                (ImportOutcome::Imported, &mut self.summary.imported_count)
            }
            Ok(ObjectOutcome::AlreadyImported(id)) => {
                result.file_id = id.to_string();
                (ImportOutcome::AlreadyImported, &mut self.summary.already_imported_count)
            }
            Ok(ObjectOutcome::WouldImport) => {
                (ImportOutcome::WouldImport, &mut self.summary.would_import_count)
            }
            Err(error) => {
                let (reason, message) = describe_error(&error, &self.call_id);
                (result.reason, result.message) = (reason.into(), message);
                (ImportOutcome::Failed, &mut self.summary.failed_count)
            }
        };
        *count += 1;
        result.outcome = outcome.into();
        ReportMessage::Result(result)
    }

    fn report_prefix_end(
        &mut self,
        object_prefix: String,
        object_count: i64,
        error: Option<Error>,
    ) -> ReportMessage {
        let mut end = ImportPrefixEnd { object_prefix, object_count, ..ImportPrefixEnd::default() };
        if let Some(error) = error {
            self.summary.failed_count += 1;
            let (reason, message) = describe_error(&error, &self.call_id);
            (end.reason, end.message) = (reason.into(), message);
        }
        ReportMessage::PrefixEnd(end)
    }
}

/// Returns the reason and the message of the status for an error.
fn describe_error(error: &Error, call_id: &str) -> (ErrorReason, String) {
    (status::reason(error), status::status(error, call_id).message().to_owned())
}
