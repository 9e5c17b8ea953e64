//! Counts the blobs without a copy, a part at a time. Copying does not depend on it: a count that fails or takes long
//! delays no copy.

use crate::{
    app::{App, Error},
    db::replications,
};

/// The rows of one part.
const PART_ROWS: i64 = 20_000;

/// The number of parts in one round.
const PARTS_MAX: usize = 10;

/// Continues the count of blobs without a copy at a replica provider, if it is due.
pub(super) async fn count_pending_if_due(app: &App, provider: &str) {
    for _ in 0..PARTS_MAX {
        match count_next_part(app, provider).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(provider, %error, "failed to count the blobs without a copy; the count continues later");
                return;
            }
        }
    }
}

/// Counts the next part. Returns true if the count is complete.
async fn count_next_part(app: &App, provider: &str) -> Result<bool, Error> {
    let mut tx = app.db.system_tx().await?;
    let is_complete = replications::count_next_part(&mut tx, provider, PART_ROWS).await?;
    tx.commit().await?;
    Ok(is_complete)
}
