//! Counts the bytes that a pass must still read, a part at a time. Scrubbing does not depend on it: while a count fails
//! or goes on, the rate follows from the last one.

use crate::{
    app::{App, Error},
    db::{scrub_counts, scrubs},
};

/// The rows of one part.
const PART_ROWS: i64 = 20_000;

/// The number of parts in one round.
const PARTS_MAX: usize = 10;

/// Continues the count of the rest of the pass, if it is due: at the start of a pass, and every few hours.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable. The failure of a count is no error.
pub(super) async fn count_left_if_due(app: &App, provider: &str) -> Result<(), Error> {
    let mut tx = app.db.system_tx().await?;
    // The first pass begins now.
    scrubs::lock_pass(&mut tx, provider).await?;
    tx.commit().await?;
    for _ in 0..PARTS_MAX {
        match count_next_part(app, provider).await {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(provider, %error, "failed to count the objects to scrub; the count continues later");
                break;
            }
        }
    }
    Ok(())
}

/// Counts the next part. Returns true if the count is complete.
async fn count_next_part(app: &App, provider: &str) -> Result<bool, Error> {
    let mut tx = app.db.system_tx().await?;
    let is_complete = scrub_counts::count_next_part(&mut tx, provider, PART_ROWS).await?;
    tx.commit().await?;
    Ok(is_complete)
}
