//! Quotas and usage of tenants.

pub(super) mod cache;
pub mod get;
pub(super) mod resolve_tenant;
pub mod update;
pub mod usage;
