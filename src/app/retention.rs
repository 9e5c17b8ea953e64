//! Keeps room ready for what is kept by time, and lets go of what is over.

use super::{App, Error, idempotency};
use crate::db::{partitions, tombstones, webhook_deliveries};

/// Makes coming partitions, drops old answers, events and finished jobs, forgets old tombstones. Idempotent; every replica may run it. Each step is
/// a transaction of its own, so that none holds its locks longer than it must.
///
/// # Errors
/// When the database does not answer, or somebody holds a table; the next round tries again.
pub async fn retain(app: &App) -> Result<(), Error> {
    for table in partitions::TABLES {
        let mut tx = app.db.system_tx().await?;
        partitions::create_ahead(&mut tx, table).await?;
        tx.commit().await?;
    }
    let mut tx = app.db.system_tx().await?;
    let dropped = partitions::drop_old_answers(&mut tx, idempotency::hours(app)).await?;
    tx.commit().await?;
    let days = u32::try_from(app.limits.retention.event_days).unwrap_or(u32::MAX);
    let mut tx = app.db.system_tx().await?;
    let events = partitions::drop_old_events(&mut tx, days).await?;
    tx.commit().await?;
    let mut tx = app.db.system_tx().await?;
    let letters = webhook_deliveries::delete_old(&mut tx, days).await?;
    tx.commit().await?;
    let mut tx = app.db.system_tx().await?;
    let hours = u32::try_from(app.limits.retention.finished_job_days.saturating_mul(24)).unwrap_or(u32::MAX);
    let dropped = dropped + partitions::drop_old_jobs(&mut tx, hours).await?;
    tx.commit().await?;
    let mut tx = app.db.system_tx().await?;
    let forgotten = tombstones::delete_due(&mut tx).await?;
    tx.commit().await?;
    if dropped > 0 || events > 0 || letters > 0 || forgotten > 0 {
        tracing::info!(dropped, events, letters, forgotten, "retention");
    }
    Ok(())
}
