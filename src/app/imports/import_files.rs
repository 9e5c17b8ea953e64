//! Imports the objects that a stream of messages names. Each object is reported before the next one is read,
//! and no message is read before the previous report was received.

use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use tokio::time::timeout;

use super::{
    ImportError, ImportOptions, ImportStreamOrder, ObjectLocation,
    import_object::ObjectProperties,
    report::{ImportReport, ImportSummary, ObjectReport, PrefixEnd},
    start::{Import, ObjectKeys, start_import},
};
use crate::{
    app::{App, Error},
    domain::{caller::Caller, clock::Timestamp, violations::Violations},
    storage::SourceEntry,
};

/// A message to an import.
#[derive(Debug)]
pub enum ImportMessage {
    /// The options, which are sent once, as the first message.
    Options(ImportOptions),
    /// An object or a prefix to import.
    Item(Box<ImportItem>),
    /// A message without content.
    Empty,
}

/// An object or a prefix to import.
#[derive(Debug)]
pub struct ImportItem {
    /// The objects to import; `None` if the item names none.
    pub source: Option<ItemSource>,
    /// The properties of each object.
    pub properties: ObjectProperties,
}

/// The objects that an item names.
#[derive(Debug)]
pub enum ItemSource {
    /// The object at this location.
    Object(ObjectLocation),
    /// All objects whose keys begin with this prefix.
    Prefix(String),
}

/// The reason that an import ended before its summary. `E` is the error of its stream of messages.
#[derive(Debug)]
pub enum ImportStop<E> {
    /// The stream of messages broke.
    Stream(E),
    /// The import failed.
    Failed(Error),
}

