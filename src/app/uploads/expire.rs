//! Gives up uploads whose lease ran out: a crash left them, or a client that never came back.

use super::give_up::{Left, give_up};
use crate::{
    app::{App, Error, rotation::Round},
    db::uploads,
    domain::ids::TenantId,
    storage::{MultipartId, ObjectStorage},
};

/// How many uploads one round looks at.
const UPLOADS_PER_ROUND: usize = 100;

/// Releases one round of expired uploads and removes what they left in the store. One that fails is tried again when the
/// rounds have been through all the others.
///
/// # Errors
/// When the database does not answer.
pub async fn expire(app: &App) -> Result<Round, Error> {
    let mut tx = app.db.system_tx().await?;
    uploads::delete_committed(&mut tx).await?;
    tx.commit().await?;
    let mut all = Round::default();
    for store in app.stores.iter() {
        let round = expire_in(app, store.as_ref()).await?;
        all = Round { done: all.done + round.done, has_more: all.has_more || round.has_more };
    }
    Ok(all)
}

/// A round for one provider, so that one that is away does not hold up the others.
pub(in crate::app) async fn expire_in(app: &App, store: &dyn ObjectStorage) -> Result<Round, Error> {
    let provider = store.provider();
    let after = app.rotations.expired_uploads.place(provider);
    let limit = i64::try_from(UPLOADS_PER_ROUND).unwrap_or(i64::MAX);
    let mut tx = app.db.system_tx().await?;
    let expired = uploads::list_expired(&mut tx, provider, after, limit).await?;
    tx.commit().await?;
    let has_more = expired.len() == UPLOADS_PER_ROUND;
    let last = expired.last().filter(|_| has_more).map(uploads::ExpiredUpload::place);
    app.rotations.expired_uploads.turn(provider, last);
    let mut done = 0;
    for upload in expired {
        let multipart = upload.multipart_id.map(MultipartId::new);
        let left = Left {
            tenant: upload.tenant,
            lease: upload.lease,
            key: &upload.key,
            multipart: multipart.as_ref(),
            staging_key: upload.staging_key.as_ref(),
            is_recorded: true,
            is_expired: true,
        };
        match give_up(app, store, left).await {
            Ok(is_given_up) => done += usize::from(is_given_up),
            Err(error) => {
                tracing::warn!(tenant = %upload.tenant, upload = %upload.lease.id, %error, "expire upload");
            }
        }
    }
    Ok(Round { done, has_more })
}

/// Gives up uploads of a tenant that is going, whatever their lease: at most a round of them. Answers how many were looked
/// at.
///
/// # Errors
/// When database or store do not answer, or the store is not configured.
pub(in crate::app) async fn give_up_all(app: &App, tenant: TenantId) -> Result<usize, Error> {
    let limit = i64::try_from(UPLOADS_PER_ROUND).unwrap_or(i64::MAX);
    let mut tx = app.db.system_tx().await?;
    let open = uploads::list_of_tenant(&mut tx, tenant, limit).await?;
    tx.commit().await?;
    let count = open.len();
    for (provider, upload) in open {
        let multipart = upload.multipart_id.map(MultipartId::new);
        let (lease, key) = (upload.lease, &upload.key);
        let (multipart, staging_key) = (multipart.as_ref(), upload.staging_key.as_ref());
        let left = Left { tenant, lease, key, multipart, staging_key, is_recorded: true, is_expired: false };
        give_up(app, app.stores.of(&provider)?.as_ref(), left).await?;
    }
    Ok(count)
}

/// How many uploads of a store would be given up.
///
/// # Errors
/// When the database does not answer.
pub async fn count(app: &App, provider: &str) -> Result<u64, Error> {
    let mut tx = app.db.system_tx().await?;
    let count = uploads::count_expired(&mut tx, provider).await?;
    tx.commit().await?;
    Ok(count)
}
