//! Alerts of quotas. The trigger `usage_crossed` inserts them in the transaction that changes the usage.

use diesel::{
    ExpressionMethods as _, QueryDsl as _, Queryable, Selectable, SelectableHelper as _,
    sql_types::{BigInt, Text, Uuid as SqlUuid},
};

use super::{
    DbError, TenantTx,
    schema::quota_alerts,
    sql::{OfTenant as _, query, statement},
};
use crate::domain::{
    clock::Timestamp,
    ids::QuotaAlertId,
    quota_alert::{AlertLevel, QuotaAlert},
};

#[derive(Queryable, Selectable)]
#[diesel(table_name = quota_alerts, check_for_backend(diesel::pg::Pg))]
struct Row {
    number: i64,
    id: QuotaAlertId,
    alert_level: AlertLevel,
    threshold_percent: i16,
    used_bytes: i64,
    limit_bytes: i64,
    create_time: Timestamp,
    emailed: Vec<String>,
}

impl From<Row> for QuotaAlert {
    fn from(row: Row) -> Self {
        Self {
            number: row.number,
            id: row.id,
            level: row.alert_level,
            threshold_percent: row.threshold_percent,
            used_bytes: row.used_bytes,
            limit_bytes: row.limit_bytes,
            create_time: row.create_time,
            emailed: row.emailed,
        }
    }
}

/// Returns the alerts of the tenant before the one with this number, the newest first.
pub async fn list(tx: &mut TenantTx, before: Option<i64>, limit: i64) -> Result<Vec<QuotaAlert>, DbError> {
    let page = quota_alerts::table
        .of(tx.tenant())
        .filter(quota_alerts::number.lt(before.unwrap_or(i64::MAX)))
        .order(quota_alerts::number.desc())
        .limit(limit)
        .select(Row::as_select());
    let rows: Vec<Row> = query("list quota alerts", page).load(tx.connection()?).await?;
    Ok(rows.into_iter().map(QuotaAlert::from).collect())
}

/// Returns an alert, if it is still stored.
pub async fn get(tx: &mut TenantTx, number: i64) -> Result<Option<QuotaAlert>, DbError> {
    let alert =
        quota_alerts::table.of(tx.tenant()).filter(quota_alerts::number.eq(number)).select(Row::as_select());
    let row: Option<Row> = query("read quota alert", alert).first(tx.connection()?).await?;
    Ok(row.map(QuotaAlert::from))
}

/// Records that the e-mail of an alert was sent to an address.
pub async fn add_emailed(tx: &mut TenantTx, number: i64, address: &str) -> Result<(), DbError> {
    // Appends to an array.
    statement(
        "record alert e-mail",
        "UPDATE quota_alerts SET emailed = array_append(emailed, $3) WHERE tenant_id = $1 AND number = $2",
    )
    .bind::<SqlUuid, _>(tx.tenant())
    .bind::<BigInt, _>(number)
    .bind::<Text, _>(address.to_owned())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}
