//! Metrics with OpenTelemetry names. In Prometheus format, dots become underscores and the unit is appended
//! (`strongroom.request.duration` in `s` is `strongroom_request_duration_seconds`).
//!
//! Attribute values come from small fixed sets. Never use a tenant, a file or a user as an attribute: each
//! would create a time series.

mod jobs;
mod observables;
mod rate_limits;
mod scrubs;
mod ticks;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, Meter, MeterProvider, UpDownCounter},
};
use opentelemetry_otlp::{MetricExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    metrics::{MeterProviderBuilder, SdkMeterProvider},
};
use prometheus::{Registry, TextEncoder};

pub use self::{
    jobs::AttemptOutcome,
    observables::{BreakerLevel, PeersState, PoolState, SharesState},
    scrubs::{ReplicationLevel, ScrubLevel, ScrubOutcome},
    ticks::{TickLabels, TickOutcome},
};
use self::{
    jobs::JobInstruments, observables::Observables, rate_limits::RateLimitInstruments,
    scrubs::ScrubInstruments, ticks::TickInstruments,
};
use super::{
    TelemetryError,
    traces::{SCOPE, native_roots},
};
use crate::config::TelemetryConfig;

/// Histogram bounds for durations in seconds, from a cached read to a request at its deadline.
const DURATION_BOUNDS_SECONDS: [f64; 14] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// Histogram bounds for batch sizes: powers of two up to the configurable maximum.
const BATCH_SIZE_BOUNDS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// The outcome of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadOutcome {
    /// The file was created.
    Committed,
    /// The upload was rejected because of the caller: an invalid field, insufficient quota, a wrong digest.
    Refused,
    /// The client disconnected or sent no data.
    Abandoned,
    /// The service, the store or the database failed.
    Failed,
}

impl UploadOutcome {
    const fn name(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Refused => "refused",
            Self::Abandoned => "abandoned",
            Self::Failed => "failed",
        }
    }
}

/// The quota limit that an upload exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaLimit {
    /// Total size of the tenant's files.
    Bytes,
    /// Number of the tenant's files.
    Files,
    /// Total size of the files of a user.
    UserBytes,
    /// Number of the files of a user.
    UserFiles,
    /// Size of one file.
    FileSize,
}

impl QuotaLimit {
    const fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Files => "files",
            Self::UserBytes => "user_bytes",
            Self::UserFiles => "user_files",
            Self::FileSize => "file_size",
        }
    }
}

