//! The first calls of tenants that do not exist yet, so that a refused call never creates a tenant.
//!
//! When the message of a first call is decoded, its tenant is created *provisionally*: the use case can read and
//! write, and for everyone else the tenant does not exist. It exists when one of its first calls has succeeded,
//! before the response is sent. If all have failed, and nothing works for them any more, it is removed.
//!
//! The database counts the first calls of a provisional tenant, in all processes, and a tenant is removed only if
//! none is in progress. A tenant for which something is stored is not removed, but exists from then on: its call was
//! cancelled, or its response was lost, after it had taken effect. `settle` ends the first calls of processes that
//! crashed.

use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::Instrument as _;

use super::TenantName;
use crate::{
    app::{App, Error, Resource, tasks::Task},
    db::{
        SystemTx,
        audit_entries::{self, AuditAction, AuditEntry},
        provisional_tenants::{self, ConfirmedTenant, Removal},
        tenant_records,
    },
    domain::{caller::Tenant, first_call::FirstCallWork, ids::TenantId},
};

/// A first call in progress. Dropping it ends the call as one that failed.
pub struct ProvisionalCall {
    app: Arc<App>,
    name: TenantName,
    /// `None` when the call has ended.
    open: Option<OpenCall>,
}

struct OpenCall {
    tenant: TenantId,
    work: FirstCallWork,
    /// Receives whether the call may have left objects, when nothing works for it any more.
    ended: oneshot::Receiver<bool>,
}

impl ProvisionalCall {
    /// Describes a call that was counted in the row of its provisional tenant.
    pub(super) fn new(app: &Arc<App>, name: TenantName, tenant: TenantId) -> Self {
        let (sender, ended) = oneshot::channel();
        let work = FirstCallWork::new(move |may_have_objects| {
            // The receiver is dropped when the call has succeeded.
            let _ = sender.send(may_have_objects);
        });
        Self { app: Arc::clone(app), name, open: Some(OpenCall { tenant, work, ended }) }
    }

    /// Returns the mark of the work for this call.
    pub(super) fn work(&self) -> Option<FirstCallWork> {
        self.open.as_ref().map(|open| open.work.clone())
    }

    /// Makes the tenant exist, because the call has succeeded. If the database becomes unavailable, the tenant exists
    /// later: after its next call, or when its first calls are settled.
    pub async fn succeed(mut self) {
        let Some(OpenCall { tenant, .. }) = self.open.take() else { return };
        let (app, name) = (Arc::clone(&self.app), self.name.clone());
        // In a task: a call that is cancelled now has succeeded.
        let confirming = async move { confirm_tenant(&app, tenant, &name).await };
        let confirmed = self.app.tasks.spawn(confirming.in_current_span()).await;
        if let Ok(Err(error)) | Err(error) = confirmed.map_err(Error::internal) {
            tracing::warn!(%tenant, %error, "failed to confirm tenant");
        }
    }

    /// Ends a call that has failed. Waits until the tenant is removed, unless a task still works for the call.
    pub async fn fail(mut self) {
        let Some(leaving) = self.leave_in_task() else { return };
        if let Err(error) = leaving.await {
            tracing::warn!(%error, "failed to end a first call");
        }
    }

    /// Ends a call that has not succeeded. Returns the task that ends it, if nothing else works for the call.
    fn leave_in_task(&mut self) -> Option<Task<()>> {
        let OpenCall { tenant, work, mut ended } = self.open.take()?;
        drop(work);
        let may_have_objects = ended.try_recv().ok();
        let (app, name) = (Arc::clone(&self.app), self.name.clone());
        let leaving = async move {
            let may_have_objects = match may_have_objects {
                Some(may_have_objects) => may_have_objects,
                None => ended.await.unwrap_or(true),
            };
            if let Err(error) = leave_tenant(&app, tenant, &name, may_have_objects).await {
                tracing::warn!(%tenant, %error, "failed to leave provisional tenant");
            }
        };
        let task = self.app.tasks.spawn(leaving.in_current_span());
        may_have_objects.is_some().then_some(task)
    }
}

impl Drop for ProvisionalCall {
    fn drop(&mut self) {
        drop(self.leave_in_task());
    }
}

/// Makes the tenant exist, and caches it for the calls that follow.
async fn confirm_tenant(app: &App, tenant: TenantId, name: &TenantName) -> Result<(), Error> {
    let (now, invalidation_count) = (app.clock.now(), app.tenants.invalidation_count());
    let mut tx = app.db.system_tx().await?;
    let confirmed = confirm_in_tx(&mut tx, tenant).await?;
    tx.commit().await?;
    match confirmed {
        Some(tenant) => drop(app.tenants.cache_tenant(name, tenant, now, invalidation_count).await),
        // Another call has made it exist. The next call reads it.
        None => app.tenants.forget_unknown(name).await,
    }
    Ok(())
}

/// Checks that a tenant exists. Makes a provisional one exist, because an operator acts on it: its id is in the log
/// lines of its first calls.
///
/// # Errors
/// Returns `NotFound` if there is none.
pub(super) async fn adopt_tenant(app: &App, id: TenantId) -> Result<(), Error> {
    let mut tx = app.db.operator_tx().await?;
    confirm_in_tx(&mut tx, id).await?;
    let record = tenant_records::get(&mut tx, id).await?;
    tx.commit().await?;
    record.map(|_| ()).ok_or(Error::NotFound(Resource::Tenant))
}

/// Makes the tenant exist, unless it does, and records that it was created. Returns it if it did not exist.
pub(super) async fn confirm_in_tx(tx: &mut SystemTx, id: TenantId) -> Result<Option<Tenant>, Error> {
    let Some(confirmed) = provisional_tenants::confirm(tx, id).await? else { return Ok(None) };
    let ConfirmedTenant { tenant, issuer, create_time } = confirmed;
    let (kind, preset) = (tenant.kind, &tenant.policy.name);
    let details = serde_json::json!({ "kind": kind, "issuer": issuer, "preset": preset });
    let entry = AuditEntry::system(AuditAction::TenantCreate, details);
    // The creation precedes what its first calls have done.
    audit_entries::insert_at(tx, id, create_time, &[entry]).await?;
    tracing::info!(tenant = %id, %kind, %preset, "created tenant");
    Ok(Some(tenant))
}

async fn leave_tenant(
    app: &App,
    tenant: TenantId,
    name: &TenantName,
    may_have_objects: bool,
) -> Result<(), Error> {
    let mut tx = app.db.system_tx().await?;
    let removal = match provisional_tenants::leave(&mut tx, tenant, may_have_objects).await? {
        true => settle_in_tx(&mut tx, tenant).await?,
        false => Removal::Busy,
    };
    tx.commit().await?;
    match removal {
        Removal::Removed => app.tenants.refund_creation(&name.issuer).await,
        Removal::Used => app.tenants.forget_unknown(name).await,
        Removal::Busy | Removal::Pending => {}
    }
    Ok(())
}

/// Removes a provisional tenant without first calls in progress, or makes it exist if something is stored for it.
pub(super) async fn settle_in_tx(tx: &mut SystemTx, tenant: TenantId) -> Result<Removal, Error> {
    let removal = provisional_tenants::remove(tx, tenant).await?;
    match removal {
        Removal::Used => drop(confirm_in_tx(tx, tenant).await?),
        Removal::Removed => tracing::debug!(%tenant, "removed provisional tenant"),
        Removal::Busy | Removal::Pending => {}
    }
    Ok(removal)
}
