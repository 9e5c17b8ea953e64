//! Quotas and usage of tenants.

mod alerts;
pub(super) mod cache;
pub(super) mod charge;
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
mod users;

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
    users::{UserQuotaPage, UserQuotaUpdate, get_user_quota, list_user_quotas, update_user_quota},
};
pub use crate::db::{
    usage_measurements::{OwnerUsage, UsageMeasurement},
    usage_samples::UsageSample,
};
