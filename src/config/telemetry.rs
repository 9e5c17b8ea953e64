//! `[telemetry]`: logs, traces and metrics.

use serde::Deserialize;
use url::Url;

use super::{validation::Violations, values::empty_url_as_none};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetryConfig {
    /// The format of log lines.
    pub log_format: LogFormat,
    /// The log level, or filter directives.
    pub log_filter: String,
    /// The OTLP endpoint for traces and metrics; `None` disables the export.
    #[serde(deserialize_with = "empty_url_as_none")]
    pub otlp_endpoint: Option<Url>,
    /// The share of traces to record, from 0 to 1, for traces that start in this service.
    pub trace_sample_ratio: f64,
    /// The name of this service in traces and metrics.
    pub service_name: String,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text for people.
    Text,
}

impl TelemetryConfig {
    pub(super) fn check(&self, violations: &mut Violations) {
        violations.check_not_empty("telemetry.log_filter", &self.log_filter);
        if self.otlp_endpoint.as_ref().is_some_and(|url| !matches!(url.scheme(), "http" | "https")) {
            violations.add("telemetry.otlp_endpoint", "must be an http or https URL");
        }
        violations.check_range("telemetry.trace_sample_ratio", self.trace_sample_ratio, 0.0..=1.0);
        violations.check_not_empty("telemetry.service_name", &self.service_name);
    }
}
