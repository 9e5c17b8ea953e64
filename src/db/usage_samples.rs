//! Samples of the usage of tenants, one for each day.

use diesel::{
    ExpressionMethods as _, QueryDsl as _, Queryable, Selectable, SelectableHelper as _,
    sql_types::{BigInt, Uuid as SqlUuid},
};

use super::{
    DbError, SystemTx, TenantTx,
    schema::usage_samples,
    sql::{OfTenant as _, days, now_minus, query, statement},
};
use crate::domain::{
    clock::{TIMESTAMP_MAX, Timestamp},
    ids::TenantId,
};

/// A sample of the usage of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = usage_samples, check_for_backend(diesel::pg::Pg))]
pub struct UsageSample {
    pub sample_time: Timestamp,
    pub used_bytes: i64,
    pub limit_bytes: i64,
    pub file_count: i64,
    pub old_version_bytes: i64,
    pub trash_bytes: i64,
}

/// Adds the sample of today from the quota and the measurement of a tenant, unless there is one, and drops samples that
/// are `kept_days` old. Returns whether the sample was added.
pub async fn add_today(tx: &mut SystemTx, tenant: TenantId, kept_days: i64) -> Result<bool, DbError> {
    // An insert from two tables, whose key is computed.
    let added = statement(
        "add usage sample",
        "INSERT INTO usage_samples (tenant_id, day, sample_time, used_bytes, limit_bytes, file_count, old_version_bytes,
             trash_bytes)
         SELECT q.tenant_id, (app.now() AT TIME ZONE 'UTC')::date, app.now(), q.used_bytes, q.limit_bytes, q.file_count,
                m.old_version_bytes, m.trash_bytes
         FROM quotas AS q JOIN usage_measurements AS m USING (tenant_id) WHERE q.tenant_id = $1
         ON CONFLICT (tenant_id, day) DO NOTHING",
    )
    .bind::<SqlUuid, _>(tenant)
    .execute(tx.connection()?)
    .await?;
    if added == 0 {
        return Ok(false);
    }
    // A computed date.
    statement(
        "drop usage samples",
        "DELETE FROM usage_samples
         WHERE tenant_id = $1 AND day <= (app.now() AT TIME ZONE 'UTC')::date - $2::integer",
    )
    .bind::<SqlUuid, _>(tenant)
    .bind::<BigInt, _>(kept_days)
    .execute(tx.connection()?)
    .await?;
    Ok(true)
}

/// The samples to list: after the position `after`, from `start` and before `end`.
#[derive(Debug, Clone, Copy, Default)]
pub struct SampleRange {
    pub start: Option<Timestamp>,
    pub end: Option<Timestamp>,
    pub after: Option<Timestamp>,
}

/// Returns samples of the transaction's tenant, the oldest first. A tenant has at most one for each day.
pub async fn list(tx: &mut TenantTx, range: SampleRange, limit: i64) -> Result<Vec<UsageSample>, DbError> {
    let samples = usage_samples::table
        .of(tx.tenant())
        .filter(usage_samples::sample_time.ge(range.start.unwrap_or(Timestamp::UNIX_EPOCH)))
        .filter(usage_samples::sample_time.gt(range.after.unwrap_or(Timestamp::UNIX_EPOCH)))
        .filter(usage_samples::sample_time.lt(range.end.unwrap_or(TIMESTAMP_MAX)))
        .order(usage_samples::sample_time)
        .limit(limit)
        .select(UsageSample::as_select());
    query("list usage samples", samples).load(tx.connection()?).await
}

/// Returns the oldest sample of the last days of the transaction's tenant.
pub async fn find_oldest_of(tx: &mut TenantTx, last_days: u32) -> Result<Option<UsageSample>, DbError> {
    let oldest = usage_samples::table
        .of(tx.tenant())
        .filter(usage_samples::sample_time.ge(now_minus(days(last_days))))
        .order(usage_samples::sample_time)
        .limit(1)
        .select(UsageSample::as_select());
    query("find oldest usage sample", oldest).first(tx.connection()?).await
}
