//! Measurements of what a tenant stores: its parts and its largest owners. No counter of a commit contains these
//! figures, so background work sums the files, one page at a time.

use diesel::{
    BoolExpressionMethods as _, ExpressionMethods as _, QueryDsl as _, Queryable, QueryableByName,
    Selectable, SelectableHelper as _,
    sql_types::{Array, BigInt, Text, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, SystemTx, TenantTx,
    schema::{owner_usage, usage_measurements},
    sql::{OfTenant as _, query, sql, statement},
};
use crate::domain::{
    caller::TenantState,
    clock::Timestamp,
    ids::{FileId, TenantId},
};

/// The parts of what a tenant or one of its owners stores. They contain every stored version once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UsageParts {
    /// The files outside the trash.
    pub file_count: i64,
    /// The bytes of their current versions.
    pub current_bytes: i64,
    pub old_version_count: i64,
    pub old_version_bytes: i64,
    pub trash_file_count: i64,
    /// The bytes of all versions of files in the trash.
    pub trash_bytes: i64,
}

impl UsageParts {
    /// Returns the bytes of all parts.
    pub fn total_bytes(&self) -> i64 {
        self.current_bytes + self.old_version_bytes + self.trash_bytes
    }
}

impl std::ops::AddAssign for UsageParts {
    fn add_assign(&mut self, other: Self) {
        self.file_count += other.file_count;
        self.current_bytes += other.current_bytes;
        self.old_version_count += other.old_version_count;
        self.old_version_bytes += other.old_version_bytes;
        self.trash_file_count += other.trash_file_count;
        self.trash_bytes += other.trash_bytes;
    }
}

/// The files of one owner in a page of files.
#[derive(Debug, PartialEq, Eq)]
pub struct OwnerPart {
    pub owner: String,
    pub parts: UsageParts,
}

/// The sums of one page of files, in the order of their ids.
#[derive(Debug)]
pub struct FilePage {
    pub owners: Vec<OwnerPart>,
    /// The last file of the page; `None` if the page is empty.
    pub last: Option<FileId>,
}

#[derive(QueryableByName)]
struct OwnerRow {
    #[diesel(sql_type = Text)]
    owner_id: String,
    #[diesel(sql_type = BigInt)]
    file_count: i64,
    #[diesel(sql_type = BigInt)]
    current_bytes: i64,
    #[diesel(sql_type = BigInt)]
    old_version_count: i64,
    #[diesel(sql_type = BigInt)]
    old_version_bytes: i64,
    #[diesel(sql_type = BigInt)]
    trash_file_count: i64,
    #[diesel(sql_type = BigInt)]
    trash_bytes: i64,
    #[diesel(sql_type = SqlUuid)]
    last_id: FileId,
}

/// Sums the next files of a tenant after an id, by owner.
pub async fn sum_page(
    tx: &mut SystemTx,
    tenant: TenantId,
    after: Option<FileId>,
    limit: i64,
) -> Result<FilePage, DbError> {
    // Filtered aggregates over a limited scan.
    let rows: Vec<OwnerRow> = statement(
        "sum page of files",
        "WITH page AS MATERIALIZED (
             SELECT id, owner_id, version, delete_time IS NOT NULL AS is_deleted FROM files
             WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3
         ), stored AS (
             SELECT page.owner_id, page.is_deleted, v.version = page.version AS is_current, v.size_bytes
             FROM page JOIN versions AS v ON v.tenant_id = $1 AND v.file_id = page.id
         )
         SELECT owner_id,
                count(*) FILTER (WHERE is_current AND NOT is_deleted) AS file_count,
                coalesce(sum(size_bytes) FILTER (WHERE is_current AND NOT is_deleted), 0)::bigint AS current_bytes,
                count(*) FILTER (WHERE NOT is_current AND NOT is_deleted) AS old_version_count,
                coalesce(sum(size_bytes) FILTER (WHERE NOT is_current AND NOT is_deleted), 0)::bigint
                    AS old_version_bytes,
                count(*) FILTER (WHERE is_current AND is_deleted) AS trash_file_count,
                coalesce(sum(size_bytes) FILTER (WHERE is_deleted), 0)::bigint AS trash_bytes,
                (SELECT id FROM page ORDER BY id DESC LIMIT 1) AS last_id
         FROM stored GROUP BY owner_id",
    )
    .bind::<SqlUuid, _>(tenant)
    .bind::<SqlUuid, _>(after.unwrap_or(FileId::from_uuid(Uuid::nil())))
    .bind::<BigInt, _>(limit)
    .load(tx.connection()?)
    .await?;
    let last = rows.first().map(|row| row.last_id);
    let owners = rows.into_iter().map(|row| OwnerPart {
        owner: row.owner_id,
        parts: UsageParts {
            file_count: row.file_count,
            current_bytes: row.current_bytes,
            old_version_count: row.old_version_count,
            old_version_bytes: row.old_version_bytes,
            trash_file_count: row.trash_file_count,
            trash_bytes: row.trash_bytes,
        },
    });
    Ok(FilePage { owners: owners.collect(), last })
}

