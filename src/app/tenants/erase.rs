//! Removes the rows and the bytes of tenants that are being deleted, a bounded piece a round.
//!
//! The order makes every piece repeatable: what a crash cuts off is found again. First what holds room and may still write
//! (open uploads), then the rows of every table, then the bytes with the rows that name them, then whatever the stores
//! hold under the tenant's prefix. Only then is the tenant called deleted. The bytes go at once, without the window that
//! purged files have: erasing is what was asked for. The audit log stays; it is kept by time.
//!
//! It begins when every replica has forgotten the tenant, so that nobody is served from rows that are going.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use super::{delete, directory::CACHE_SECONDS};
use crate::{
    app::{App, Error, uploads::expire::give_up_all},
    db::{
        Viewer,
        audit_entries::{self, AuditAction, AuditEntry},
        blobs::{self, TenantBlob},
        stray_objects, tenant_records,
    },
    domain::ids::{BlobId, TenantId},
    storage::ObjectStorage,
};

/// Tenants looked at in one round.
const TENANTS_PER_ROUND: usize = 10;
/// Rows erased in one transaction.
const ROWS_PER_STEP: i32 = 1_000;
/// Objects removed between two looks at the database.
const OBJECTS_PER_STEP: usize = 100;
/// Objects removed at once.
const OBJECTS_AT_ONCE: usize = 8;
/// Every replica has forgotten a tenant this long after its state changed; half as much again for clocks.
const REST_SECONDS: u32 = CACHE_SECONDS + CACHE_SECONDS / 2;
/// Tenants are no store's: one turn for all of them.
const ALL: &str = "";

/// Does one step for each of a round of tenants; answers how much was removed. A tenant whose step fails keeps the reason
/// in its record, and has its turn again.
///
/// # Errors
/// When the database does not answer.
pub async fn round(app: &App) -> Result<usize, Error> {
    let after = app.rotations.deleting_tenants.place(ALL);
    let limit = i64::try_from(TENANTS_PER_ROUND).unwrap_or(i64::MAX);
    let mut tx = app.db.system_tx().await?;
    let due = tenant_records::list_deleting(&mut tx, after, (REST_SECONDS, limit)).await?;
    tx.commit().await?;
    let last = due.last().copied().filter(|_| due.len() == TENANTS_PER_ROUND);
    app.rotations.deleting_tenants.turn(ALL, last);
    let mut removed = 0;
    for tenant in due {
        let problem = match step(app, tenant).await {
            Ok(count) => {
                removed += count;
                String::new()
            }
            Err(error) => {
                tracing::warn!(%tenant, %error, "delete tenant");
                error.to_string()
            }
        };
        let mut tx = app.db.system_tx().await?;
        tenant_records::set_problem(&mut tx, tenant, &problem).await?;
        tx.commit().await?;
    }
    Ok(removed)
}

/// The next piece of one tenant; answers how much it was.
async fn step(app: &App, tenant: TenantId) -> Result<usize, Error> {
    let uploads = give_up_all(app, tenant).await?;
    if uploads > 0 {
        return Ok(uploads);
    }
    check_retention(app, tenant).await?;
    let rows = erase_rows(app, tenant).await?;
    if rows > 0 {
        return Ok(rows);
    }
    let objects = remove_blobs(app, tenant).await?;
    if objects > 0 {
        return Ok(objects);
    }
    let mut tx = app.db.system_tx().await?;
    let strays = stray_objects::hurry(&mut tx, tenant).await?;
    tx.commit().await?;
    if strays > 0 {
        // Whoever reaps strays removes them; this goes on when they are gone.
        return Ok(0);
    }
    let mut left = 0;
    for store in app.stores.iter() {
        left += clear_store(app, store.as_ref(), tenant).await?;
    }
    if left > 0 { Ok(left) } else { end(app, tenant).await }
}

