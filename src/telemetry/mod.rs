//! What the process says about itself: logs, traces, metrics and health.
//!
//! Logs go to standard error, one line an event, with the fields of the spans around it (call id, tenant,
//! trace id). Traces and metrics speak OpenTelemetry: metrics can always be scraped from the edge port, and
//! both are sent over OTLP where an endpoint is configured. The caller's W3C trace is continued in any case.

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

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `telemetry.log_filter` is not a filter.
    #[error("parse telemetry.log_filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The OTLP exporter could not be built.
    #[error("build OTLP exporter: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The Prometheus reader could not be built.
    #[error("build Prometheus reader: {0}")]
    Prometheus(#[from] opentelemetry_sdk::error::OTelSdkError),
    /// This process has a subscriber already.
    #[error("install log subscriber: {0}")]
    Subscriber(#[from] tracing_subscriber::util::TryInitError),
}

/// Telemetry of this process. Shut it down at the end, or the last spans are lost.
#[derive(Debug)]
pub struct Telemetry {
    metrics: Metrics,
    traces: Option<SdkTracerProvider>,
}

/// Sets up logs, traces and metrics for this process, once. With an OTLP endpoint it must be called inside a
/// Tokio runtime, because the exporter's connection lives there.
///
/// # Errors
/// When the filter or the endpoint is wrong, or when the process has a subscriber already.
pub fn init(config: &TelemetryConfig) -> Result<Telemetry, TelemetryError> {
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let resource = Resource::builder()
        .with_service_name(config.service_name.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let metrics = Metrics::open(resource.clone(), config)?;
    let traces = traces::provider(resource, config)?;
    tracing_subscriber::registry()
        .with(logs::layer(config, std::io::stderr)?)
        .with(traces.as_ref().map(traces::layer))
        .try_init()?;
    Ok(Telemetry { metrics, traces })
}

impl Telemetry {
    /// The instruments of this process.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Sends what is left and stops. It blocks while the exporter (if any) talks to its endpoint, a few
    /// seconds at most; on a multi-threaded runtime the other tasks go on.
    pub fn shutdown(self) {
        let stop = || {
            if let Some(Err(error)) = self.traces.map(|traces| traces.shutdown()) {
                tracing::warn!(%error, "the last traces were not sent");
            }
            if let Err(error) = self.metrics.shutdown() {
                tracing::warn!(%error, "the last metrics were not sent");
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
    async fn what_is_left_is_sent_when_the_process_ends() {
        let collector = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = Config::defaults().unwrap().telemetry;
        let endpoint = format!("http://{}", collector.local_addr().unwrap());
        config.otlp_endpoint = Some(endpoint.parse().unwrap());
        let resource = Resource::builder().build();
        let metrics = Metrics::open(resource.clone(), &config).unwrap();
        metrics.uploaded_bytes(1);
        let traces = traces::provider(resource, &config).unwrap();
        let spans = tracing_subscriber::registry().with(traces.as_ref().map(traces::layer));
        tracing::subscriber::with_default(spans, || drop(tracing::info_span!("request").entered()));

        let ended = tokio::spawn(async { Telemetry { metrics, traces }.shutdown() });
        // One connection for the traces and one for the metrics; neither gets an answer, and the end comes
        // all the same.
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
