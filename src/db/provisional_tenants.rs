//! Provisional tenants: tenants none of whose first calls has succeeded yet. For everyone else they do not exist.
//!
//! The row counts the first calls in progress, in all processes. Each joins before it reads or writes anything of
//! the tenant, and leaves when nothing works for it any more. A tenant is removed only while the count is 0, under
//! the lock of its row, so nothing is ever written for a tenant that was removed.

use diesel::{
    BoolExpressionMethods as _, ExpressionMethods as _, IntoSql as _, NullableExpressionMethods as _,
    QueryDsl as _, SelectableHelper as _, sql_types::Bool, upsert::DecoratableTarget as _,
};
use uuid::Uuid;

use super::{
    DbError, SystemTx,
    schema::tenants,
    sql::{days, hours, literal, now, now_minus, query, remove_provisional_tenant},
    tenants::{TenantName, TenantRow},
};
use crate::domain::{
    caller::{Tenant, TenantState},
    clock::Timestamp,
    ids::TenantId,
    policy::Policy,
};

/// The outcome of an attempt to remove a provisional tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    Removed,
    /// Something is stored for the tenant, so it must exist.
    Used,
    /// It has first calls in progress, or exists.
    Busy,
    /// It waits for the end of uploads.
    Pending,
}

/// Creates a provisional tenant with one first call in progress, unless one with this name exists that is not
/// deleted. Returns whether it was created.
pub async fn create(
    tx: &mut SystemTx,
    id: TenantId,
    name: &TenantName,
    policy: &Policy,
) -> Result<bool, DbError> {
    let insert = diesel::insert_into(tenants::table)
        .values((
            tenants::id.eq(id),
            tenants::kind.eq(name.kind),
            tenants::issuer.eq(&name.issuer),
            tenants::external_id.eq(&name.external_id),
            tenants::policy.eq(policy),
            tenants::create_time.eq(now()),
            tenants::provisional_time.eq(now().nullable()),
            tenants::first_call_count.eq(1),
        ))
        .on_conflict((tenants::kind, tenants::issuer, tenants::external_id))
        .filter_target(tenants::state.ne(literal!(TenantState::Deleted)))
        .do_nothing();
    Ok(query("create tenant", insert).execute(tx.connection()?).await? == 1)
}

/// Counts a further first call of the provisional tenant with this name. Returns the tenant, if there is one.
pub async fn join(tx: &mut SystemTx, name: &TenantName) -> Result<Option<Tenant>, DbError> {
    let provisional = tenants::table
        .filter(tenants::kind.eq(name.kind))
        .filter(tenants::issuer.eq(&name.issuer))
        .filter(tenants::external_id.eq(&name.external_id))
        .filter(tenants::provisional_time.is_not_null())
        .filter(tenants::state.ne(literal!(TenantState::Deleted)));
    let update = diesel::update(provisional)
        .set((
            tenants::first_call_count.eq(tenants::first_call_count + 1),
            tenants::provisional_time.eq(now().nullable()),
        ))
        .returning(TenantRow::as_returning());
    let row: Option<TenantRow> = query("join provisional tenant", update).first(tx.connection()?).await?;
    Ok(row.map(Tenant::from))
}

/// Ends a first call that did not succeed. `may_have_objects` states whether it may have left objects in a store.
/// Returns false if the tenant exists.
pub async fn leave(tx: &mut SystemTx, id: TenantId, may_have_objects: bool) -> Result<bool, DbError> {
    let counted = tenants::table
        .find(id)
        .filter(tenants::provisional_time.is_not_null())
        .filter(tenants::first_call_count.gt(0));
    let update = diesel::update(counted).set((
        tenants::first_call_count.eq(tenants::first_call_count - 1),
        tenants::may_have_objects.eq(tenants::may_have_objects.or(may_have_objects.into_sql::<Bool>())),
    ));
    Ok(query("leave provisional tenant", update).execute(tx.connection()?).await? == 1)
}

