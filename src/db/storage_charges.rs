//! What the storage of owners costs, one charge for each owner and day. A charge and the entry of its payment are one
//! statement, and a charge is never changed, so an owner pays once a day however many processes charge it.

use chrono::NaiveDate;
use diesel::{
    ExpressionMethods as _, IntoSql as _, QueryDsl as _, Queryable, QueryableByName, Selectable,
    SelectableHelper as _,
    sql_types::{Array, BigInt, Date, Record, SmallInt, Text, Uuid as SqlUuid},
};

use super::{
    DbError, SystemTx, TenantTx,
    schema::storage_charges,
    sql::{OfTenant as _, query, sql, statement},
};
use crate::domain::{
    caller::{Actor, TenantState},
    ids::TenantId,
    metering::STORAGE_REASON,
};

/// The charges of a tenant that are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct DueCharges {
    /// Today, in UTC.
    #[diesel(sql_type = Date)]
    pub day: NaiveDate,
    #[diesel(sql_type = BigInt)]
    pub gib_day_credits: i64,
}

/// Returns today and the price of a tenant, or `None` if its storage is free or all its owners were charged today.
pub async fn find_due(tx: &mut SystemTx, tenant: TenantId) -> Result<Option<DueCharges>, DbError> {
    // An outer join with a missing row, and a computed date.
    statement(
        "find due storage charges",
        "SELECT (app.now() AT TIME ZONE 'UTC')::date AS day, t.gib_day_credits
         FROM tenants AS t LEFT JOIN usage_measurements AS m ON m.tenant_id = t.id
         WHERE t.id = $1 AND t.gib_day_credits > 0
           AND (m.charged_day IS NULL OR m.charged_day < (app.now() AT TIME ZONE 'UTC')::date)",
    )
    .bind::<SqlUuid, _>(tenant)
    .first(tx.connection()?)
    .await
}

/// Records that all owners of a tenant were charged for a day.
pub async fn mark_charged(tx: &mut SystemTx, tenant: TenantId, day: NaiveDate) -> Result<(), DbError> {
    // Never moves back to an earlier day.
    statement(
        "mark storage as charged",
        "UPDATE usage_measurements SET charged_day = $2
         WHERE tenant_id = $1 AND (charged_day IS NULL OR charged_day < $2)",
    )
    .bind::<SqlUuid, _>(tenant)
    .bind::<Date, _>(day)
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// What an owner has to pay for a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerDue {
    pub user_id: String,
    /// The price of the day, which is positive.
    pub due_credits: i64,
}

/// Charges owners for a day, unless they were charged for it before. An owner with too few credits pays all it has.
/// `dues` must be ordered by user. Returns the number of new charges.
pub async fn insert(tx: &mut TenantTx, day: NaiveDate, dues: &[OwnerDue]) -> Result<i64, DbError> {
    let users: Vec<String> = dues.iter().map(|due| due.user_id.clone()).collect();
    let credits: Vec<i64> = dues.iter().map(|due| due.due_credits).collect();
    // Locked in the order of the users, so that concurrent batches cannot deadlock. The next statement sees the
    // balances that this one has locked.
    statement(
        "lock credits of owners",
        "SELECT user_id FROM credit_balances WHERE tenant_id = $1 AND user_id = ANY ($2) ORDER BY user_id FOR UPDATE",
    )
    .bind::<SqlUuid, _>(tx.tenant())
    .bind::<Array<Text>, _>(users.clone())
    .execute(tx.connection()?)
    .await?;
    // Three changes in one statement. A tenant that is being deleted gets no new rows.
    let text = sql!(
        "WITH charged AS (
             INSERT INTO storage_charges (tenant_id, user_id, day, due_credits, paid_credits)
             SELECT $1, n.user_id, $2, n.due, least(n.due, coalesce(b.balance, 0))
             FROM unnest($3, $4) AS n (user_id, due) JOIN tenants AS t ON t.id = $1
                  LEFT JOIN credit_balances AS b ON b.tenant_id = $1 AND b.user_id = n.user_id
             WHERE t.state IN ({active}, {suspended}) ORDER BY n.user_id
             ON CONFLICT (tenant_id, user_id, day) DO NOTHING
             RETURNING user_id, paid_credits
         ), changed AS (
             UPDATE credit_balances AS b
             SET balance = b.balance - c.paid_credits, entry_count = b.entry_count + 1, update_time = app.now()
             FROM charged AS c WHERE b.tenant_id = $1 AND b.user_id = c.user_id AND c.paid_credits > 0
             RETURNING b.user_id, b.balance, b.entry_count, c.paid_credits
         ), paid AS (
             INSERT INTO credit_entries (tenant_id, user_id, number, amount, balance_after, reason, reference, actor_kind,
                                         actor_id, create_time)
             SELECT $1, c.user_id, c.entry_count, -c.paid_credits, c.balance, $5, to_char($2, 'YYYY-MM-DD'), $6, $7, app.now()
             FROM changed AS c
         )
         SELECT count(*) AS charge_count FROM charged",
        active = TenantState::Active,
        suspended = TenantState::Suspended,
    );
    let actor = Actor::system();
    let counted: CountRow = statement("charge owners for storage", text)
        .bind::<SqlUuid, _>(tx.tenant())
        .bind::<Date, _>(day)
        .bind::<Array<Text>, _>(users)
        .bind::<Array<BigInt>, _>(credits)
        .bind::<Text, _>(STORAGE_REASON)
        .bind::<SmallInt, _>(actor.kind)
        .bind::<Text, _>(actor.id)
        .one(tx.connection()?)
        .await?;
    Ok(counted.charge_count)
}

#[derive(QueryableByName)]
struct CountRow {
    #[diesel(sql_type = BigInt)]
    charge_count: i64,
}

/// A charge of an owner.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = storage_charges, check_for_backend(diesel::pg::Pg))]
pub struct StorageCharge {
    pub user_id: String,
    pub day: NaiveDate,
    pub due_credits: i64,
    /// Less than `due_credits` if the owner had too few credits.
    pub paid_credits: i64,
}

/// Returns the charges after a charge, ordered by user and day.
pub async fn list_after(
    tx: &mut TenantTx,
    after: Option<&StorageCharge>,
    limit: i64,
) -> Result<Vec<StorageCharge>, DbError> {
    let position = (storage_charges::user_id, storage_charges::day);
    let after = after.map_or((String::new(), NaiveDate::default()), |last| (last.user_id.clone(), last.day));
    let page = storage_charges::table
        .of(tx.tenant())
        .filter(position.into_sql::<Record<(Text, Date)>>().gt(after))
        .order(position)
        .limit(limit)
        .select(StorageCharge::as_select());
    query("list exported storage charges", page).load(tx.connection()?).await
}

/// Deletes up to `limit` charges that are `kept_days` old. Returns their number.
pub async fn delete_expired(tx: &mut SystemTx, kept_days: i64, limit: i64) -> Result<usize, DbError> {
    // A limited deletion, and a computed date.
    statement(
        "delete expired storage charges",
        "DELETE FROM storage_charges AS c USING (
            SELECT e.tenant_id, e.user_id, e.day FROM storage_charges AS e
            WHERE e.day <= (app.now() AT TIME ZONE 'UTC')::date - $2::integer ORDER BY e.day LIMIT $1) AS expired
         WHERE c.tenant_id = expired.tenant_id AND c.user_id = expired.user_id AND c.day = expired.day",
    )
    .bind::<BigInt, _>(limit)
    .bind::<BigInt, _>(kept_days)
    .execute(tx.connection()?)
    .await
}
