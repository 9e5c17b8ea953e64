//! Quotas of users, one row per user whose limits were ever set.
//!
//! Each transaction that changes usage or limits holds the lock of the tenant's row in `quotas` first. So a row that is
//! created later than the lock misses no change, and usage cannot change between a check and its effect.

use diesel::{
    BoolExpressionMethods as _, ExpressionMethods as _, QueryDsl as _, Queryable, QueryableByName,
    Selectable, SelectableHelper as _,
    sql_types::{Array, BigInt, Nullable, Text, Uuid as SqlUuid},
};

use super::{
    DbError, TenantTx,
    quota_delta::{QuotaDelta, UserDelta},
    schema::{quotas, user_quotas},
    sql::{OfTenant as _, now, query, sql, statement},
};
use crate::domain::{clock::Timestamp, upload::UploadState, user_quota::UserQuota};

#[derive(Queryable, QueryableByName, Selectable)]
#[diesel(table_name = user_quotas, check_for_backend(diesel::pg::Pg))]
struct Row {
    user_id: String,
    limit_bytes: Option<i64>,
    file_count_max: i64,
    used_bytes: i64,
    reserved_bytes: i64,
    file_count: i64,
    reserved_file_count: i64,
    revision: i64,
    update_time: Timestamp,
}

impl From<Row> for UserQuota {
    fn from(row: Row) -> Self {
        Self {
            user_id: row.user_id,
            limit_bytes: row.limit_bytes,
            file_count_max: row.file_count_max,
            used_bytes: row.used_bytes,
            reserved_bytes: row.reserved_bytes,
            file_count: row.file_count,
            reserved_file_count: row.reserved_file_count,
            revision: row.revision,
            update_time: row.update_time,
        }
    }
}

#[derive(QueryableByName)]
struct ExceededRow {
    #[diesel(sql_type = Nullable<Text>)]
    exceeded_user: Option<String>,
}

/// Applies changes of usage. Returns the quota of the first user whose limits they exceed; the transaction must then be
/// rolled back, or the changes reverted. The transaction must hold the lock of the tenant's quota.
pub(super) async fn apply_deltas(
    tx: &mut TenantTx,
    deltas: &[UserDelta],
) -> Result<Option<UserQuota>, DbError> {
    let user_ids: Vec<String> = deltas.iter().map(|change| change.user_id.clone()).collect();
    let column =
        |of: fn(&QuotaDelta) -> i64| -> Vec<i64> { deltas.iter().map(|change| of(&change.delta)).collect() };
    // A function of the database.
    let row: ExceededRow =
        statement("charge users", "SELECT app.charge_users($1, $2, $3, $4, $5) AS exceeded_user")
            .bind::<Array<Text>, _>(user_ids)
            .bind::<Array<BigInt>, _>(column(|delta| delta.used_bytes))
            .bind::<Array<BigInt>, _>(column(|delta| delta.reserved_bytes))
            .bind::<Array<BigInt>, _>(column(|delta| delta.file_count))
            .bind::<Array<BigInt>, _>(column(|delta| delta.reserved_file_count))
            .one(tx.connection()?)
            .await?;
    match row.exceeded_user {
        None => Ok(None),
        Some(user_id) => {
            let exceeded = get(tx, &user_id).await?;
            exceeded.map(Some).ok_or_else(|| DbError::corrupt("charge users", "exceeded user"))
        }
    }
}

/// Returns the quota of a user, unless its limits were never set.
pub async fn get(tx: &mut TenantTx, user_id: &str) -> Result<Option<UserQuota>, DbError> {
    let quota = user_quotas::table
        .of(tx.tenant())
        .filter(user_quotas::user_id.eq(user_id))
        .filter(user_quotas::is_counted)
        .select(Row::as_select());
    let row: Option<Row> = query("read user quota", quota).first(tx.connection()?).await?;
    Ok(row.map(UserQuota::from))
}

/// Returns the quotas with a limit after a user, ordered by user id.
pub async fn list(tx: &mut TenantTx, after: &str, limit: i64) -> Result<Vec<UserQuota>, DbError> {
    let page = user_quotas::table
        .of(tx.tenant())
        .filter(user_quotas::user_id.gt(after))
        .filter(user_quotas::limit_bytes.is_not_null().or(user_quotas::file_count_max.gt(0)))
        .order(user_quotas::user_id)
        .limit(limit)
        .select(Row::as_select());
    let rows: Vec<Row> = query("list user quotas", page).load(tx.connection()?).await?;
    Ok(rows.into_iter().map(UserQuota::from).collect())
}

/// Begins to count the changes of a user's usage, unless they are counted. Returns whether the files from before are
/// counted too. The transaction must hold the lock of the tenant's quota, and commit before [`measure_drift`].
pub async fn begin_count(tx: &mut TenantTx, user_id: &str) -> Result<bool, DbError> {
    let insert = diesel::insert_into(user_quotas::table)
        .values((
            user_quotas::tenant_id.eq(tx.tenant()),
            user_quotas::user_id.eq(user_id),
            user_quotas::update_time.eq(now()),
        ))
        .on_conflict_do_nothing();
    if query("create user quota", insert).execute(tx.connection()?).await? > 0 {
        let update = diesel::update(quotas::table.of(tx.tenant()))
            .set(quotas::user_quota_count.eq(quotas::user_quota_count + 1));
        query("count user quota", update).execute(tx.connection()?).await?;
        return Ok(false);
    }
    let is_counted = user_quotas::table
        .of(tx.tenant())
        .filter(user_quotas::user_id.eq(user_id))
        .select(user_quotas::is_counted);
    query("read count of user quota", is_counted).one(tx.connection()?).await
}

