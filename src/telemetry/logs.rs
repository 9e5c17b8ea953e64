//! Log lines: text for people, or one flat JSON object a line for machines.
//!
//! A field of a span around the event stands at the top level of the object (`request_id`, `tenant`,
//! `trace_id`), where a log search finds it without knowing the span's depth. The event's own fields win over
//! those of spans, and neither can replace `timestamp`, `level` or `target`.

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

/// The layer that writes log lines to `writer`.
pub(super) fn layer<S, W>(
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
    // A filter of "warn" must not take the request's span away: its warnings would lose their call id.
    let filter = events.or(filter_fn(is_our_span));
    Ok(lines.with_filter(filter).boxed())
}

/// Whether this is a span of ours that carries context.
pub(super) fn is_our_span(metadata: &Metadata<'_>) -> bool {
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

/// Collects an event's fields.
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
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
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
        let page = Page::default();
        let written = page.clone();
        let layer = layer(&config, move || page.clone()).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), act);
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_carries_the_fields_of_the_spans_around_it() {
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
    fn warning_keeps_its_call_id_at_level_warn() {
        let lines = log("warn", || {
            let _request = tracing::info_span!("request", call_id = "c-2").entered();
            tracing::info!("not logged");
            tracing::warn!("logged");
        });
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["call_id"], "c-2");
    }
}
