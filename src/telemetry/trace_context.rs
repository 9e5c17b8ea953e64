//! Extracts and injects the W3C trace context (`traceparent`, `tracestate`).
//!
//! It works with and without an OTLP endpoint. Without one, our spans are not recorded, but log lines still
//! contain the trace id of the caller.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    Context,
    propagation::{Extractor, Injector, TextMapPropagator},
    trace::{TraceContextExt, TraceId},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Extracts the trace context from request headers. Returns an empty context if there is none or if it is
/// malformed.
pub fn extract(headers: &HeaderMap) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers))
}

/// Injects the trace of `context` into request headers. Does nothing if there is no trace.
pub fn inject(context: &Context, headers: &mut HeaderMap) {
    TraceContextPropagator::new().inject_context(context, &mut HeadersMut(headers));
}

/// Makes `span` a child of the caller's trace and records the trace id in its field `trace_id`, which must
/// have been declared as `tracing::field::Empty`. Call it before the span is entered. Returns the trace
/// id of the caller, or of a new trace. Returns `None` if neither exists.
pub fn continue_trace(span: &Span, headers: &HeaderMap) -> Option<String> {
    let parent = extract(headers);
    let caller_id = trace_id(&parent);
    // Without the tracing layer, the parent cannot be set. Record the caller's trace id anyway.
    let has_parent = span.set_parent(parent).is_ok();
    let id = if has_parent { trace_id(&span.context()).or(caller_id) } else { caller_id };
    if let Some(id) = &id {
        span.record("trace_id", id.as_str());
    }
    id
}

/// Returns the trace id of a context as 32 hexadecimal digits.
pub fn trace_id(context: &Context) -> Option<String> {
    let id = context.span().span_context().trace_id();
    (id != TraceId::INVALID).then(|| id.to_string())
}

/// Returns the trace id of the current span as 32 hexadecimal digits, or `None` if traces are not recorded.
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
        // The propagator writes valid header text only; anything else could not be sent.
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

    fn caller_headers() -> HeaderMap {
        let traceparent = format!("00-{TRACE_ID}-00f067aa0ba902b7-01");
        HeaderMap::from_iter([(HeaderName::from_static("traceparent"), traceparent.parse().unwrap())])
    }

    #[test]
    fn extracted_trace_can_be_injected() {
        let context = extract(&caller_headers());
        assert_eq!(trace_id(&context).as_deref(), Some(TRACE_ID));
        let mut headers = HeaderMap::new();
        inject(&context, &mut headers);
        assert_eq!(headers["traceparent"], caller_headers()["traceparent"]);
    }

    #[test]
    fn malformed_trace_is_ignored() {
        let name = HeaderName::from_static("traceparent");
        let headers = HeaderMap::from_iter([(name, HeaderValue::from_static("00-zz-00f067aa0ba902b7-01"))]);
        assert_eq!(trace_id(&extract(&headers)), None);
        let mut out = HeaderMap::new();
        inject(&extract(&headers), &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn span_continues_the_trace_of_the_caller() {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = tracing::info_span!("request", trace_id = tracing::field::Empty);
            assert_eq!(continue_trace(&span, &caller_headers()).as_deref(), Some(TRACE_ID));
            let _entered = span.enter();
            assert_eq!(current_trace_id().as_deref(), Some(TRACE_ID));
            let mut headers = HeaderMap::new();
            inject(&Span::current().context(), &mut headers);
            assert!(headers["traceparent"].to_str().unwrap().contains(TRACE_ID));
        });
    }

    #[test]
    fn caller_trace_id_is_recorded_without_tracing() {
        let subscriber = tracing_subscriber::registry();
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("request", trace_id = tracing::field::Empty);
            assert_eq!(continue_trace(&span, &caller_headers()).as_deref(), Some(TRACE_ID));
        });
    }
}