#[derive(QueryableByName)]
struct DueRow {
    #[diesel(sql_type = SqlUuid)]
    id: TenantId,
}

/// Returns tenants after an id, ordered by id, that were last measured more than `interval_seconds` ago.
pub async fn list_due(
    tx: &mut SystemTx,
    after: Option<TenantId>,
    interval_seconds: i64,
    limit: i64,
) -> Result<Vec<TenantId>, DbError> {
    // An outer join with a missing row.
    let text = sql!(
        "SELECT t.id FROM tenants AS t LEFT JOIN usage_measurements AS m ON m.tenant_id = t.id
         WHERE t.id > $1 AND t.state IN ({active}, {suspended}) AND t.provisional_time IS NULL
           AND (m.measure_time IS NULL OR m.measure_time <= app.now() - $2 * interval '1 second')
         ORDER BY t.id LIMIT $3",
        active = TenantState::Active,
        suspended = TenantState::Suspended,
    );
    let rows: Vec<DueRow> = statement("list tenants to measure", text)
        .bind::<SqlUuid, _>(after.unwrap_or(TenantId::from_uuid(Uuid::nil())))
        .bind::<BigInt, _>(interval_seconds)
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// Replaces the measurement of a tenant, unless it is being deleted or another process has measured it within the
/// interval. Returns whether it was replaced.
pub async fn replace(
    tx: &mut SystemTx,
    tenant: TenantId,
    total: &UsageParts,
    owner_count: i64,
    interval_seconds: i64,
) -> Result<bool, DbError> {
    // An upsert that depends on the state of the tenant.
    let text = sql!(
        "INSERT INTO usage_measurements AS m (tenant_id, measure_time, file_count, current_bytes, old_version_count,
             old_version_bytes, trash_file_count, trash_bytes, owner_count)
         SELECT t.id, app.now(), $2, $3, $4, $5, $6, $7, $8 FROM tenants AS t
         WHERE t.id = $1 AND t.state IN ({active}, {suspended})
         ON CONFLICT (tenant_id) DO UPDATE SET measure_time = excluded.measure_time, file_count = excluded.file_count,
             current_bytes = excluded.current_bytes, old_version_count = excluded.old_version_count,
             old_version_bytes = excluded.old_version_bytes, trash_file_count = excluded.trash_file_count,
             trash_bytes = excluded.trash_bytes, owner_count = excluded.owner_count
         WHERE m.measure_time <= excluded.measure_time - $9 * interval '1 second'",
        active = TenantState::Active,
        suspended = TenantState::Suspended,
    );
    let replaced = statement("replace usage measurement", text)
        .bind::<SqlUuid, _>(tenant)
        .bind::<BigInt, _>(total.file_count)
        .bind::<BigInt, _>(total.current_bytes)
        .bind::<BigInt, _>(total.old_version_count)
        .bind::<BigInt, _>(total.old_version_bytes)
        .bind::<BigInt, _>(total.trash_file_count)
        .bind::<BigInt, _>(total.trash_bytes)
        .bind::<BigInt, _>(owner_count)
        .bind::<BigInt, _>(interval_seconds)
        .execute(tx.connection()?)
        .await?;
    Ok(replaced == 1)
}