/// The difference between the recorded usage of a user and the files and open uploads.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
#[diesel(table_name = user_quotas)]
pub struct UserDrift {
    pub user_id: String,
    pub used_bytes: i64,
    pub reserved_bytes: i64,
    pub file_count: i64,
    pub reserved_file_count: i64,
}

impl UserDrift {
    /// Returns the change that repairs the usage.
    fn repair(&self) -> UserDelta {
        let delta = QuotaDelta {
            used_bytes: -self.used_bytes,
            reserved_bytes: -self.reserved_bytes,
            file_count: -self.file_count,
            reserved_file_count: -self.reserved_file_count,
        };
        UserDelta { user_id: self.user_id.clone(), delta }
    }
}

/// Measures drifts in one snapshot: of one user whose files from before are not counted, or of all other users whose
/// recorded usage is wrong. A drift stays exact while files change; see `usage_recalculations`.
pub async fn measure_drift(tx: &mut TenantTx, user_id: Option<&str>) -> Result<Vec<UserDrift>, DbError> {
    // Aggregates of several tables in one snapshot.
    let text = sql!(
        "WITH q AS MATERIALIZED (
             SELECT * FROM user_quotas
             WHERE tenant_id = $1 AND is_counted = ($2 IS NULL) AND ($2 IS NULL OR user_id = $2)
         ), f AS (
             -- Two scans, so that each can use the index of its half.
             SELECT id, owner_id FROM files
             WHERE tenant_id = $1 AND owner_id IN (SELECT user_id FROM q) AND delete_time IS NULL
             UNION ALL
             SELECT id, owner_id FROM files
             WHERE tenant_id = $1 AND owner_id IN (SELECT user_id FROM q) AND delete_time IS NOT NULL AND (
                 SELECT (t.policy -> 'trash' ->> 'counts_against_quota')::boolean FROM tenants AS t WHERE t.id = $1)
         ), c AS (
             SELECT f.owner_id AS user_id, sum(v.size_bytes)::bigint AS bytes, count(DISTINCT f.id) AS files
             FROM f JOIN versions AS v ON v.tenant_id = $1 AND v.file_id = f.id GROUP BY f.owner_id
         ), o AS (
             SELECT owner_id AS user_id, sum(reserved_bytes)::bigint AS bytes,
                 count(*) FILTER (WHERE NOT is_version) AS files
             FROM uploads WHERE tenant_id = $1 AND state = {open} AND owner_id IN (SELECT user_id FROM q)
             GROUP BY owner_id
         ), drift AS (
             SELECT q.user_id, q.used_bytes - coalesce(c.bytes, 0) AS used_bytes,
                 q.reserved_bytes - coalesce(o.bytes, 0) AS reserved_bytes,
                 q.file_count - coalesce(c.files, 0) AS file_count,
                 q.reserved_file_count - coalesce(o.files, 0) AS reserved_file_count
             FROM q LEFT JOIN c USING (user_id) LEFT JOIN o USING (user_id)
         )
         SELECT user_id, used_bytes, reserved_bytes, file_count, reserved_file_count FROM drift
         WHERE $2 IS NOT NULL
             OR used_bytes <> 0 OR reserved_bytes <> 0 OR file_count <> 0 OR reserved_file_count <> 0
         ORDER BY user_id",
        open = UploadState::Open,
    );
    statement("measure user quotas", text)
        .bind::<SqlUuid, _>(tx.tenant())
        .bind::<Nullable<Text>, _>(user_id.map(ToOwned::to_owned))
        .load(tx.connection()?)
        .await
}

/// Subtracts drifts from the quotas of users, if the results fit into their limits. Returns whether they do.
pub async fn subtract_drifts(tx: &mut TenantTx, drifts: &[UserDrift]) -> Result<bool, DbError> {
    if drifts.is_empty() {
        return Ok(true);
    }
    let repairs: Vec<UserDelta> = drifts.iter().map(UserDrift::repair).collect();
    Ok(apply_deltas(tx, &repairs).await?.is_none())
}

/// Adds the files from before the row to the usage of a user, unless they are counted already. The transaction must hold
/// the lock of the tenant's quota.
pub async fn complete_count(tx: &mut TenantTx, drift: &UserDrift) -> Result<(), DbError> {
    let uncounted = user_quotas::table
        .of(tx.tenant())
        .filter(user_quotas::user_id.eq(&drift.user_id))
        .filter(user_quotas::is_counted.eq(false));
    let update = diesel::update(uncounted).set((
        user_quotas::used_bytes.eq(user_quotas::used_bytes - drift.used_bytes),
        user_quotas::reserved_bytes.eq(user_quotas::reserved_bytes - drift.reserved_bytes),
        user_quotas::file_count.eq(user_quotas::file_count - drift.file_count),
        user_quotas::reserved_file_count.eq(user_quotas::reserved_file_count - drift.reserved_file_count),
        user_quotas::is_counted.eq(true),
    ));
    query("complete count of user", update).execute(tx.connection()?).await.map(|_| ())
}

/// Sets the limits of a user. The transaction must hold the lock of the tenant's quota, and have checked that they are
/// not below the usage.
pub async fn set_limits(tx: &mut TenantTx, quota: &UserQuota) -> Result<UserQuota, DbError> {
    let update =
        diesel::update(user_quotas::table.of(tx.tenant()).filter(user_quotas::user_id.eq(&quota.user_id)))
            .set((
                user_quotas::limit_bytes.eq(quota.limit_bytes),
                user_quotas::file_count_max.eq(quota.file_count_max),
                user_quotas::revision.eq(user_quotas::revision + 1),
                user_quotas::update_time.eq(now()),
            ))
            .returning(Row::as_returning());
    let row: Row = query("set user limits", update).one(tx.connection()?).await?;
    Ok(row.into())
}
