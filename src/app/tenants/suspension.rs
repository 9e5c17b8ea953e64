//! Detects that the tenant of a running stream was suspended or deleted.
//!
//! A request is checked when it starts, and a suspended tenant rejects new ones. A stream can outlive that
//! check, so each asks again in intervals. The streams of a tenant in this process share one query per interval.
//! The state is read from the database, so the streams of every process end.

use std::{sync::Arc, time::Duration};

use moka::future::Cache;
use tokio::time::sleep;

use crate::{
    app::{App, Error},
    db::{Database, DbError, Viewer, tenants},
    domain::{caller::TenantState, ids::TenantId},
};

/// The maximum number of cached states.
const TENANTS_MAX: u64 = 10_000;

/// The states of the tenants with running streams, each read at most once per interval.
pub(in crate::app) struct TenantStates {
    states: Cache<TenantId, TenantState>,
    interval: Duration,
}

impl TenantStates {
    /// Creates a cache of states that are read again after `interval`.
    pub(in crate::app) fn new(interval: Duration) -> Self {
        Self { states: Cache::builder().max_capacity(TENANTS_MAX).time_to_live(interval).build(), interval }
    }

    /// Returns the state of a tenant as of at most one interval ago. Concurrent callers share one query.
    async fn get(&self, db: &Database, tenant: TenantId) -> Result<TenantState, Arc<DbError>> {
        self.states.try_get_with(tenant, read_state(db, tenant)).await
    }
}

async fn read_state(db: &Database, tenant: TenantId) -> Result<TenantState, DbError> {
    let mut tx = db.check_tx(tenant, &Viewer::system()).await?;
    let state = tenants::get_state(&mut tx).await;
    tx.finish(state).await
}

/// Waits until the tenant is suspended or deleted, at most twice the interval of
/// `tenants.stream_recheck_milliseconds` after that, and returns the error that ends its streams.
///
/// While the database is unavailable, it continues to wait: nobody can suspend the tenant then. Any other failure
/// of the check ends the streams.
pub async fn wait_until_suspended(app: &App, tenant: TenantId) -> Error {
    loop {
        sleep(app.tenant_states.interval).await;
        match app.tenant_states.get(&app.db, tenant).await.map(Error::check_tenant_active) {
            Ok(Ok(())) => {}
            Ok(Err(inactive)) => return inactive,
            Err(error) if !error.is_outage() => return (*error).clone().into(),
            Err(error) => {
                tracing::warn!(%tenant, %error, "failed to read the state of a tenant with running streams");
            }
        }
    }
}