/// Nothing is erased while a file must be kept, also when a replica that remembered the tenant said so after the deletion had
/// begun. Asked before the first row goes: later there is nobody to say it.
async fn check_retention(app: &App, tenant: TenantId) -> Result<(), Error> {
    let mut tx = app.db.system_tx().await?;
    let record = tenant_records::get(&mut tx, tenant).await?;
    tx.commit().await?;
    if record.is_none_or(|record| record.deletion.removed_row_count > 0) {
        return Ok(());
    }
    let mut tx = app.db.tenant_tx(tenant, &Viewer::system()).await?;
    let checked = delete::check_retention(&mut tx).await;
    tx.finish(checked).await
}

async fn erase_rows(app: &App, tenant: TenantId) -> Result<usize, Error> {
    let mut tx = app.db.system_tx().await?;
    let erased = tenant_records::erase_rows(&mut tx, tenant, ROWS_PER_STEP).await?;
    tx.commit().await?;
    Ok(usize::try_from(erased).unwrap_or_default())
}

/// First the bytes, then their rows: a crash in between leaves rows that say what to remove.
async fn remove_blobs(app: &App, tenant: TenantId) -> Result<usize, Error> {
    let limit = i64::try_from(OBJECTS_PER_STEP).unwrap_or(i64::MAX);
    let mut tx = app.db.system_tx().await?;
    let due = blobs::list_of_tenant(&mut tx, tenant, limit).await?;
    tx.commit().await?;
    let mut deletions = Vec::with_capacity(due.len());
    for TenantBlob { blob, .. } in due {
        let store = Arc::clone(app.stores.of(&blob.provider)?);
        deletions.push(async move { store.delete(&blob.key).await.map(|()| blob.id) });
    }
    let gone: Vec<BlobId> = stream::iter(deletions).buffer_unordered(OBJECTS_AT_ONCE).try_collect().await?;
    if gone.is_empty() {
        return Ok(0);
    }
    let mut tx = app.db.system_tx().await?;
    let (objects, bytes) = blobs::delete_all(&mut tx, tenant, &gone).await?;
    tenant_records::count_removed(&mut tx, tenant, objects, bytes).await?;
    tx.commit().await?;
    Ok(gone.len())
}

/// Removes what a store holds under the tenant's prefix without any row: what crashes have left.
async fn clear_store(app: &App, store: &dyn ObjectStorage, tenant: TenantId) -> Result<usize, Error> {
    let prefix = match app.limits.key_prefix.as_str() {
        "" => format!("{tenant}/"),
        prefix => format!("{prefix}/{tenant}/"),
    };
    let unfinished = store.list_multiparts(&prefix, None, OBJECTS_PER_STEP).await?.multiparts;
    for multipart in &unfinished {
        store.abort_multipart(&multipart.key, &multipart.id).await?;
    }
    let objects = store.list(&prefix, None, OBJECTS_PER_STEP).await?.objects;
    for object in &objects {
        store.delete(&object.key).await?;
    }
    let bytes: u64 = objects.iter().map(|object| object.size_bytes).sum();
    let mut tx = app.db.system_tx().await?;
    let count = i64::try_from(objects.len()).unwrap_or(i64::MAX);
    tenant_records::count_removed(&mut tx, tenant, count, i64::try_from(bytes).unwrap_or(i64::MAX)).await?;
    tx.commit().await?;
    Ok(unfinished.len() + objects.len())
}

async fn end(app: &App, tenant: TenantId) -> Result<usize, Error> {
    let mut tx = app.db.system_tx().await?;
    if let Some(record) = tenant_records::end_deletion(&mut tx, tenant).await? {
        let details = serde_json::json!({ "step": "ended", "report": record.deletion });
        let entry = AuditEntry::system(AuditAction::TenantDelete, details);
        audit_entries::insert_for(&mut tx, tenant, &[entry]).await?;
        tracing::info!(%tenant, report = ?record.deletion, "tenant deleted");
    }
    tx.commit().await?;
    app.tenants.forget(tenant).await;
    Ok(1)
}
