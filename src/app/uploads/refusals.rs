//! Counts what was refused for lack of room.

use crate::{
    app::Error,
    telemetry::{Metrics, metrics::QuotaLimit},
};

/// Counts what was refused for lack of room.
pub(super) fn count_refusal(metrics: &Metrics, error: &Error) {
    match error {
        Error::QuotaBytes { .. } => metrics.quota_refused(QuotaLimit::Bytes),
        Error::QuotaFiles { .. } => metrics.quota_refused(QuotaLimit::Files),
        Error::FileTooLarge { .. } => metrics.quota_refused(QuotaLimit::FileSize),
        _ => {}
    }
}
