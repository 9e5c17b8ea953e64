//! The stream of an import: items in, and a report about each before the next is read.

use std::sync::Arc;

use futures::{Stream, StreamExt, stream, stream::BoxStream};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::{convert, status};
use crate::{
    app::{
        App, Error, Stall,
        imports::{Import, ImportItem, ImportOptions, Objects, Outcome, Place, begin},
    },
    domain::{caller::Caller, clock::Timestamp, violations::Violations},
    proto::v1::{
        self, ErrorReason, ImportFilesRequest, ImportFilesResponse, ImportOutcome, ImportPrefixEnd,
        ImportResult, ImportSummary, import_files_request::Message, import_files_response::Message as Answer,
        import_item::Source,
    },
};

/// What tonic sends to the client.
pub(super) type ImportStream = BoxStream<'static, Result<ImportFilesResponse, Status>>;

/// The messages of an import.
pub(super) struct Messages {
    stream: Streaming<ImportFilesRequest>,
    bytes_max: usize,
}

impl Messages {
    pub(super) fn new(stream: Streaming<ImportFilesRequest>, bytes_max: usize) -> Self {
        Self { stream, bytes_max }
    }

    /// The next message. Returns `None` at the end of the stream, and an error if none arrives in time.
    async fn next(&mut self, app: &App, call_id: &str) -> Result<Option<Message>, Status> {
        let refuse = |error: Error| Err(status::status(&error, call_id));
        let idle = app.limits().uploads.idle_timeout();
        match timeout(idle, self.stream.next()).await {
            Err(_elapsed) => refuse(Error::UploadStalled(Stall::Idle(idle))),
            Ok(Some(Ok(ImportFilesRequest { message: Some(message) }))) => Ok(Some(message)),
            Ok(Some(Ok(_))) => {
                refuse(Error::StreamOrder("a message of an import must be its options or an item"))
            }
            Ok(Some(Err(status))) => Err(status::with_details(status, self.bytes_max, call_id)),
            Ok(None) => Ok(None),
        }
    }
}

/// Reads the options, and begins the report.
pub(super) async fn begun(
    app: &Arc<App>,
    caller: Caller,
    mut messages: Messages,
    valid_until: Option<Timestamp>,
) -> Result<ImportStream, Status> {
    let call_id = caller.origin.call_id.clone();
    let refuse = |error: Error| status::status(&error, &call_id);
    let Some(Message::Options(options)) = messages.next(app, &call_id).await? else {
        return Err(refuse(Error::StreamOrder("the first message of an import must be its options")));
    };
    let options = ImportOptions { source: options.source, is_dry: options.dry_run };
    let import = begin(app, caller, options, valid_until).await.map_err(refuse)?;
    let app = Arc::clone(app);
    let report = Report { app, import, messages, walking: None, summary: ImportSummary::default(), call_id };
    Ok(report.answers().boxed())
}

/// A prefix whose objects are being imported.
struct Walking {
    prefix: String,
    item: ImportItem,
    objects: Objects,
    object_count: i64,
}

struct Report {
    app: Arc<App>,
    import: Import,
    messages: Messages,
    walking: Option<Walking>,
    summary: ImportSummary,
    call_id: String,
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
        match self.messages.next(&self.app, &self.call_id).await? {
            Some(Message::Item(item)) => {
                // The credentials may have expired while it was awaited.
                self.check_credentials()?;
                Ok(self.item(item).await)
            }
            Some(Message::Options(_)) => {
                let error = Error::StreamOrder("the options of an import come once, and first");
                Err(status::status(&error, &self.call_id))
            }
            None => Ok(Answer::Summary(self.summary)),
        }
    }

    fn check_credentials(&self) -> Result<(), Status> {
        self.import.check_credentials().map_err(|error| status::status(&error, &self.call_id))
    }

    async fn item(&mut self, item: v1::ImportItem) -> Answer {
        let (source, item) = convert::import::item(item);
        match source {
            Some(Source::ObjectKey(key)) => self.object(Place::Key(key), item).await,
            Some(Source::Url(url)) => self.object(Place::Url(url), item).await,
            Some(Source::ObjectPrefix(prefix)) => match self.objects(&prefix, &item) {
                Ok(objects) => self.step(Walking { prefix, item, objects, object_count: 0 }).await,
                Err(error) => self.prefix_end(prefix, 0, Some(error)),
            },
            None => {
                let wrong =
                    Violations::one("item.source", "must be an object_key, an object_prefix or a url");
                self.result(Place::Key(String::new()), item.legacy_id, Err(wrong.into()))
            }
        }
    }

    fn objects(&self, prefix: &str, item: &ImportItem) -> Result<Objects, Error> {
        convert::import::of_many(item)?;
        self.import.objects(prefix)
    }

    /// The next object of a prefix, or its end.
    async fn step(&mut self, mut walking: Walking) -> Answer {
        match walking.objects.next().await {
            Ok(Some(key)) => {
                walking.object_count += 1;
                let item = walking.item.clone();
                self.walking = Some(walking);
                self.object(Place::Key(key), item).await
            }
            Ok(None) => self.prefix_end(walking.prefix, walking.object_count, None),
            Err(error) => self.prefix_end(walking.prefix, walking.object_count, Some(error)),
        }
    }

    async fn object(&mut self, place: Place, item: ImportItem) -> Answer {
        let legacy_id = item.legacy_id.clone();
        let outcome = self.import.object(&place, item).await;
        self.result(place, legacy_id, outcome)
    }

    fn result(&mut self, place: Place, legacy_id: String, outcome: Result<Outcome, Error>) -> Answer {
        let (object_key, url) = match place {
            Place::Key(key) => (key, String::new()),
            Place::Url(url) => (String::new(), url),
        };
        let mut result = ImportResult { object_key, url, legacy_id, ..ImportResult::default() };
        let (outcome, count) = match outcome {
            Ok(Outcome::Imported(id, event)) => {
                result.file_id = id.to_string();
                result.event_position = event.to_string();
                (ImportOutcome::Imported, &mut self.summary.imported_count)
            }
            Ok(Outcome::AlreadyImported(id)) => {
                result.file_id = id.to_string();
                (ImportOutcome::AlreadyImported, &mut self.summary.already_imported_count)
            }
            Ok(Outcome::WouldImport) => (ImportOutcome::WouldImport, &mut self.summary.would_import_count),
            Err(error) => {
                let (reason, message) = told(&error, &self.call_id);
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
            let (reason, message) = told(&error, &self.call_id);
            (end.reason, end.message) = (reason.into(), message);
        }
        Answer::PrefixEnd(end)
    }
}

/// What a status would say.
fn told(error: &Error, call_id: &str) -> (ErrorReason, String) {
    (status::reason(error), status::status(error, call_id).message().to_owned())
}
