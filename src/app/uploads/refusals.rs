//! Metrics of rejected uploads.

use crate::{
    app::Error,
    telemetry::{Metrics, metrics::QuotaLimit},
};

/// Counts an upload that was rejected by a quota or a size limit.
pub(super) fn count_refusal(metrics: &Metrics, error: &Error) {
    match error {
        Error::QuotaBytes { .. } => metrics.count_quota_refusal(QuotaLimit::Bytes),
        Error::QuotaFiles { .. } => metrics.count_quota_refusal(QuotaLimit::Files),
        Error::FileTooLarge { .. } => metrics.count_quota_refusal(QuotaLimit::FileSize),
        _ => {}
    }
}
