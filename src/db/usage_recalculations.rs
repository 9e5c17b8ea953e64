//! Recalculations of usage. The drift of a quota is measured in one snapshot and subtracted later.
//!
//! A change of files and its change of the counters commit together, so a snapshot contains both or neither, and no
//! change modifies the difference between the counters and the files. So the drift stays exact while others change
//! files, no row is locked while the files are read, and subtracting the drift overwrites no concurrent change.

use diesel::{
    ExpressionMethods as _, NullableExpressionMethods as _, QueryDsl as _, Queryable, QueryableByName,
    Selectable, SelectableHelper as _,
    sql_types::{BigInt, SmallInt, Text, Uuid as SqlUuid},
};

use super::{
    DbError, TenantTx,
    charged::CHARGED,
    schema::usage_recalculations,
    sql::{OfTenant as _, now, query, sql, statement},
    usage_counters::UsageDelta,
    user_quotas::{self, UserDrift},
};
use crate::domain::{
    clock::Timestamp,
    ids::TenantId,
    media_type::MediaKind,
    upload::UploadState,
    usage_recalculation::{QuotaDrift, RecalculationState, UsageRecalculation},
};

/// The time after which a measurement is cancelled. It reads all files of the tenant.
const MEASUREMENT_MILLISECONDS_MAX: &str = "1800000";

#[derive(Queryable, Selectable)]
#[diesel(table_name = usage_recalculations, check_for_backend(diesel::pg::Pg))]
struct Row {
    tenant_id: TenantId,
    state: RecalculationState,
    request_time: Timestamp,
    calculate_time: Option<Timestamp>,
    drift_bytes: i64,
    drift_files: i64,
    drift_reserved_bytes: i64,
    drift_reserved_files: i64,
    drift_pending_deletion_bytes: i64,
    drift_counters: i64,
}

impl From<Row> for UsageRecalculation {
    fn from(row: Row) -> Self {
        Self {
            tenant_id: row.tenant_id,
            state: row.state,
            request_time: row.request_time,
            calculate_time: row.calculate_time,
            drift: QuotaDrift {
                used_bytes: row.drift_bytes,
                file_count: row.drift_files,
                reserved_bytes: row.drift_reserved_bytes,
                reserved_file_count: row.drift_reserved_files,
                pending_deletion_bytes: row.drift_pending_deletion_bytes,
            },
            drift_counters: row.drift_counters,
        }
    }
}

/// The drift of a tenant's quota and usage counters.
#[derive(Debug, Clone, Default)]
pub struct UsageDrift {
    pub quota: QuotaDrift,
    /// The changes that repair the usage counters.
    pub repair: UsageDelta,
    /// The drifts of the quotas of users.
    pub users: Vec<UserDrift>,
}

impl UsageDrift {
    /// Returns the number of usage counters and quotas of users that are wrong.
    pub fn counter_count(&self) -> usize {
        self.repair.counter_count() + self.users.len()
    }
}

/// Requests a recalculation, unless one is queued or running. Returns it.
pub async fn request(tx: &mut TenantTx) -> Result<UsageRecalculation, DbError> {
    // An upsert with a condition.
    let text = sql!(
        "INSERT INTO usage_recalculations AS r (tenant_id, state, request_time) VALUES ($1, {queued}, app.now())
         ON CONFLICT (tenant_id) DO UPDATE SET state = {queued}, request_time = app.now()
         WHERE r.state NOT IN ({queued}, {running})",
        queued = RecalculationState::Queued,
        running = RecalculationState::Running,
    );
    statement("request recalculation", text)
        .bind::<SqlUuid, _>(tx.tenant())
        .execute(tx.connection()?)
        .await?;
    get(tx).await?.ok_or_else(|| DbError::corrupt("request recalculation", "missing row"))
}

/// Returns the newest recalculation of the tenant.
pub async fn get(tx: &mut TenantTx) -> Result<Option<UsageRecalculation>, DbError> {
    let newest = usage_recalculations::table.of(tx.tenant()).select(Row::as_select());
    let row: Option<Row> = query("read recalculation", newest).first(tx.connection()?).await?;
    Ok(row.map(UsageRecalculation::from))
}

/// Begins the recalculation that is queued, or that a job began and did not complete. Returns its epoch; the job with
/// the former epoch repairs nothing. `None` if there is none. The transaction must commit before [`measure`].
pub async fn begin(tx: &mut TenantTx) -> Result<Option<i32>, DbError> {
    let pending = usage_recalculations::table.of(tx.tenant()).filter(
        usage_recalculations::state.eq_any([RecalculationState::Queued, RecalculationState::Running]),
    );
    let update = diesel::update(pending)
        .set((
            usage_recalculations::state.eq(RecalculationState::Running),
            usage_recalculations::epoch.eq(usage_recalculations::epoch + 1),
        ))
        .returning(usage_recalculations::epoch);
    query("begin recalculation", update).first(tx.connection()?).await
}

