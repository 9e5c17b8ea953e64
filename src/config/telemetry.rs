//! `[telemetry]`: logs, traces, metrics.

use serde::Deserialize;
use url::Url;

use super::{validation::Violations, values::no_url_if_empty};

/// Logs, traces, metrics.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetryConfig {
    /// How log lines look.
    pub log_format: LogFormat,
    /// What is logged: a level or directives.
    pub log_filter: String,
    /// Where traces and metrics are sent; none for nowhere.
    #[serde(deserialize_with = "no_url_if_empty")]
    pub otlp_endpoint: Option<Url>,
    /// The share of traces that begin here and are recorded, 0 to 1.
    pub trace_sample_ratio: f64,
    /// This service's name in traces and metrics.
    pub service_name: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One object a line.
    Json,
    /// For people.
    Text,
}

impl TelemetryConfig {
    pub(super) fn check(&self, violations: &mut Violations) {
        violations.not_empty("telemetry.log_filter", &self.log_filter);
        if self.otlp_endpoint.as_ref().is_some_and(|url| !matches!(url.scheme(), "http" | "https")) {
            violations.refuse("telemetry.otlp_endpoint", "must be an http or https URL");
        }
        violations.range("telemetry.trace_sample_ratio", self.trace_sample_ratio, 0.0..=1.0);
        violations.not_empty("telemetry.service_name", &self.service_name);
    }
}