/// The metric instruments of the service. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    provider: SdkMeterProvider,
    observables: Observables,
    requests: Counter<u64>,
    request_duration: Histogram<f64>,
    requests_in_flight: UpDownCounter<i64>,
    uploaded: Counter<u64>,
    downloaded: Counter<u64>,
    uploads: Counter<u64>,
    commit_batch_size: Histogram<u64>,
    commit_duration: Histogram<f64>,
    quota_refusals: Counter<u64>,
    storage_operations: Counter<u64>,
    storage_duration: Histogram<f64>,
    storage_up: Gauge<u64>,
    storage_owned: Gauge<u64>,
    clock_offset: Gauge<f64>,
    rate_limits: RateLimitInstruments,
    jobs: JobInstruments,
    ticks: TickInstruments,
    scrubs: ScrubInstruments,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Creates independent instruments for a test. They are not exported but can be rendered.
    ///
    /// # Errors
    /// Fails only if a new registry rejects its first reader.
    pub fn for_tests() -> Result<Self, TelemetryError> {
        Self::build(SdkMeterProvider::builder())
    }

    pub(super) fn open(resource: Resource, config: &TelemetryConfig) -> Result<Self, TelemetryError> {
        let mut builder = SdkMeterProvider::builder().with_resource(resource);
        if let Some(endpoint) = &config.otlp_endpoint {
            let exporter = MetricExporter::builder().with_tonic().with_endpoint(endpoint.as_str());
            let exporter = if endpoint.scheme() == "https" {
                exporter.with_tls_config(native_roots())
            } else {
                exporter
            };
            builder = builder.with_periodic_exporter(exporter.build()?);
        }
        Self::build(builder)
    }

    fn build(builder: MeterProviderBuilder) -> Result<Self, TelemetryError> {
        let registry = Registry::new();
        let scrape = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .build()?;
        let provider = builder.with_reader(scrape).build();
        let meter = provider.meter(SCOPE);
        let inner = Inner {
            registry,
            observables: Observables::new(&meter),
            jobs: JobInstruments::new(&meter),
            ticks: TickInstruments::new(&meter),
            scrubs: ScrubInstruments::new(&meter),
            requests: counter(&meter, "strongroom.requests", "", "Completed requests, by method and code"),
            request_duration: duration_histogram(
                &meter,
                "strongroom.request.duration",
                "Duration of requests; streams are measured to their end",
            ),
            requests_in_flight: meter
                .i64_up_down_counter("strongroom.requests.in_flight")
                .with_description("Requests in progress")
                .build(),
            uploaded: counter(&meter, "strongroom.uploaded", "By", "File data received from clients"),
            downloaded: counter(&meter, "strongroom.downloaded", "By", "File data sent to clients"),
            uploads: counter(&meter, "strongroom.uploads", "", "Completed uploads, by outcome"),
            commit_batch_size: meter
                .u64_histogram("strongroom.commit.batch_size")
                .with_description("Uploads committed in one transaction")
                .with_boundaries(BATCH_SIZE_BOUNDS.into())
                .build(),
            commit_duration: duration_histogram(
                &meter,
                "strongroom.commit.duration",
                "Duration of transactions that commit uploads",
            ),
            quota_refusals: counter(
                &meter,
                "strongroom.quota.refusals",
                "",
                "Requests refused because of a quota, by limit",
            ),
            storage_operations: counter(
                &meter,
                "strongroom.storage.operations",
                "",
                "Operations on the store, by operation and outcome",
            ),
            storage_duration: duration_histogram(
                &meter,
                "strongroom.storage.operation.duration",
                "Duration of operations on the store",
            ),
            storage_up: meter
                .u64_gauge("strongroom.storage.up")
                .with_description("Whether a provider is reachable and writable, 0 or 1")
                .build(),
            storage_owned: meter
                .u64_gauge("strongroom.storage.owned")
                .with_description("Whether the store of a provider belongs to the database, 0 or 1")
                .build(),
            clock_offset: meter
                .f64_gauge("strongroom.clock.offset")
                .with_unit("s")
                .with_description("Time of the database minus the time of this machine")
                .build(),
            rate_limits: RateLimitInstruments::new(&meter),
            provider,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Starts to measure a request. `method` is the full method name (`strongroom.v1.FileService/GetFile`).
    /// Requests for unknown methods must share one name; otherwise clients could create time series.
    pub fn start_request(&self, method: impl Into<Arc<str>>) -> RequestTimer {
        self.inner.requests_in_flight.add(1, &[]);
        RequestTimer {
            metrics: self.clone(),
            method: method.into(),
            started: Instant::now(),
            code: "CANCELLED",
        }
    }

    /// Adds file data received from a client, in bytes.
    pub fn add_uploaded_bytes(&self, bytes: u64) {
        self.inner.uploaded.add(bytes, &[]);
    }

    /// Adds file data sent to a client, in bytes.
    pub fn add_downloaded_bytes(&self, bytes: u64) {
        self.inner.downloaded.add(bytes, &[]);
    }

    /// Counts an upload with its outcome.
    pub fn count_upload(&self, outcome: UploadOutcome) {
        self.inner.uploads.add(1, &[KeyValue::new("outcome", outcome.name())]);
    }

    /// Records a transaction that committed `batch_size` uploads.
    pub fn record_commit(&self, batch_size: u64, duration: Duration) {
        self.inner.commit_batch_size.record(batch_size, &[]);
        self.inner.commit_duration.record(duration.as_secs_f64(), &[]);
    }

    /// Counts a request that was rejected because of a quota limit.
    pub fn count_quota_refusal(&self, limit: QuotaLimit) {
        self.inner.quota_refusals.add(1, &[KeyValue::new("limit", limit.name())]);
    }

    /// Records one operation on the store. Both names come from the fixed sets of the storage port.
    pub fn record_storage_operation(
        &self,
        operation: &'static str,
        outcome: &'static str,
        duration: Duration,
    ) {
        let operation = KeyValue::new("operation", operation);
        self.inner.storage_duration.record(duration.as_secs_f64(), std::slice::from_ref(&operation));
        self.inner.storage_operations.add(1, &[operation, KeyValue::new("outcome", outcome)]);
    }

    /// Sets whether a provider is reachable and writable. Its name comes from the configuration.
    pub fn set_storage_up(&self, provider: &str, is_up: bool) {
        self.inner.storage_up.record(u64::from(is_up), &[KeyValue::new("provider", provider.to_owned())]);
    }

    /// Sets whether the store of a provider belongs to the database.
    pub fn set_storage_owned(&self, provider: &str, is_owned: bool) {
        let label = KeyValue::new("provider", provider.to_owned());
        self.inner.storage_owned.record(u64::from(is_owned), &[label]);
    }

    /// Sets the time of the database minus the time of this machine.
    pub fn set_clock_offset(&self, seconds: f64) {
        self.inner.clock_offset.record(seconds, &[]);
    }

    /// Registers the function that returns the used bytes of the byte budget when metrics are collected.
    /// `read` must not block. If the budget holds these metrics, `read` should hold a weak reference to the
    /// budget.
    pub fn observe_byte_budget(&self, read: impl Fn() -> u64 + Send + Sync + 'static) {
        self.inner.observables.set_byte_budget(Box::new(read));
    }

    /// Registers the function that returns the state of a database pool when metrics are collected. `read`
    /// must not block.
    pub fn observe_pool(&self, pool: &'static str, read: impl Fn() -> PoolState + Send + Sync + 'static) {
        self.inner.observables.add_pool(pool, Box::new(read));
    }

    /// Registers the function that returns how callers share a resource when metrics are collected. `read` must
    /// not block.
    pub fn observe_shares(
        &self,
        resource: &'static str,
        read: impl Fn() -> SharesState + Send + Sync + 'static,
    ) {
        self.inner.observables.add_shares(resource, Box::new(read));
    }

    /// Registers the function that returns the circuit breakers of the stores when metrics are collected. `read`
    /// must not block.
    pub fn observe_breakers(&self, read: impl Fn() -> Vec<BreakerLevel> + Send + Sync + 'static) {
        self.inner.observables.set_breakers(Box::new(read));
    }

    /// Registers the function that returns the connections of a port when metrics are collected. `read` must
    /// not block.
    pub fn observe_peers(&self, port: &'static str, read: impl Fn() -> PeersState + Send + Sync + 'static) {
        self.inner.observables.add_peers(port, Box::new(read));
    }

    /// Renders all metrics in the Prometheus text format.
    ///
    /// # Errors
    /// Returns an error if the name or value of an instrument cannot be represented in that format.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.inner.registry.gather())
    }

    pub(super) fn shutdown(&self) -> OTelSdkResult {
        self.inner.provider.shutdown()
    }
}