/// A provisional tenant that exists from now on.
#[derive(Debug, Clone)]
pub struct ConfirmedTenant {
    pub tenant: Tenant,
    pub issuer: String,
    /// When its earliest first call created it.
    pub create_time: Timestamp,
}

/// Makes a provisional tenant exist. Returns `None` if it exists already.
pub async fn confirm(tx: &mut SystemTx, id: TenantId) -> Result<Option<ConfirmedTenant>, DbError> {
    let provisional = tenants::table
        .find(id)
        .filter(tenants::provisional_time.is_not_null())
        .filter(tenants::state.ne(literal!(TenantState::Deleted)));
    let update = diesel::update(provisional)
        .set((tenants::provisional_time.eq(None::<Timestamp>), tenants::first_call_count.eq(0)))
        .returning((TenantRow::as_returning(), tenants::issuer, tenants::create_time));
    let row: Option<(TenantRow, String, Timestamp)> =
        query("confirm tenant", update).first(tx.connection()?).await?;
    Ok(row.map(|(tenant, issuer, create_time)| ConfirmedTenant {
        tenant: tenant.into(),
        issuer,
        create_time,
    }))
}

/// Removes a provisional tenant without first calls in progress, unless something is stored for it.
pub async fn remove(tx: &mut SystemTx, id: TenantId) -> Result<Removal, DbError> {
    const OPERATION: &str = "remove provisional tenant";
    let remove = diesel::select(remove_provisional_tenant(id));
    let outcome: String = query(OPERATION, remove).one(tx.connection()?).await?;
    match outcome.as_str() {
        "removed" => Ok(Removal::Removed),
        "used" => Ok(Removal::Used),
        "busy" => Ok(Removal::Busy),
        "pending" => Ok(Removal::Pending),
        _ => Err(DbError::corrupt(OPERATION, format!("unknown outcome `{outcome}`"))),
    }
}

/// The times after which provisional tenants need attention.
#[derive(Debug, Clone, Copy)]
pub struct ProvisionalTimes {
    /// First calls that began earlier have ended without leaving, because their process crashed.
    pub lost_after_hours: u32,
    /// The time for which the row of a removed tenant is kept, so that sweeps find its objects.
    pub kept_days: u32,
}

/// Returns the ids of provisional tenants after an id, ordered by id, that have no first calls in progress or
/// whose time is over.
pub async fn list_due(
    tx: &mut SystemTx,
    after: Option<TenantId>,
    times: ProvisionalTimes,
    limit: i64,
) -> Result<Vec<TenantId>, DbError> {
    let since = tenants::provisional_time.assume_not_null();
    let is_idle = tenants::first_call_count.eq(0).or(since.le(now_minus(hours(times.lost_after_hours))));
    let is_open = tenants::state.ne(literal!(TenantState::Deleted)).and(is_idle);
    let is_over =
        tenants::state.eq(literal!(TenantState::Deleted)).and(since.le(now_minus(days(times.kept_days))));
    let page = tenants::table
        .filter(tenants::provisional_time.is_not_null())
        .filter(tenants::id.gt(after.unwrap_or(TenantId::from_uuid(Uuid::nil()))))
        .filter(is_open.or(is_over))
        .order(tenants::id)
        .limit(limit)
        .select(tenants::id);
    query("list provisional tenants", page).load(tx.connection()?).await
}

/// Forgets the first calls of a provisional tenant that are lost.
pub async fn forget_lost(tx: &mut SystemTx, id: TenantId, times: ProvisionalTimes) -> Result<(), DbError> {
    let lost = tenants::table
        .find(id)
        .filter(tenants::first_call_count.gt(0))
        .filter(tenants::provisional_time.le(now_minus(hours(times.lost_after_hours)).nullable()));
    let update =
        diesel::update(lost).set((tenants::first_call_count.eq(0), tenants::may_have_objects.eq(true)));
    query("forget lost first calls", update).execute(tx.connection()?).await.map(|_| ())
}
