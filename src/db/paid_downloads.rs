//! The versions that users have paid to download.

use diesel::sql_types::{BigInt, Integer, Text, Uuid as SqlUuid};

use super::{DbError, SystemTx, TenantTx, sql::statement};
use crate::domain::ids::FileId;

/// How long a payment is valid, in hours.
const VALID_HOURS: i32 = 24;

/// The payment of a download.
#[derive(Debug, Clone, Copy)]
pub struct DownloadPayment<'a> {
    pub user_id: &'a str,
    pub file: FileId,
    pub version: i32,
}

/// Records a payment, unless a valid one exists. Returns whether it was recorded, so that the caller must deduct the
/// price in the same transaction. Waits for a concurrent payment of the same user and version.
pub async fn record(tx: &mut TenantTx, payment: DownloadPayment<'_>) -> Result<bool, DbError> {
    // An upsert that writes and locks nothing if a valid payment exists.
    let recorded = statement(
        "record download payment",
        "INSERT INTO paid_downloads AS p (tenant_id, user_id, file_id, version, pay_time)
         SELECT $1, $2, $3, $4, app.now() WHERE NOT EXISTS (
             SELECT FROM paid_downloads WHERE tenant_id = $1 AND user_id = $2 AND file_id = $3 AND version = $4
               AND pay_time > app.now() - $5 * interval '1 hour')
         ON CONFLICT (tenant_id, user_id, file_id, version) DO UPDATE SET pay_time = excluded.pay_time
         WHERE p.pay_time <= excluded.pay_time - $5 * interval '1 hour'",
    )
    .bind::<SqlUuid, _>(tx.tenant())
    .bind::<Text, _>(payment.user_id.to_owned())
    .bind::<SqlUuid, _>(payment.file)
    .bind::<Integer, _>(payment.version)
    .bind::<Integer, _>(VALID_HOURS)
    .execute(tx.connection()?)
    .await?;
    Ok(recorded == 1)
}

/// Deletes up to `limit` payments that are no longer valid. Returns their number.
pub async fn delete_expired(tx: &mut SystemTx, limit: i64) -> Result<usize, DbError> {
    // A limited deletion. A payment may be renewed meanwhile, so its time is compared again.
    statement(
        "delete expired download payments",
        "DELETE FROM paid_downloads AS p USING (
            SELECT e.tenant_id, e.user_id, e.file_id, e.version FROM paid_downloads AS e
            WHERE e.pay_time <= app.now() - $2 * interval '1 hour' ORDER BY e.pay_time LIMIT $1) AS expired
         WHERE p.tenant_id = expired.tenant_id AND p.user_id = expired.user_id AND p.file_id = expired.file_id
           AND p.version = expired.version AND p.pay_time <= app.now() - $2 * interval '1 hour'",
    )
    .bind::<BigInt, _>(limit)
    .bind::<Integer, _>(VALID_HOURS)
    .execute(tx.connection()?)
    .await
}
