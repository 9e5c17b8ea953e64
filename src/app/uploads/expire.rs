//! Abandons uploads whose lease has expired: uploads left open by a crash or by a client that never returned.

use super::abandon::{AbandonedUpload, abandon_upload};
use crate::{
    app::{App, Error, rotation::Round},
    db::uploads,
    domain::ids::TenantId,
    storage::{MultipartId, ObjectStorage},
};

/// The number of uploads that one round processes per provider.
const UPLOADS_PER_ROUND: usize = 100;

/// Abandons one round of expired uploads and deletes their objects. An upload that fails is retried after the
/// rounds have processed all others.
///
/// # Errors
/// Returns an error if the database is unavailable.
pub async fn expire_uploads(app: &App) -> Result<Round, Error> {
    let mut tx = app.db.system_tx().await?;
    uploads::delete_committed(&mut tx).await?;
    tx.commit().await?;
    let mut all = Round::default();
    for store in app.stores.iter() {
        let round = expire_uploads_in_store(app, store.as_ref()).await?;
        all = Round { done: all.done + round.done, has_more: all.has_more || round.has_more };
    }
    Ok(all)
}

/// Processes one round for one provider, so that an unreachable provider does not delay the others.
pub(in crate::app) async fn expire_uploads_in_store(
    app: &App,
    store: &dyn ObjectStorage,
) -> Result<Round, Error> {
    let provider = store.provider();
    let after = app.rotations.expired_uploads.position(provider);
    let limit = i64::try_from(UPLOADS_PER_ROUND).unwrap_or(i64::MAX);
    let mut tx = app.db.system_tx().await?;
    let expired = uploads::list_expired(&mut tx, provider, after, limit).await?;
    tx.commit().await?;
    let has_more = expired.len() == UPLOADS_PER_ROUND;
    let last = expired.last().filter(|_| has_more).map(uploads::ExpiredUpload::cursor);
    app.rotations.expired_uploads.advance(provider, last);
    let mut done = 0;
    for upload in expired {
        let multipart = upload.multipart_id.map(MultipartId::new);
        let abandoned = AbandonedUpload {
            tenant: upload.tenant,
            lease: upload.lease,
            key: &upload.key,
            multipart: multipart.as_ref(),
            staging_key: upload.staging_key.as_ref(),
            is_recorded: true,
            is_expired: true,
        };
        match abandon_upload(app, store, abandoned).await {
            Ok(is_abandoned) => done += usize::from(is_abandoned),
            Err(error) => {
                tracing::warn!(tenant = %upload.tenant, upload = %upload.lease.id, %error, "failed to expire upload");
            }
        }
    }
    Ok(Round { done, has_more })
}

/// Abandons uploads of a tenant that is being deleted, regardless of their lease, at most one round. Returns
/// the number of uploads processed.
///
/// # Errors
/// Returns an error if the database or the store is unavailable, or if the store is not configured.
pub(in crate::app) async fn abandon_tenant_uploads(app: &App, tenant: TenantId) -> Result<usize, Error> {
    let limit = i64::try_from(UPLOADS_PER_ROUND).unwrap_or(i64::MAX);
    let mut tx = app.db.system_tx().await?;
    let open = uploads::list_for_tenant(&mut tx, tenant, limit).await?;
    tx.commit().await?;
    let count = open.len();
    for (provider, upload) in open {
        let multipart = upload.multipart_id.map(MultipartId::new);
        let (lease, key) = (upload.lease, &upload.key);
        let (multipart, staging_key) = (multipart.as_ref(), upload.staging_key.as_ref());
        let abandoned = AbandonedUpload {
            tenant,
            lease,
            key,
            multipart,
            staging_key,
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
