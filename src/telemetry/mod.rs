//! Logs, traces, metrics and health of the process.
//!
//! Logs are written to standard error, one line per event, with the fields of the surrounding spans (call
//! id, tenant, trace id). Traces and metrics use OpenTelemetry. Metrics can always be scraped from the edge
//! port, and both are exported over OTLP if an endpoint is configured. The W3C trace of the caller is always
//! continued.

pub mod health;
mod logs;
pub mod metrics;
pub mod trace_context;
mod traces;

use opentelemetry::KeyValue;
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};

pub use self::{health::Health, metrics::Metrics};
use crate::config::TelemetryConfig;

/// An error that occurred while initializing telemetry.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `telemetry.log_filter` is not a valid filter.
    #[error("telemetry.log_filter is invalid: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The OTLP exporter could not be built.
    #[error("failed to build OTLP exporter: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The Prometheus reader could not be built.
    #[error("failed to build Prometheus reader: {0}")]
    Prometheus(#[from] opentelemetry_sdk::error::OTelSdkError),
    /// The process already has a log subscriber.
    #[error("failed to install log subscriber: {0}")]
    Subscriber(#[from] tracing_subscriber::util::TryInitError),
}

/// The telemetry of this process. Call [`Telemetry::shutdown`] at the end; otherwise the last spans are lost.
#[derive(Debug)]
pub struct Telemetry {
    metrics: Metrics,
    traces: Option<SdkTracerProvider>,
}

/// Initializes logs, traces and metrics of this process. Call it once. With an OTLP endpoint, call it inside
/// a Tokio runtime, because the exporter needs one for its connection.
///
/// # Errors
/// Returns an error if the filter or the endpoint is invalid, or if the process already has a log subscriber.
pub fn init(config: &TelemetryConfig) -> Result<Telemetry, TelemetryError> {
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let resource = Resource::builder()
        .with_service_name(config.service_name.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let metrics = Metrics::open(resource.clone(), config)?;
    let traces = traces::build_provider(resource, config)?;
    tracing_subscriber::registry()
        .with(logs::build_layer(config, std::io::stderr)?)
        .with(traces.as_ref().map(traces::build_layer))
        .try_init()?;
    Ok(Telemetry { metrics, traces })
}

impl Telemetry {
    /// Returns the metric instruments of this process.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Exports the remaining data and stops. Blocks for at most a few seconds while an exporter sends data.
    /// On a multi-threaded runtime, other tasks keep running.
    pub fn shutdown(self) {
        let stop = || {
            if let Some(Err(error)) = self.traces.map(|traces| traces.shutdown()) {
                tracing::warn!(%error, "failed to export the last traces");
            }
            if let Err(error) = self.metrics.shutdown() {
                tracing::warn!(%error, "failed to export the last metrics");
            }
        };
        let multi_threaded = |runtime: tokio::runtime::Handle| {
            runtime.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread
        };
        if tokio::runtime::Handle::try_current().is_ok_and(multi_threaded) {
            tokio::task::block_in_place(stop);
        } else {
            stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::config::Config;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn shutdown_exports_the_remaining_data() {
        let collector = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = Config::defaults().unwrap().telemetry;
        let endpoint = format!("http://{}", collector.local_addr().unwrap());
        config.otlp_endpoint = Some(endpoint.parse().unwrap());
        let resource = Resource::builder().build();
        let metrics = Metrics::open(resource.clone(), &config).unwrap();
        metrics.add_uploaded_bytes(1);
        let traces = traces::build_provider(resource, &config).unwrap();
        let spans = tracing_subscriber::registry().with(traces.as_ref().map(traces::build_layer));
        tracing::subscriber::with_default(spans, || drop(tracing::info_span!("request").entered()));

        let ended = tokio::spawn(async { Telemetry { metrics, traces }.shutdown() });
        // There is one connection for traces and one for metrics. Neither gets a response; the shutdown
        // completes nevertheless.
        for _ in 0..2 {
            let (mut connection, _) = collector.accept().await.unwrap();
            let mut preface = [0; 14];
            connection.read_exact(&mut preface).await.unwrap();
            assert_eq!(&preface, b"PRI * HTTP/2.0");
        }
        drop(collector);
        ended.await.unwrap();
    }
}
