//! The caller's W3C trace (`traceparent`, `tracestate`), taken in and handed on.
//!
//! This works with and without an OTLP endpoint: without one our spans are not recorded, but the caller's
//! trace id still stands in the log lines.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    Context,
    propagation::{Extractor, Injector, TextMapPropagator},
    trace::{TraceContextExt, TraceId},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The caller's trace, from the headers of a request; an empty context when there is none, or a malformed
/// one.
pub fn extract(headers: &HeaderMap) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers))
}

/// Writes the trace of `context` into the headers of a request of ours. Without a trace nothing is written.
pub fn inject(context: &Context, headers: &mut HeaderMap) {
    TraceContextPropagator::new().inject_context(context, &mut HeadersMut(headers));
}

/// Makes `span` a part of the caller's trace, and records the trace's id in the span's field `trace_id`
/// (which it must have been created with, as `tracing::field::Empty`). Call it before the span is entered.
/// Returns the id, if there is one: the caller's, or one that begins here.
pub fn adopt(span: &Span, headers: &HeaderMap) -> Option<String> {
    let parent = extract(headers);
    let callers = trace_id(&parent);
    // Without the traces layer there is nothing to continue; the caller's id is recorded all the same.
    let continued = span.set_parent(parent).is_ok();
    let id = if continued { trace_id(&span.context()).or(callers) } else { callers };
    if let Some(id) = &id {
        span.record("trace_id", id.as_str());
    }
    id
}

/// The id of this context's trace, as 32 hexadecimal digits.
pub fn trace_id(context: &Context) -> Option<String> {
    let id = context.span().span_context().trace_id();
    (id != TraceId::INVALID).then(|| id.to_string())
}

/// The id of the current span's trace, as 32 hexadecimal digits; none where traces are not recorded.
pub fn current_trace_id() -> Option<String> {
    trace_id(&Span::current().context())
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct HeadersMut<'a>(&'a mut HeaderMap);

impl Injector for HeadersMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        // The propagator writes header-safe text only; what is not could not be sent anyway.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn callers_headers() -> HeaderMap {
        let traceparent = format!("00-{TRACE_ID}-00f067aa0ba902b7-01");
        HeaderMap::from_iter([(HeaderName::from_static("traceparent"), traceparent.parse().unwrap())])
    }

    #[test]
    fn the_callers_trace_comes_in_and_goes_out_again() {
        let context = extract(&callers_headers());
        assert_eq!(trace_id(&context).as_deref(), Some(TRACE_ID));
        let mut headers = HeaderMap::new();
        inject(&context, &mut headers);
        assert_eq!(headers["traceparent"], callers_headers()["traceparent"]);
    }

    #[test]
    fn a_malformed_trace_is_no_trace() {
        let name = HeaderName::from_static("traceparent");
        let headers = HeaderMap::from_iter([(name, HeaderValue::from_static("00-zz-00f067aa0ba902b7-01"))]);
        assert_eq!(trace_id(&extract(&headers)), None);
        let mut out = HeaderMap::new();
        inject(&extract(&headers), &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn a_span_that_adopts_the_callers_trace_is_part_of_it() {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = tracing::info_span!("request", trace_id = tracing::field::Empty);
            assert_eq!(adopt(&span, &callers_headers()).as_deref(), Some(TRACE_ID));
            let _entered = span.enter();
            assert_eq!(current_trace_id().as_deref(), Some(TRACE_ID));
            let mut headers = HeaderMap::new();
            inject(&Span::current().context(), &mut headers);
            assert!(headers["traceparent"].to_str().unwrap().contains(TRACE_ID));
        });
    }

    #[test]
    fn the_callers_trace_id_is_known_also_when_traces_are_not_recorded() {
        let subscriber = tracing_subscriber::registry();
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("request", trace_id = tracing::field::Empty);
            assert_eq!(adopt(&span, &callers_headers()).as_deref(), Some(TRACE_ID));
        });
    }
}
