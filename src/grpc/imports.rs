//! `ImportService`: decode, call the use case, encode. And the stream of an import: items in, and a report about each
//! before the next is read.

use std::sync::Arc;

use futures::{Stream, StreamExt, stream, stream::BoxStream};
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{
    call::{ValidUntil, answer, caller},
    convert, status,
};
use crate::{
    app::{
        App, Error,
        imports::{
            Import, ImportItem, ImportOptions, ObjectKeys, ObjectLocation, ObjectOutcome,
            find_imported_files, start_import,
        },
    },
    domain::{caller::Caller, clock::Timestamp, violations::Violations},
    proto::v1::{
        self, ErrorReason, FindImportedFilesRequest, FindImportedFilesResponse, ImportFilesRequest,
        ImportFilesResponse, ImportOutcome, ImportPrefixEnd, ImportResult, ImportSummary,
        import_files_request::Message, import_files_response::Message as Answer, import_item::Source,
        import_service_server::ImportService,
    },
};

/// What tonic sends to the client.
type ImportStream = BoxStream<'static, Result<ImportFilesResponse, Status>>;

/// The adapter of the import service.
pub(super) struct Imports(pub(super) Arc<App>);

#[async_trait]
impl ImportService for Imports {
    type ImportFilesStream = ImportStream;

    async fn import_files(
        &self,
        request: Request<Streaming<ImportFilesRequest>>,
    ) -> Result<Response<ImportStream>, Status> {
        let valid_until = request.extensions().get::<ValidUntil>().map(|until| until.0);
        let (caller, messages) = caller(request)?;
        let origin = caller.origin.clone();
        answer(&origin, begun(&self.0, caller, messages, valid_until)).await
    }

    async fn find_imported_files(
        &self,
        request: Request<FindImportedFilesRequest>,
    ) -> Result<Response<FindImportedFilesResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let found = find_imported_files(&self.0, &caller, convert::import::lookup(request)).await?;
            Ok(convert::import::found(found))
        })
        .await
    }
}

/// Reads the options, and answers the report.
async fn begun(
    app: &Arc<App>,
    caller: Caller,
    mut messages: Streaming<ImportFilesRequest>,
    valid_until: Option<Timestamp>,
) -> Result<ImportStream, Error> {
    let Some(Ok(Message::Options(options))) = next(app, &mut messages).await? else {
        return Err(Error::StreamOrder("the first message of an import must be its options"));
    };
    let request_id = caller.origin.request_id.clone();
    let options = ImportOptions { source: options.source, is_dry_run: options.dry_run };
    let import = start_import(app, caller, options, valid_until).await?;
    let app = Arc::clone(app);
    let report =
        Report { app, import, messages, walking: None, summary: ImportSummary::default(), request_id };
    Ok(report.answers().boxed())
}

/// The next message, in time. A stream that broke and a message of nothing are told apart from the end.
async fn next(
    app: &App,
    messages: &mut Streaming<ImportFilesRequest>,
) -> Result<Option<Result<Message, Status>>, Error> {
    let idle = app.limits().uploads.idle_timeout();
    let stalled = |_elapsed| Error::UploadStalled(format!("no message for {} seconds", idle.as_secs()));
    match timeout(idle, messages.next()).await.map_err(stalled)? {
        Some(Ok(ImportFilesRequest { message: Some(message) })) => Ok(Some(Ok(message))),
        Some(Ok(_)) => Err(Error::StreamOrder("a message of an import must be its options or an item")),
        Some(Err(status)) => Ok(Some(Err(status))),
        None => Ok(None),
    }
}

/// A prefix whose objects are being imported.
struct Walking {
    prefix: String,
    item: ImportItem,
    objects: ObjectKeys,
    object_count: i64,
}

struct Report {
    app: Arc<App>,
    import: Import,
    messages: Streaming<ImportFilesRequest>,
    walking: Option<Walking>,
    summary: ImportSummary,
    request_id: String,
}

