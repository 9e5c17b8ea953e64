//! Quotas and usage of tenants.

pub(super) mod cache;
mod get;
pub(super) mod resolve_tenant;
pub(super) mod trash;
pub(super) mod update;
mod usage;

pub use self::{
    get::get_quota,
    update::{QuotaUpdate, update_quota},
    usage::{Usage, UsageEntry, get_usage},
};
