//! Erases the rows and bytes of tenants that are being deleted, in bounded steps.
//!
//! The order makes each step repeatable, so that a step that was interrupted by a crash is found again.
//! First, open uploads are abandoned, because they hold reservations and may still write. Then the rows of
//! every table are deleted, then the blobs together with their rows, and then all remaining objects with the
//! tenant's prefix in the stores. Only then is the tenant marked as deleted. Blobs are deleted at once,
//! without the deletion delay of purged files, because the operator requested the erasure. The audit log is
//! not erased; its retention applies.
//!
//! Erasure starts when the tenant has expired from the caches of all processes, so that no request is served
//! from rows that are being deleted.

use std::collections::BTreeMap;

use super::{delete, directory::CACHE_SECONDS};
use crate::{
    app::{
        App, Error, RoundReport,
        owner::{
            StoreRefusal,
            delete::{Deletion, delete_from_store},
        },
        rounds::{DueItems, ItemFields, ItemOutcome, run_round},
        storage::delete_objects::delete_objects,
        uploads::expire::abandon_tenant_uploads,
    },
    db::{
        Viewer,
        audit_entries::{self, AuditAction, AuditEntry},
        blobs::{self, Blob, TenantBlob},
        stray_objects, tenant_records,
    },
    domain::{
        ids::{BlobId, TenantId},
        object_key::{ObjectKey, listing_prefix},
    },
    storage::ObjectStorage,
};

/// The number of rows deleted in one transaction.
const ROWS_PER_STEP: i32 = 1_000;
/// The number of objects deleted in one step.
const OBJECTS_PER_STEP: usize = 100;
/// The time from the change of state until no process has the tenant cached, with a margin of one half for
/// clock differences.
const ERASE_DELAY_SECONDS: u32 = CACHE_SECONDS + CACHE_SECONDS / 2;

/// Runs one step for each tenant of a round. If a step fails, the error is stored in the tenant's record, and
/// a later round retries it.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable.
pub async fn erase_deleting_tenants(app: &App) -> Result<RoundReport, Error> {
    run_round(&DeletingTenants { app }, &app.rotations.deleting_tenants).await
}

/// The tenants that are being deleted and that no process serves any more.
struct DeletingTenants<'a> {
    app: &'a App,
}

impl DueItems for DeletingTenants<'_> {
    type Item = TenantId;
    type Position = TenantId;

    const ACTION: &'static str = "erase tenant";
    const PAGE_ITEMS: usize = 10;

    async fn list_page(&self, after: Option<TenantId>, limit: i64) -> Result<Vec<TenantId>, Error> {
        let mut tx = self.app.db.system_tx().await?;
        let due = tenant_records::list_deleting(&mut tx, after, ERASE_DELAY_SECONDS, limit).await?;
        tx.commit().await?;
        Ok(due)
    }

    fn position(item: &TenantId) -> TenantId {
        *item
    }

    fn fields<'a>(&self, item: &'a TenantId) -> ItemFields<'a> {
        ItemFields::new(*item)
    }

    async fn process(&self, item: &TenantId) -> Result<ItemOutcome, Error> {
        let erased = erase_step(self.app, *item).await;
        let stored = store_problem(self.app, *item, &erased).await;
        match (erased, stored) {
            (Ok(outcome), stored) => stored.map(|()| outcome),
            (Err(error), Ok(())) => Err(error),
            (Err(error), Err(second)) => {
                tracing::warn!(tenant = %item, error = %second, "failed to store the problem of a deletion");
                Err(error)
            }
        }
    }
}

/// Stores the error of a step in the tenant's record, or clears it after a step that succeeded.
async fn store_problem(
    app: &App,
    tenant: TenantId,
    erased: &Result<ItemOutcome, Error>,
) -> Result<(), Error> {
    let problem = erased.as_ref().err().map(ToString::to_string).unwrap_or_default();
    let mut tx = app.db.system_tx().await?;
    tenant_records::set_deletion_problem(&mut tx, tenant, &problem).await?;
    Ok(tx.commit().await?)
}

/// Runs the next step for one tenant.
async fn erase_step(app: &App, tenant: TenantId) -> Result<ItemOutcome, Error> {
    if !may_erase(app).await? {
        return Ok(ItemOutcome::Skipped);
    }
    if abandon_tenant_uploads(app, tenant).await? > 0 {
        return Ok(ItemOutcome::Done);
    }
    check_retention(app, tenant).await?;
    if erase_rows(app, tenant).await? > 0 || delete_blobs(app, tenant).await? > 0 {
        return Ok(ItemOutcome::Done);
    }
    let mut tx = app.db.system_tx().await?;
    let stray_count = stray_objects::make_all_due(&mut tx, tenant).await?;
    tx.commit().await?;
    if stray_count > 0 {
        // `delete_stray_objects` deletes them. Continue when they are deleted.
        return Ok(ItemOutcome::Skipped);
    }
    let mut deleted = 0;
    for store in app.background_stores.iter() {
        deleted += delete_leftovers(app, store.as_ref(), tenant).await?;
    }
    if deleted == 0 {
        finish_deletion(app, tenant).await?;
    }
    Ok(ItemOutcome::Done)
}