/// A request in progress. When dropped, it is counted and measured with the code that was set, or with
/// CANCELLED if the client disconnected before there was one.
#[derive(Debug)]
pub struct RequestTimer {
    metrics: Metrics,
    method: Arc<str>,
    started: Instant,
    code: &'static str,
}

impl RequestTimer {
    /// Sets the gRPC status code of the request (`OK`, `NOT_FOUND`).
    pub fn set_code(&mut self, code: &'static str) {
        self.code = code;
    }
}

impl Drop for RequestTimer {
    fn drop(&mut self) {
        let inner = &self.metrics.inner;
        let method = KeyValue::new("method", Arc::clone(&self.method));
        let duration = self.started.elapsed().as_secs_f64();
        inner.request_duration.record(duration, std::slice::from_ref(&method));
        inner.requests.add(1, &[method, KeyValue::new("code", self.code)]);
        inner.requests_in_flight.add(-1, &[]);
    }
}

fn counter(meter: &Meter, name: &'static str, unit: &'static str, description: &'static str) -> Counter<u64> {
    meter.u64_counter(name).with_unit(unit).with_description(description).build()
}

fn duration_histogram(meter: &Meter, name: &'static str, description: &'static str) -> Histogram<f64> {
    let histogram = meter.f64_histogram(name).with_unit("s").with_description(description);
    histogram.with_boundaries(DURATION_BOUNDS_SECONDS.into()).build()
}

#[cfg(test)]
mod tests;
