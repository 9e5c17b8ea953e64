//! Abandons uploads whose lease has expired: uploads left open by a crash or by a client that never returned.

use super::open::abandon::{AbandonedUpload, abandon_upload};
use crate::{
    app::{
        App, Error, RoundReport,
        rounds::{DueItems, ItemFields, ItemOutcome, run_pass, run_round_in_each_store},
    },
    db::uploads::{self, ExpiredUpload, ExpiredUploadCursor},
    domain::ids::TenantId,
    storage::{MultipartId, ObjectStorage},
};

/// The number of uploads of a deleted tenant that one step abandons.
const UPLOADS_PER_STEP: i64 = 100;

/// Deletes the rows of committed uploads whose lease has expired. Then abandons one round of expired
/// uploads in each store.
///
/// # Errors
/// Returns an error if the database is unavailable.
pub async fn expire_uploads(app: &App) -> Result<RoundReport, Error> {
    let mut tx = app.db.system_tx().await?;
    uploads::delete_committed(&mut tx).await?;
    tx.commit().await?;
    let rotation = &app.rotations.expired_uploads;
    run_round_in_each_store(app, rotation, |store| ExpiredUploads { app, store }).await
}

/// Abandons all expired uploads in one store.
///
/// # Errors
/// Returns an error if the database is unavailable.
pub(in crate::app) async fn expire_all_uploads_in_store(
    app: &App,
    store: &dyn ObjectStorage,
) -> Result<RoundReport, Error> {
    run_pass(&ExpiredUploads { app, store }, usize::MAX).await
}

/// The expired uploads in one store.
struct ExpiredUploads<'a> {
    app: &'a App,
    store: &'a dyn ObjectStorage,
}

impl DueItems for ExpiredUploads<'_> {
    type Item = ExpiredUpload;
    type Position = ExpiredUploadCursor;

    const ACTION: &'static str = "expire upload";
    const PAGE_ITEMS: usize = 100;
    // The reservations are released in any case.
    const NEEDS_DELETIONS: bool = false;

    fn provider(&self) -> Option<&str> {
        Some(self.store.provider())
    }

    async fn list_page(
        &self,
        after: Option<ExpiredUploadCursor>,
        limit: i64,
    ) -> Result<Vec<ExpiredUpload>, Error> {
        let mut tx = self.app.db.system_tx().await?;
        let expired = uploads::list_expired(&mut tx, self.store.provider(), after, limit).await?;
        tx.commit().await?;
        Ok(expired)
    }

    fn position(item: &ExpiredUpload) -> ExpiredUploadCursor {
        item.cursor()
    }

    fn fields<'a>(&self, item: &'a ExpiredUpload) -> ItemFields<'a> {
        ItemFields { upload: Some(item.lease.id), ..ItemFields::new(item.tenant) }
    }

    async fn process(&self, item: &ExpiredUpload) -> Result<ItemOutcome, Error> {
        let abandoned = AbandonedUpload {
            tenant: item.tenant,
            lease: item.lease,
            key: &item.key,
            multipart: item.multipart_id.clone().map(MultipartId::new),
            staging_key: item.staging_key.as_ref(),
            is_recorded: true,
            is_expired: true,
        };
        abandon_upload(self.app, self.store, abandoned).await.map(ItemOutcome::from_done)
    }
}

/// Abandons uploads of a tenant that is being deleted, regardless of their lease, up to the limit of one
/// step. Returns the number of uploads processed.
///
/// # Errors
/// Returns an error if the database or the store is unavailable, or if the store is not configured.
pub(in crate::app) async fn abandon_tenant_uploads(app: &App, tenant: TenantId) -> Result<usize, Error> {
    let mut tx = app.db.system_tx().await?;
    let open = uploads::list_for_tenant(&mut tx, tenant, UPLOADS_PER_STEP).await?;
    tx.commit().await?;
    let count = open.len();
    for (provider, upload) in open {
        let abandoned = AbandonedUpload {
            tenant,
            lease: upload.lease,
            key: &upload.key,
            multipart: upload.multipart_id.clone().map(MultipartId::new),
            staging_key: upload.staging_key.as_ref(),
            is_recorded: true,
            is_expired: false,
        };
        abandon_upload(app, app.stores.get(&provider)?.as_ref(), abandoned).await?;
    }
    Ok(count)
}

/// Counts the expired uploads of a provider.
///
/// # Errors
/// Returns an error if the database is unavailable.
pub async fn count_expired_uploads(app: &App, provider: &str) -> Result<u64, Error> {
    let mut tx = app.db.system_tx().await?;
    let count = uploads::count_expired(&mut tx, provider).await?;
    tx.commit().await?;
    Ok(count)
}