/// Completes the recalculation of this epoch with its result. Returns whether it was the newest.
pub async fn complete(
    tx: &mut TenantTx,
    epoch: i32,
    state: RecalculationState,
    drift: &UsageDrift,
) -> Result<bool, DbError> {
    let begun = usage_recalculations::table
        .of(tx.tenant())
        .filter(usage_recalculations::epoch.eq(epoch))
        .filter(usage_recalculations::state.eq(RecalculationState::Running));
    let counter_count = i64::try_from(drift.counter_count()).unwrap_or(i64::MAX);
    let update = diesel::update(begun).set((
        usage_recalculations::state.eq(state),
        usage_recalculations::calculate_time.eq(now().nullable()),
        usage_recalculations::drift_bytes.eq(drift.quota.used_bytes),
        usage_recalculations::drift_files.eq(drift.quota.file_count),
        usage_recalculations::drift_reserved_bytes.eq(drift.quota.reserved_bytes),
        usage_recalculations::drift_reserved_files.eq(drift.quota.reserved_file_count),
        usage_recalculations::drift_pending_deletion_bytes.eq(drift.quota.pending_deletion_bytes),
        usage_recalculations::drift_counters.eq(counter_count),
    ));
    Ok(query("complete recalculation", update).execute(tx.connection()?).await? > 0)
}

#[derive(QueryableByName)]
struct QuotaDriftRow {
    #[diesel(sql_type = BigInt)]
    used_bytes: i64,
    #[diesel(sql_type = BigInt)]
    file_count: i64,
    #[diesel(sql_type = BigInt)]
    reserved_bytes: i64,
    #[diesel(sql_type = BigInt)]
    reserved_file_count: i64,
    #[diesel(sql_type = BigInt)]
    pending_deletion_bytes: i64,
}

#[derive(QueryableByName)]
struct CounterDriftRow {
    #[diesel(sql_type = Text)]
    category: String,
    #[diesel(sql_type = SmallInt)]
    media_kind: MediaKind,
    #[diesel(sql_type = BigInt)]
    file_count: i64,
    #[diesel(sql_type = BigInt)]
    total_bytes: i64,
}

/// Measures the drift. Each statement has one snapshot; the drift of the counters and that of the quota can be of two.
pub async fn measure(tx: &mut TenantTx) -> Result<UsageDrift, DbError> {
    // A setting of the transaction.
    statement("limit measurement", "SELECT set_config('statement_timeout', $1, true)")
        .bind::<Text, _>(MEASUREMENT_MILLISECONDS_MAX)
        .execute(tx.connection()?)
        .await?;
    let (quota, repair) = (measure_quota(tx).await?, measure_counters(tx).await?);
    Ok(UsageDrift { quota, repair, users: user_quotas::measure_drift(tx, None).await? })
}

async fn measure_quota(tx: &mut TenantTx) -> Result<QuotaDrift, DbError> {
    // Aggregates of several tables in one snapshot.
    let text = sql!(
        "SELECT q.used_bytes - c.bytes AS used_bytes, q.file_count - c.files AS file_count,
             q.reserved_bytes - o.bytes AS reserved_bytes, q.reserved_file_count - o.files AS reserved_file_count,
             q.pending_deletion_bytes - p.bytes AS pending_deletion_bytes
         FROM quotas AS q, (
             SELECT coalesce(sum(v.size_bytes), 0)::bigint AS bytes, count(DISTINCT f.id) AS files FROM {charged}
         ) AS c, (
             SELECT coalesce(sum(reserved_bytes), 0)::bigint AS bytes, count(*) FILTER (WHERE NOT is_version) AS files
             FROM uploads WHERE tenant_id = $1 AND state = {open}
         ) AS o, (
             SELECT coalesce(sum(size_bytes), 0)::bigint AS bytes
             FROM (SELECT size_bytes FROM blobs WHERE tenant_id = $1 AND delete_after IS NOT NULL
                   UNION ALL SELECT size_bytes FROM stray_objects WHERE tenant_id = $1) AS pending
         ) AS p
         WHERE q.tenant_id = $1",
        charged = CHARGED,
        open = UploadState::Open,
    );
    let row: QuotaDriftRow =
        statement("measure quota", text).bind::<SqlUuid, _>(tx.tenant()).one(tx.connection()?).await?;
    Ok(QuotaDrift {
        used_bytes: row.used_bytes,
        file_count: row.file_count,
        reserved_bytes: row.reserved_bytes,
        reserved_file_count: row.reserved_file_count,
        pending_deletion_bytes: row.pending_deletion_bytes,
    })
}

async fn measure_counters(tx: &mut TenantTx) -> Result<UsageDelta, DbError> {
    // A full join with aggregates.
    let text = sql!(
        "SELECT category, media_kind, coalesce(s.files, 0) - coalesce(u.file_count, 0) AS file_count,
             coalesce(s.bytes, 0) - coalesce(u.total_bytes, 0) AS total_bytes
         FROM (SELECT * FROM usage_counters WHERE tenant_id = $1) AS u FULL JOIN (
             SELECT f.category, v.media_kind, sum(v.size_bytes)::bigint AS bytes,
                 count(*) FILTER (WHERE v.version = f.version) AS files
             FROM {charged} GROUP BY f.category, v.media_kind
         ) AS s USING (category, media_kind)
         WHERE coalesce(u.total_bytes, 0) <> coalesce(s.bytes, 0) OR coalesce(u.file_count, 0) <> coalesce(s.files, 0)",
        charged = CHARGED,
    );
    let rows: Vec<CounterDriftRow> = statement("measure usage counters", text)
        .bind::<SqlUuid, _>(tx.tenant())
        .load(tx.connection()?)
        .await?;
    let mut repair = UsageDelta::default();
    for row in rows {
        repair.add_file_count(&row.category, row.media_kind, row.file_count);
        repair.add_bytes(&row.category, row.media_kind, row.total_bytes);
    }
    Ok(repair)
}
