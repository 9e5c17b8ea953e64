//! Quotas as they were a moment ago, so that a small file need not ask before it sends what it has already sent.
//!
//! A hint and no more: it lets an upload begin, and never refuses one. Whether the file fits is decided by the charge in
//! its commit, and a refusal always looks at the row itself first.

use std::{sync::Arc, time::Duration};

use moka::future::Cache;

use crate::domain::{ids::TenantId, quota::Quota};

/// Tenants that are remembered.
const TENANTS_MAX: u64 = 10_000;
/// For how long: a changed limit for the size of files counts after so long on every replica, and at once on the one
/// that changed it.
const LIFE: Duration = Duration::from_secs(1);

/// The quotas that were read within the last second.
pub(in crate::app) struct RecentQuotas(Cache<TenantId, Arc<Quota>>);

impl RecentQuotas {
    pub(in crate::app) fn new() -> Self {
        Self(Cache::builder().max_capacity(TENANTS_MAX).time_to_live(LIFE).build())
    }

    pub(in crate::app) async fn get(&self, tenant: TenantId) -> Option<Arc<Quota>> {
        self.0.get(&tenant).await
    }

    pub(in crate::app) async fn remember(&self, quota: &Quota) {
        self.0.insert(quota.tenant_id, Arc::new(quota.clone())).await;
    }

    /// The row was changed by someone other than an upload.
    pub(in crate::app) async fn forget(&self, tenant: TenantId) {
        self.0.invalidate(&tenant).await;
    }
}
