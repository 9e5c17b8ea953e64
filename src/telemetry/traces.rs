//! Traces: our own spans, exported over OTLP. Spans of libraries are excluded, especially those of the
//! exporter's requests, each of which would create more spans.

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{
    SpanExporter, WithExportConfig, WithTonicConfig, tonic_types::transport::ClientTlsConfig,
};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracerProvider},
};
use tracing::Subscriber;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

use super::{TelemetryError, logs::is_own_info_span};
use crate::config::TelemetryConfig;

/// The instrumentation scope of our spans and metrics.
pub(super) const SCOPE: &str = env!("CARGO_PKG_NAME");

/// Builds a provider that exports to the configured endpoint, or `None` without an endpoint.
pub(super) fn build_provider(
    resource: Resource,
    config: &TelemetryConfig,
) -> Result<Option<SdkTracerProvider>, TelemetryError> {
    let Some(endpoint) = &config.otlp_endpoint else { return Ok(None) };
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint.as_str());
    let exporter =
        if endpoint.scheme() == "https" { exporter.with_tls_config(native_roots()) } else { exporter };
    let ratio = Sampler::TraceIdRatioBased(config.trace_sample_ratio);
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_sampler(Sampler::ParentBased(Box::new(ratio)))
        .with_batch_exporter(exporter.build()?)
        .build();
    Ok(Some(provider))
}

/// Builds the layer that records our spans.
pub(super) fn build_layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer(SCOPE));
    layer.with_location(false).with_threads(false).with_filter(filter_fn(is_own_info_span))
}

/// Returns a TLS configuration that trusts the certificate authorities of the operating system.
pub(super) fn native_roots() -> ClientTlsConfig {
    ClientTlsConfig::new().with_native_roots()
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::config::Config;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn finished_span_is_exported_to_the_endpoint() {
        let collector = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = Config::defaults().unwrap().telemetry;
        let endpoint = format!("http://{}", collector.local_addr().unwrap());
        config.otlp_endpoint = Some(endpoint.parse().unwrap());
        let provider = build_provider(Resource::builder().build(), &config).unwrap().unwrap();
        let subscriber = tracing_subscriber::registry().with(build_layer(&provider));
        tracing::subscriber::with_default(subscriber, || drop(tracing::info_span!("request").entered()));

        let flushed = tokio::task::spawn_blocking(move || provider.force_flush());
        let (mut connection, _) = collector.accept().await.unwrap();
        let mut preface = [0; 24];
        connection.read_exact(&mut preface).await.unwrap();
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        // The collector does not respond: the export returns an error instead of hanging or panicking.
        drop((connection, collector));
        flushed.await.unwrap().unwrap_err();
    }
}