impl<E> From<Error> for ImportStop<E> {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

fn stream_order(order: ImportStreamOrder) -> Error {
    ImportError::from(order).into()
}

/// Reads the options, starts the import, and returns its reports. The last one is the summary, or the reason
/// why there is none. The import ends at `valid_until`, when the caller's credentials expire. Awaits
/// `caller` after it has read the options.
///
/// # Errors
/// Returns the errors of `caller`.
/// Returns `Stream` if `messages` fails. Returns `Failed` with `Import` if the first message is late or not
/// the options, and with `NotAllowed`, `NotFound` or `StorageUnavailable` if the import cannot start.
pub async fn import_files<C, M, E>(
    app: &Arc<App>,
    caller: C,
    messages: M,
    valid_until: Option<Timestamp>,
) -> Result<impl Stream<Item = Result<ImportReport, ImportStop<E>>> + Send + use<C, M, E>, ImportStop<E>>
where
    C: Future<Output = Result<Caller, Error>> + Send,
    M: Stream<Item = Result<ImportMessage, E>> + Send + Unpin,
    E: Send,
{
    let mut messages = Messages { stream: messages };
    let Some(ImportMessage::Options(options)) = messages.next_message(app).await? else {
        return Err(stream_order(ImportStreamOrder::OptionsNotFirst).into());
    };
    let import = start_import(app, caller.await?, options, valid_until).await?;
    let run = Run { app: Arc::clone(app), import, messages, prefix: None, summary: ImportSummary::default() };
    Ok(stream::unfold(Some(run), |run| async move {
        let mut run = run?;
        // The future is large. Boxed, it is not moved again.
        let report = Box::pin(run.next_report()).await;
        let is_last = matches!(report, Err(_) | Ok(ImportReport::Summary(_)));
        Some((report, (!is_last).then_some(run)))
    }))
}

/// The messages of an import.
struct Messages<M> {
    stream: M,
}

impl<M, E> Messages<M>
where
    M: Stream<Item = Result<ImportMessage, E>> + Send + Unpin,
{
    /// Receives the next message, within the idle timeout. Returns `None` at the end of the stream.
    async fn next_message(&mut self, app: &App) -> Result<Option<ImportMessage>, ImportStop<E>> {
        let idle = app.limits.uploads.idle_timeout();
        match timeout(idle, self.stream.next()).await {
            Err(_elapsed) => Err(Error::from(ImportError::Stalled(idle)).into()),
            Ok(Some(Ok(ImportMessage::Empty))) => Err(stream_order(ImportStreamOrder::MessageEmpty).into()),
            Ok(Some(Ok(message))) => Ok(Some(message)),
            Ok(Some(Err(error))) => Err(ImportStop::Stream(error)),
            Ok(None) => Ok(None),
        }
    }
}

/// A running import, with its position in the messages.
struct Run<M> {
    app: Arc<App>,
    import: Import,
    messages: Messages<M>,
    prefix: Option<OpenPrefix>,
    summary: ImportSummary,
}

/// A prefix whose objects are being imported.
struct OpenPrefix {
    prefix: String,
    properties: ObjectProperties,
    objects: ObjectKeys,
    object_count: i64,
}

impl OpenPrefix {
    fn end(self, error: Option<Error>) -> ImportReport {
        let Self { prefix, object_count, .. } = self;
        ImportReport::PrefixEnd(PrefixEnd { prefix, object_count, error })
    }
}

impl<M, E> Run<M>
where
    M: Stream<Item = Result<ImportMessage, E>> + Send + Unpin,
{
    /// Imports the next object and reports it. Reports the summary after the last message.
    async fn next_report(&mut self) -> Result<ImportReport, ImportStop<E>> {
        let report = if let Some(prefix) = self.prefix.take() {
            self.import.check_credentials()?;
            self.import_next_object(prefix).await
        } else {
            match self.messages.next_message(&self.app).await? {
                Some(ImportMessage::Item(item)) => {
                    // The credentials may have expired while the item was awaited.
                    self.import.check_credentials()?;
                    self.import_item(*item).await
                }
                Some(ImportMessage::Options(_) | ImportMessage::Empty) => {
                    return Err(stream_order(ImportStreamOrder::OptionsRepeated).into());
                }
                None => ImportReport::Summary(self.summary),
            }
        };
        self.summary.add(&report);
        Ok(report)
    }

    async fn import_item(&mut self, item: ImportItem) -> ImportReport {
        let ImportItem { source, properties } = item;
        match source {
            Some(ItemSource::Object(location)) => self.import.report_object(location, properties).await,
            Some(ItemSource::Prefix(prefix)) => match self.list_objects(&prefix, &properties) {
                Ok(objects) => {
                    self.import_next_object(OpenPrefix { prefix, properties, objects, object_count: 0 }).await
                }
                Err(error) => {
                    ImportReport::PrefixEnd(PrefixEnd { prefix, object_count: 0, error: Some(error) })
                }
            },
            None => {
                let violations =
                    Violations::one("item.source", "must be an object_key, an object_prefix or a url");
                ImportReport::Object(ObjectReport {
                    location: None,
                    legacy_id: properties.legacy_id,
                    outcome: Err(violations.into()),
                })
            }
        }
    }

    fn list_objects(&self, prefix: &str, properties: &ObjectProperties) -> Result<ObjectKeys, Error> {
        properties.check_for_prefix()?;
        self.import.list_keys(prefix)
    }

    /// Imports and reports the next object of a prefix, or reports the end of the prefix.
    async fn import_next_object(&mut self, mut prefix: OpenPrefix) -> ImportReport {
        match prefix.objects.next().await {
            Ok(Some(entry)) => {
                prefix.object_count += 1;
                let properties = prefix.properties.clone();
                self.prefix = Some(prefix);
                match entry {
                    SourceEntry::Key(key) => {
                        self.import.report_object(ObjectLocation::Key(key), properties).await
                    }
                    SourceEntry::Problem { key, problem } => ImportReport::Object(ObjectReport {
                        location: Some(ObjectLocation::Key(key)),
                        legacy_id: properties.legacy_id,
                        outcome: Err(Violations::one("item.object_key", problem.to_string()).into()),
                    }),
                }
            }
            Ok(None) => prefix.end(None),
            Err(error) => prefix.end(Some(error)),
        }
    }
}

impl Import {
    async fn report_object(&self, location: ObjectLocation, properties: ObjectProperties) -> ImportReport {
        let legacy_id = properties.legacy_id.clone();
        let outcome = self.import_object(&location, properties).await;
        ImportReport::Object(ObjectReport { location: Some(location), legacy_id, outcome })
    }
}
