//! Log lines: human-readable text, or one flat JSON object per line.
//!
//! In JSON, fields of the surrounding spans are at the top level of the object (`call_id`, `tenant`,
//! `trace_id`), so that log searches need not know the nesting of spans. Fields of the event override those
//! of spans, and neither can override `timestamp`, `level` or `target`.

use std::fmt;

use serde_json::{Map, Value};
use tracing::{Event, Level, Metadata, Subscriber, field::Field};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, filter_fn},
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter,
        format::{JsonFields, Writer},
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

use super::TelemetryError;
use crate::config::{TelemetryConfig, telemetry::LogFormat};

/// Builds the layer that writes log lines to `writer`.
pub(super) fn build_layer<S, W>(
    config: &TelemetryConfig,
    writer: W,
) -> Result<Box<dyn Layer<S> + Send + Sync>, TelemetryError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    let lines = match config.log_format {
        LogFormat::Json => lines.fmt_fields(JsonFields::new()).event_format(FlatJson).boxed(),
        LogFormat::Text => lines.boxed(),
    };
    let events = EnvFilter::try_new(&config.log_filter)?;
    // Keep our spans even if the filter is "warn"; otherwise warnings would have no call id.
    let filter = events.or(filter_fn(is_own_info_span)).and(filter_fn(is_loggable));
    Ok(lines.with_filter(filter).boxed())
}

/// Returns whether an event may be logged, whatever the filter is. Below the level info, libraries log the data
/// that they process: the PostgreSQL driver logs the parameters of statements (names and metadata of files), and
/// HTTP libraries log headers (tokens and signed URLs).
fn is_loggable(metadata: &Metadata<'_>) -> bool {
    let is_own = metadata.target().split("::").next() == Some(env!("CARGO_PKG_NAME"));
    is_own || *metadata.level() <= Level::INFO
}

/// Returns whether this is one of our spans of level info or above.
pub(super) fn is_own_info_span(metadata: &Metadata<'_>) -> bool {
    metadata.is_span()
        && *metadata.level() <= Level::INFO
        && metadata.target().starts_with(env!("CARGO_PKG_NAME"))
}

struct FlatJson;

impl<S> FormatEvent<S, JsonFields> for FlatJson
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result
    where
        JsonFields: for<'writer> FormatFields<'writer>,
    {
        let mut line = Map::new();
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<JsonFields>>();
            if let Some(Ok(fields)) = fields.map(|fields| serde_json::from_str::<Map<_, _>>(&fields.fields)) {
                line.extend(fields);
            }
        }
        event.record(&mut Fields(&mut line));
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let metadata = event.metadata();
        line.insert("timestamp".to_owned(), timestamp.into());
        line.insert("level".to_owned(), metadata.level().as_str().into());
        line.insert("target".to_owned(), metadata.target().into());
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// Collects the fields of an event.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn set(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl tracing::field::Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::config::Config;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(filter: &str, act: impl FnOnce()) -> Vec<Map<String, Value>> {
        let mut config = Config::defaults().unwrap().telemetry;
        config.log_filter = filter.to_owned();
        let buffer = Buffer::default();
        let written = buffer.clone();
        let layer = build_layer(&config, move || buffer.clone()).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), act);
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn log_line_contains_the_fields_of_surrounding_spans() {
        let lines = log("info", || {
            let request = tracing::info_span!("request", call_id = "c-1", tenant = tracing::field::Empty);
            let _request = request.enter();
            request.record("tenant", "t-1");
            let _inner = tracing::info_span!("commit", batch = 3).entered();
            tracing::info!(level = "mine", bytes = 7, "committed");
        });
        let line = &lines[0];
        assert_eq!(line["call_id"], "c-1");
        assert_eq!(line["tenant"], "t-1");
        assert_eq!(line["batch"], 3);
        assert_eq!(line["bytes"], 7);
        assert_eq!(line["message"], "committed");
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn libraries_never_log_below_info() {
        for filter in ["trace", "info,tokio_postgres=debug,h2=trace,hyper=trace"] {
            let lines = log(filter, || {
                tracing::debug!(target: "tokio_postgres::query", "executing with parameters: [\"salary.pdf\"]");
                tracing::trace!(target: "h2::codec", "authorization: Bearer secret");
                tracing::trace!(target: "hyper::proto", "authorization: Bearer secret");
                tracing::debug!(target: "strongroom_lookalike", "secret");
                tracing::info!(target: "tokio_postgres::connection", "notice");
            });
            let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
            assert_eq!(messages, ["notice"], "{filter}");
        }
        let own = log("trace", || tracing::trace!("own"));
        assert_eq!(own.len(), 1);
    }

    #[test]
    fn warning_keeps_its_call_id_with_filter_warn() {
        let lines = log("warn", || {
            let _request = tracing::info_span!("request", call_id = "c-2").entered();
            tracing::info!("not logged");
            tracing::warn!("logged");
        });
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["call_id"], "c-2");
    }
}
