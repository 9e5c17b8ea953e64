//! Gives up uploads whose lease ran out: a crash left them, or a client that never came back.

use super::open::give_up;
use crate::{
    app::{App, Error},
    db::uploads,
    storage::{MultipartId, ObjectStorage},
};

/// How many uploads one round looks at.
const UPLOADS_PER_ROUND: i64 = 100;

/// Releases one round of expired uploads and removes what they left in the store; answers how many. One that fails is
/// tried again in the next round and does not hold up the others.
///
/// # Errors
/// When the database does not answer.
pub async fn expire(app: &App) -> Result<usize, Error> {
    let mut tx = app.db.system_tx().await?;
    uploads::delete_committed(&mut tx).await?;
    tx.commit().await?;
    let mut given_up = 0;
    for store in app.stores.iter() {
        given_up += expire_provider(app, store.as_ref()).await?;
    }
    Ok(given_up)
}

/// A round for each provider, so that one that is away does not hold up the others.
async fn expire_provider(app: &App, store: &dyn ObjectStorage) -> Result<usize, Error> {
    let mut tx = app.db.system_tx().await?;
    let expired = uploads::list_expired(&mut tx, store.provider(), UPLOADS_PER_ROUND).await?;
    tx.commit().await?;
    let mut given_up = 0;
    for upload in expired {
        let multipart = upload.multipart_id.map(MultipartId::new);
        match give_up(app, store, upload.tenant, upload.lease, &upload.key, multipart.as_ref()).await {
            Ok(is_given_up) => given_up += usize::from(is_given_up),
            Err(error) => {
                tracing::warn!(tenant = %upload.tenant, upload = %upload.lease.id, %error, "expire upload");
            }
        }
    }
    Ok(given_up)
}