/// Returns whether bytes may be deleted from all stores. If not, a row must not be deleted either.
async fn may_erase(app: &App) -> Result<bool, Error> {
    for store in app.stores.iter() {
        match app.owners.check_before_deletions(store.provider()).await? {
            None => {}
            Some(StoreRefusal::NotOwner(not_owner)) => return Err(Error::StoreNotOwned(not_owner)),
            Some(
                StoreRefusal::DeletesDisabled
                | StoreRefusal::Unconfirmed { .. }
                | StoreRefusal::Undecided { .. },
            ) => return Ok(false),
        }
    }
    Ok(true)
}

/// Checks that no file must be kept. A process with a cached tenant may have set a retention or hold after
/// the start of the deletion. Checked only before the first row is deleted, because no process serves the
/// tenant after that.
async fn check_retention(app: &App, tenant: TenantId) -> Result<(), Error> {
    let mut tx = app.db.system_tx().await?;
    let record = tenant_records::get(&mut tx, tenant).await?;
    tx.commit().await?;
    if record.is_none_or(|record| record.deletion.erased_row_count > 0) {
        return Ok(());
    }
    let mut tx = app.db.tenant_tx(tenant, &Viewer::system()).await?;
    let checked = delete::check_tenant_retention(&mut tx).await;
    tx.finish(checked).await
}

async fn erase_rows(app: &App, tenant: TenantId) -> Result<usize, Error> {
    let mut tx = app.db.system_tx().await?;
    let erased = tenant_records::erase_rows(&mut tx, tenant, ROWS_PER_STEP).await?;
    tx.commit().await?;
    Ok(usize::try_from(erased).unwrap_or_default())
}

/// Deletes blobs: the bytes before the rows, so that after a crash in between the rows still show what to
/// delete. A store that fails does not keep the blobs of the others.
async fn delete_blobs(app: &App, tenant: TenantId) -> Result<usize, Error> {
    let limit = i64::try_from(OBJECTS_PER_STEP).unwrap_or(i64::MAX);
    let mut tx = app.db.system_tx().await?;
    let due = blobs::list_for_tenant(&mut tx, tenant, limit).await?;
    tx.commit().await?;
    let mut by_provider: BTreeMap<String, Vec<Blob>> = BTreeMap::new();
    for TenantBlob { blob, .. } in due {
        by_provider.entry(blob.provider.clone()).or_default().push(blob);
    }
    let (mut deleted, mut failure): (Vec<BlobId>, Option<Error>) = (Vec::new(), None);
    for (provider, blobs) in by_provider {
        let store = match app.background_stores.get(&provider) {
            Ok(store) => store,
            Err(unknown) => {
                failure = Some(unknown.into());
                continue;
            }
        };
        let keys: Vec<ObjectKey> = blobs.iter().map(|blob| blob.key.clone()).collect();
        for (blob, result) in blobs.iter().zip(delete_objects(store.as_ref(), &keys).await) {
            match result {
                Ok(()) => deleted.push(blob.id),
                Err(error) => failure = Some(error.into()),
            }
        }
    }
    if !deleted.is_empty() {
        let mut tx = app.db.system_tx().await?;
        let (objects, bytes) = blobs::delete_all(&mut tx, tenant, &deleted).await?;
        tenant_records::add_erased_objects(&mut tx, tenant, objects, bytes).await?;
        tx.commit().await?;
    }
    failure.map_or(Ok(deleted.len()), Err)
}

/// Deletes objects and uploads with the tenant's prefix that have no row, because a crash left them.
async fn delete_leftovers(app: &App, store: &dyn ObjectStorage, tenant: TenantId) -> Result<usize, Error> {
    let prefix = format!("{}{tenant}/", listing_prefix(&app.limits.key_prefix));
    let unfinished = store.list_multiparts(&prefix, None, OBJECTS_PER_STEP).await?.multiparts;
    for multipart in &unfinished {
        delete_from_store(store, Deletion::Multipart(&multipart.key, &multipart.id)).await?;
    }
    let objects = store.list(&prefix, None, OBJECTS_PER_STEP).await?.objects;
    let keys: Vec<ObjectKey> = objects.iter().map(|object| object.key.clone()).collect();
    for result in delete_objects(store, &keys).await {
        result?;
    }
    let bytes: u64 = objects.iter().map(|object| object.size_bytes).sum();
    let mut tx = app.db.system_tx().await?;
    let count = i64::try_from(objects.len()).unwrap_or(i64::MAX);
    tenant_records::add_erased_objects(&mut tx, tenant, count, i64::try_from(bytes).unwrap_or(i64::MAX))
        .await?;
    tx.commit().await?;
    Ok(unfinished.len() + objects.len())
}

async fn finish_deletion(app: &App, tenant: TenantId) -> Result<(), Error> {
    let mut tx = app.db.system_tx().await?;
    if let Some(record) = tenant_records::end_deletion(&mut tx, tenant).await? {
        let details = serde_json::json!({ "step": "ended", "report": record.deletion });
        let entry = AuditEntry::system(AuditAction::TenantDelete, details);
        audit_entries::insert_for(&mut tx, tenant, &[entry]).await?;
        tracing::info!(%tenant, report = ?record.deletion, "deleted tenant");
    }
    tx.commit().await?;
    app.tenants.invalidate(tenant).await;
    Ok(())
}
