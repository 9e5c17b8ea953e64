//! Alerts of usage that reached a threshold of its quota.

use super::{clock::Timestamp, ids::QuotaAlertId, sql_enum::sql_enum};

sql_enum! {
    /// The highest threshold of a quota whose alert is raised. It falls only when the usage is well below the
    /// threshold; see `app.raise_quota_alert`.
    AlertLevel {
        /// No alert is raised.
        None = 1 => "none",
        /// The warning threshold was reached.
        Warning = 2 => "warning",
        /// The critical threshold was reached.
        Critical = 3 => "critical",
    }
}

/// An alert: a threshold of a quota was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaAlert {
    /// Ascends without gaps within a tenant, in the order of the alerts.
    pub number: i64,
    pub id: QuotaAlertId,
    pub level: AlertLevel,
    /// The threshold in percent of the limit.
    pub threshold_percent: i16,
    /// The usage after the change that reached the threshold.
    pub used_bytes: i64,
    /// The limit after that change.
    pub limit_bytes: i64,
    pub create_time: Timestamp,
    /// The addresses to which an e-mail was sent.
    pub emailed: Vec<String>,
}
