//! Enforces retention: creates upcoming partitions and drops expired data.

use super::{App, Error, idempotency};
use crate::db::{
    paid_downloads, partitions, share_grants, shares, storage_charges, tombstones, webhook_deliveries,
};

/// How long revoked and expired shares are kept, in days, so that their access log can be read. Temporary ones are
/// deleted when they end.
const CLOSED_SHARE_DAYS: u32 = 30;
/// The most shares that one round deletes.
const CLOSED_SHARES_MAX: i64 = 10_000;
/// The number of grants of visitors, payments or charges that one transaction deletes.
const ROWS_PER_TX: i64 = 10_000;
/// How long the storage charges of owners are kept, in days.
const STORAGE_CHARGE_DAYS: i64 = 400;

/// Creates upcoming partitions, drops expired idempotency responses, events, audit entries, access log entries and
/// finished jobs, and deletes expired grants of visitors, webhook deliveries, tombstones, shares, payments of downloads
/// and storage charges.
///
/// Idempotent: every process may run it. Each step has its own transaction, to hold locks for as short a time
/// as possible.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable or a table is locked; the next round retries.
pub async fn enforce_retention(app: &App) -> Result<(), Error> {
    create_upcoming_partitions(app).await?;
    let mut tx = app.db.system_tx().await?;
    let dropped = partitions::drop_expired_responses(&mut tx, idempotency::retention_hours(app)).await?;
    tx.commit().await?;
    let days = u32::try_from(app.limits.retention.event_days).unwrap_or(u32::MAX);
    let mut tx = app.db.system_tx().await?;
    let events = partitions::drop_expired_events(&mut tx, days).await?;
    tx.commit().await?;
    let audit_days = u32::try_from(app.limits.retention.audit_days).unwrap_or(u32::MAX);
    let mut tx = app.db.system_tx().await?;
    let audit_entries = partitions::drop_expired_audit_entries(&mut tx, audit_days).await?;
    tx.commit().await?;
    if audit_entries > 0 {
        tracing::info!(partitions = audit_entries, audit_days, "dropped expired audit entries");
    }
    let access_log_days = u32::try_from(app.limits.retention.access_log_days).unwrap_or(u32::MAX);
    let mut tx = app.db.system_tx().await?;
    let access_log = partitions::drop_expired_access_log(&mut tx, access_log_days).await?;
    tx.commit().await?;
    if access_log > 0 {
        tracing::info!(partitions = access_log, access_log_days, "dropped expired entries of the access log");
    }
    let mut tx = app.db.system_tx().await?;
    let deliveries = webhook_deliveries::delete_expired(&mut tx, days).await?;
    tx.commit().await?;
    let mut tx = app.db.system_tx().await?;
    let hours = u32::try_from(app.limits.retention.finished_job_days.saturating_mul(24)).unwrap_or(u32::MAX);
    let dropped = dropped + partitions::drop_expired_jobs(&mut tx, hours).await?;
    tx.commit().await?;
    let mut tx = app.db.system_tx().await?;
    let tombstones = tombstones::delete_expired(&mut tx).await?;
    tx.commit().await?;
    let share_grants = delete_expired_grants(app).await?;
    let mut tx = app.db.system_tx().await?;
    let shares = shares::delete_closed(&mut tx, CLOSED_SHARE_DAYS, CLOSED_SHARES_MAX).await?;
    tx.commit().await?;
    delete_expired_payments(app).await?;
    if dropped > 0 || events > 0 || deliveries > 0 || tombstones > 0 || shares > 0 || share_grants > 0 {
        tracing::info!(dropped, events, deliveries, tombstones, shares, share_grants, "dropped expired data");
    }
    Ok(())
}

async fn delete_expired_grants(app: &App) -> Result<usize, Error> {
    let mut deleted = 0;
    loop {
        let mut tx = app.db.system_tx().await?;
        let batch = share_grants::delete_expired(&mut tx, ROWS_PER_TX).await?;
        tx.commit().await?;
        deleted += batch;
        if is_last(batch) {
            return Ok(deleted);
        }
    }
}

/// Deletes payments of downloads that are no longer valid, and old storage charges.
async fn delete_expired_payments(app: &App) -> Result<(), Error> {
    let (mut payments, mut charges) = (0, 0);
    loop {
        let mut tx = app.db.system_tx().await?;
        let batch = paid_downloads::delete_expired(&mut tx, ROWS_PER_TX).await?;
        tx.commit().await?;
        payments += batch;
        if is_last(batch) {
            break;
        }
    }
    loop {
        let mut tx = app.db.system_tx().await?;
        let batch = storage_charges::delete_expired(&mut tx, STORAGE_CHARGE_DAYS, ROWS_PER_TX).await?;
        tx.commit().await?;
        charges += batch;
        if is_last(batch) {
            break;
        }
    }
    if payments > 0 || charges > 0 {
        tracing::info!(payments, charges, "deleted expired payments of downloads and storage charges");
    }
    Ok(())
}

/// Returns whether a batch of deleted rows was the last.
fn is_last(batch: usize) -> bool {
    i64::try_from(batch).unwrap_or(i64::MAX) < ROWS_PER_TX
}

/// Creates the partitions of the current and the next periods. Idempotent: every process that writes runs it, so that
/// partitions exist although no worker runs.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable or a table is locked.
pub async fn create_upcoming_partitions(app: &App) -> Result<(), Error> {
    for table in partitions::TABLES {
        let mut tx = app.db.system_tx().await?;
        partitions::create_upcoming(&mut tx, table).await?;
        tx.commit().await?;
    }
    Ok(())
}
