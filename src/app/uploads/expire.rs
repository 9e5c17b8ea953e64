//! Gives up uploads whose lease ran out: a crash left them, or a client that never came back.

use super::open::give_up;
use crate::{
    app::{App, Error},
    db::uploads::{self, ExpiredUpload},
    storage::MultipartId,
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
    let expired = uploads::list_expired(&mut tx, app.store.provider(), UPLOADS_PER_ROUND).await?;
    uploads::delete_committed(&mut tx).await?;
    tx.commit().await?;
    let mut given_up = 0;
    for upload in expired {
        match finish_off(app, &upload).await {
            Ok(is_given_up) => given_up += usize::from(is_given_up),
            Err(error) => {
                tracing::warn!(tenant = %upload.tenant, upload = %upload.lease.id, %error, "expire upload");
            }
        }
    }
    Ok(given_up)
}

async fn finish_off(app: &App, upload: &ExpiredUpload) -> Result<bool, Error> {
    let multipart = upload.multipart_id.clone().map(MultipartId::new);
    if !give_up(app, upload.tenant, upload.lease, &upload.key, multipart.as_ref()).await? {
        return Ok(false);
    }
    let mut tx = app.db.system_tx().await?;
    uploads::delete(&mut tx, upload.tenant, upload.lease.id).await?;
    tx.commit().await?;
    Ok(true)
}
