//! Abandons uploads whose lease has expired: uploads left open by a crash or by a client that never returned.

use super::open::abandon::{AbandonedUpload, abandon_upload, release_reservation};
use crate::{
    app::{
        App, Error, RoundReport,
        rounds::{
            DueItems, ItemFields, ItemOutcome, RoundStore, run_pass, run_round, run_round_in_each_store,
            run_round_in_store,
        },
    },
    db::{
        Viewer, unknown_objects,
        uploads::{self, ExpiredUpload, ExpiredUploadCursor},
    },
    domain::{ids::TenantId, object_key::ObjectKey},
    storage::{MultipartId, ObjectStorage},
};

/// The number of uploads of a deleted tenant that one step abandons.
const UPLOADS_PER_STEP: i64 = 100;

/// Releases the reservations of one round of expired uploads, and deletes the rows of committed uploads whose
/// lease has expired. Uses no store, so a store that is unreachable does not keep reservations. The bytes are deleted
/// by [`delete_expired_uploads_in`].
///
/// # Errors
/// Returns an error if the database is unavailable.
pub async fn release_expired_uploads(app: &App) -> Result<RoundReport, Error> {
    let mut tx = app.db.system_tx().await?;
    uploads::delete_committed(&mut tx).await?;
    tx.commit().await?;
    if !app.owners.may_change_records() {
        return Ok(RoundReport::default());
    }
    run_round(&ExpiredReservations { app }, &app.rotations.expired_reservations).await
}

/// Abandons one round of expired uploads in one store: deletes their bytes, then their rows.
///
/// # Errors
/// Returns an error if the database is unavailable, and `ProviderUnknown` if the provider is not configured.
pub async fn delete_expired_uploads_in(app: &App, provider: &str) -> Result<RoundReport, Error> {
    let rotation = &app.rotations.expired_uploads;
    run_round_in_store(app, provider, rotation, |store| ExpiredUploads { app, store }).await
}

/// Abandons one round of expired uploads in each store.
///
/// # Errors
/// Returns an error if the database is unavailable.
pub async fn expire_uploads(app: &App) -> Result<RoundReport, Error> {
    let mut total = release_expired_uploads(app).await?;
    let rotation = &app.rotations.expired_uploads;
    total += run_round_in_each_store(app, rotation, |store| ExpiredUploads { app, store }).await?;
    Ok(total)
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

/// Describes an upload whose lease has expired.
fn describe_expired(expired: &ExpiredUpload) -> AbandonedUpload<'_> {
    AbandonedUpload {
        tenant: expired.tenant,
        lease: expired.lease,
        key: &expired.key,
        multipart: expired.multipart_id.clone().map(MultipartId::new),
        staging_key: expired.staging_key.as_ref(),
        is_recorded: true,
        is_expired: true,
    }
}

/// The expired uploads that have a reservation, in all stores.
struct ExpiredReservations<'a> {
    app: &'a App,
}

impl DueItems for ExpiredReservations<'_> {
    type Item = ExpiredUpload;
    type Position = ExpiredUploadCursor;

    const ACTION: &'static str = "release reservation of expired upload";
    const PAGE_ITEMS: usize = 100;

    async fn list_page(
        &self,
        after: Option<ExpiredUploadCursor>,
        limit: i64,
    ) -> Result<Vec<ExpiredUpload>, Error> {
        let mut tx = self.app.db.system_tx().await?;
        let expired = uploads::list_expired_open(&mut tx, after, limit).await?;
        tx.commit().await?;
        Ok(expired)
    }

    fn position(item: &ExpiredUpload) -> ExpiredUploadCursor {
        item.cursor()
    }

    fn fields<'a>(&self, item: &'a ExpiredUpload) -> ItemFields<'a> {
        ItemFields { upload: Some(item.lease.id), ..ItemFields::new(item.tenant) }
    }

    /// The upload counts as done when its bytes are deleted.
    async fn process(&self, item: &ExpiredUpload) -> Result<ItemOutcome, Error> {
        let mut tx = self.app.db.tenant_tx(item.tenant, &Viewer::system()).await?;
        let released = release_reservation(&mut tx, &describe_expired(item)).await;
        tx.finish(released).await?;
        Ok(ItemOutcome::Enqueued)
    }
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
    // The reservations are released in any case. An upload that was open in a restored state may have been completed
    // since: its object is then one of the lost hours, and the store refuses to delete it before the decision.
    const NEEDS_DELETIONS: bool = false;

    fn round_store(&self) -> Option<RoundStore<'_>> {
        RoundStore::of(self.app, self.store)
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
        abandon_upload(self.app, self.store, describe_expired(item)).await.map(ItemOutcome::from_done)
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
        abandon_upload(app, app.background_stores.get(&provider)?.as_ref(), abandoned).await?;
    }
    Ok(count)
}

/// Ends the uploads that have the key of an object which another row references from now on: releases their
/// reservations and deletes their rows. So a client that still knows such an upload cannot delete the object: by
/// cancelling the upload, or by resuming it, which begins it again.
///
/// # Errors
/// Returns an error if the database is unavailable.
pub(in crate::app) async fn end_uploads_of_object(app: &App, key: &ObjectKey) -> Result<(), Error> {
    let mut tx = app.db.system_tx().await?;
    let named = uploads::list_for_key(&mut tx, key).await?;
    tx.commit().await?;
    for upload in &named {
        let mut tx = app.db.tenant_tx(upload.tenant, &Viewer::system()).await?;
        let ended = AbandonedUpload { is_expired: false, ..describe_expired(upload) };
        let released = release_reservation(&mut tx, &ended).await;
        tx.finish(released).await?;
    }
    let mut tx = app.db.system_tx().await?;
    unknown_objects::delete_abandoned_uploads(&mut tx, key).await?;
    Ok(tx.commit().await?)
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
