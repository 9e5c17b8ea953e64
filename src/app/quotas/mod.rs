//! Quotas and usage of tenants.

mod alerts;
pub(super) mod cache;
mod check;
mod check_rate_limit;
mod get;
mod history;
pub mod measure;
mod owners;
pub mod recalculate;
pub(super) mod resolve_tenant;
pub mod send_alert;
pub(super) mod trash;
pub(super) mod update;
mod usage;

pub use self::{
    alerts::{AlertPage, AlertQuery, list_quota_alerts},
    check::{CheckItem, QuotaCheck, check_quota},
    check_rate_limit::{RateLimitCheck, check_rate_limit},
    get::get_quota,
    history::{HistoryPage, HistoryQuery, get_usage_history},
    owners::{OwnerPage, list_top_owners},
    recalculate::{get_recalculation, request_recalculation},
    update::{QuotaUpdate, update_quota},
    usage::{Usage, UsageEntry, get_usage},
};
pub use crate::db::{
    usage_measurements::{OwnerUsage, UsageMeasurement},
    usage_samples::UsageSample,
};