impl Report {
    fn answers(self) -> impl Stream<Item = Result<ImportFilesResponse, Status>> {
        stream::unfold(Some(self), |report| async move {
            let mut report = report?;
            // The future is large; it is moved once.
            let answer = Box::pin(report.answer()).await;
            let is_last = matches!(answer, Err(_) | Ok(Answer::Summary(_)));
            let answer = answer.map(|message| ImportFilesResponse { message: Some(message) });
            Some((answer, (!is_last).then_some(report)))
        })
    }

    async fn answer(&mut self) -> Result<Answer, Status> {
        if let Some(walking) = self.walking.take() {
            self.check_credentials()?;
            return Ok(self.step(walking).await);
        }
        let next = next(&self.app, &mut self.messages).await;
        match next.map_err(|error| status::status(&error, &self.request_id))? {
            Some(Ok(Message::Item(item))) => {
                // It may have been waited for until now.
                self.check_credentials()?;
                Ok(self.item(item).await)
            }
            Some(Ok(Message::Options(_))) => {
                let error = Error::StreamOrder("the options of an import come once, and first");
                Err(status::status(&error, &self.request_id))
            }
            Some(Err(status)) => Err(status),
            None => Ok(Answer::Summary(self.summary)),
        }
    }

    fn check_credentials(&self) -> Result<(), Status> {
        self.import.check_credentials().map_err(|error| status::status(&error, &self.request_id))
    }

    async fn item(&mut self, item: v1::ImportItem) -> Answer {
        let (source, item) = convert::import::item(item);
        match source {
            Some(Source::ObjectKey(key)) => self.object(ObjectLocation::Key(key), item).await,
            Some(Source::Url(url)) => self.object(ObjectLocation::Url(url), item).await,
            Some(Source::ObjectPrefix(prefix)) => match self.objects(&prefix, &item) {
                Ok(objects) => self.step(Walking { prefix, item, objects, object_count: 0 }).await,
                Err(error) => self.prefix_end(prefix, 0, Some(error)),
            },
            None => {
                let wrong =
                    Violations::one("item.source", "must be an object_key, an object_prefix or a url");
                self.result(ObjectLocation::Key(String::new()), item.legacy_id, Err(wrong.into()))
            }
        }
    }

    fn objects(&self, prefix: &str, item: &ImportItem) -> Result<ObjectKeys, Error> {
        convert::import::of_many(item)?;
        self.import.list_keys(prefix)
    }

    /// The next object of a prefix, or its end.
    async fn step(&mut self, mut walking: Walking) -> Answer {
        match walking.objects.next().await {
            Ok(Some(key)) => {
                walking.object_count += 1;
                let item = walking.item.clone();
                self.walking = Some(walking);
                self.object(ObjectLocation::Key(key), item).await
            }
            Ok(None) => self.prefix_end(walking.prefix, walking.object_count, None),
            Err(error) => self.prefix_end(walking.prefix, walking.object_count, Some(error)),
        }
    }

    async fn object(&mut self, place: ObjectLocation, item: ImportItem) -> Answer {
        let legacy_id = item.legacy_id.clone();
        let outcome = self.import.import_object(&place, item).await;
        self.result(place, legacy_id, outcome)
    }

    fn result(
        &mut self,
        place: ObjectLocation,
        legacy_id: String,
        outcome: Result<ObjectOutcome, Error>,
    ) -> Answer {
        let (object_key, url) = match place {
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
                let (reason, message) = told(&error, &self.request_id);
                (result.reason, result.message) = (reason.into(), message);
                (ImportOutcome::Failed, &mut self.summary.failed_count)
            }
        };
        *count += 1;
        result.outcome = outcome.into();
        Answer::Result(result)
    }

    fn prefix_end(&mut self, object_prefix: String, object_count: i64, error: Option<Error>) -> Answer {
        let mut end = ImportPrefixEnd { object_prefix, object_count, ..ImportPrefixEnd::default() };
        if let Some(error) = error {
            self.summary.failed_count += 1;
            let (reason, message) = told(&error, &self.request_id);
            (end.reason, end.message) = (reason.into(), message);
        }
        Answer::PrefixEnd(end)
    }
}

/// What a status would say.
fn told(error: &Error, request_id: &str) -> (ErrorReason, String) {
    (status::reason(error), status::status(error, request_id).message().to_owned())
}