/// Replaces the largest owners of a tenant.
pub async fn replace_owners(
    tx: &mut SystemTx,
    tenant: TenantId,
    owners: &[OwnerPart],
) -> Result<(), DbError> {
    let former = diesel::delete(owner_usage::table.of(tenant));
    query("delete owner usage", former).execute(tx.connection()?).await?;
    let column = |value: fn(&UsageParts) -> i64| -> Vec<i64> {
        owners.iter().map(|owner| value(&owner.parts)).collect()
    };
    // An `unnest` batch.
    statement(
        "insert owner usage",
        "INSERT INTO owner_usage (tenant_id, owner_id, total_bytes, file_count, old_version_bytes, trash_file_count,
             trash_bytes)
         SELECT $1, n.* FROM unnest($2, $3, $4, $5, $6, $7) AS n",
    )
    .bind::<SqlUuid, _>(tenant)
    .bind::<Array<Text>, _>(owners.iter().map(|owner| owner.owner.clone()).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(column(UsageParts::total_bytes))
    .bind::<Array<BigInt>, _>(column(|parts| parts.file_count))
    .bind::<Array<BigInt>, _>(column(|parts| parts.old_version_bytes))
    .bind::<Array<BigInt>, _>(column(|parts| parts.trash_file_count))
    .bind::<Array<BigInt>, _>(column(|parts| parts.trash_bytes))
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// The last measurement of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = usage_measurements, check_for_backend(diesel::pg::Pg))]
pub struct UsageMeasurement {
    pub measure_time: Timestamp,
    pub file_count: i64,
    pub current_bytes: i64,
    pub old_version_count: i64,
    pub old_version_bytes: i64,
    pub trash_file_count: i64,
    pub trash_bytes: i64,
    pub owner_count: i64,
}

/// Returns the last measurement of the transaction's tenant, if there is one.
pub async fn find(tx: &mut TenantTx) -> Result<Option<UsageMeasurement>, DbError> {
    let measurement = usage_measurements::table.of(tx.tenant()).select(UsageMeasurement::as_select());
    query("get usage measurement", measurement).first(tx.connection()?).await
}

/// The usage of an owner at the last measurement.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = owner_usage, check_for_backend(diesel::pg::Pg))]
pub struct OwnerUsage {
    pub owner_id: String,
    pub total_bytes: i64,
    pub file_count: i64,
    pub old_version_bytes: i64,
    pub trash_file_count: i64,
    pub trash_bytes: i64,
}

/// The position of an owner in the list.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct OwnerCursor {
    pub total_bytes: i64,
    pub owner_id: String,
}

/// Returns the largest owners of the transaction's tenant after a position, those with the most bytes first.
pub async fn list_owners(
    tx: &mut TenantTx,
    after: Option<OwnerCursor>,
    limit: i64,
) -> Result<Vec<OwnerUsage>, DbError> {
    // Every owner is after the largest position.
    let OwnerCursor { total_bytes, owner_id } =
        after.unwrap_or(OwnerCursor { total_bytes: i64::MAX, owner_id: String::new() });
    let follows = owner_usage::total_bytes
        .lt(total_bytes)
        .or(owner_usage::total_bytes.eq(total_bytes).and(owner_usage::owner_id.gt(owner_id)));
    let owners = owner_usage::table
        .of(tx.tenant())
        .filter(follows)
        .order((owner_usage::total_bytes.desc(), owner_usage::owner_id))
        .limit(limit)
        .select(OwnerUsage::as_select());
    query("list owner usage", owners).load(tx.connection()?).await
}
