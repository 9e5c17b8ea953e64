//! A short-lived cache of quotas, which saves a query at the start of a small upload.
//!
//! The cached quota is only a hint: it can let an upload start, but never rejects one. The charge in the
//! commit decides whether the file fits, and a rejection always reads the row first.

use std::{sync::Arc, time::Duration};

use moka::future::Cache;

use crate::domain::{ids::TenantId, quota::Quota};

/// The maximum number of cached quotas.
const TENANTS_MAX: u64 = 10_000;
/// The time until a cached quota expires. A changed limit for the size of files is effective in every process
/// after this time, and at once in the process that changed it.
const TTL: Duration = Duration::from_secs(1);

/// Quotas that were read within the last second.
pub(in crate::app) struct QuotaCache(Cache<TenantId, Arc<Quota>>);

impl QuotaCache {
    pub(in crate::app) fn new() -> Self {
        Self(Cache::builder().max_capacity(TENANTS_MAX).time_to_live(TTL).build())
    }

    pub(in crate::app) async fn get(&self, tenant: TenantId) -> Option<Arc<Quota>> {
        self.0.get(&tenant).await
    }

    pub(in crate::app) async fn insert(&self, quota: &Quota) {
        self.0.insert(quota.tenant_id, Arc::new(quota.clone())).await;
    }

    /// Removes a quota whose row was changed by something other than an upload.
    pub(in crate::app) async fn invalidate(&self, tenant: TenantId) {
        self.0.invalidate(&tenant).await;
    }
}
