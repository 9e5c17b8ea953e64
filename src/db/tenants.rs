//! The tenant directory. It maps the names of organizations and persons at the identity provider to tenant
//! ids.

use diesel::{
    ExpressionMethods as _, QueryDsl as _, Queryable, Selectable, SelectableHelper as _,
    sql_types::Uuid as SqlUuid,
};

use super::{
    DbError, SystemTx, TenantTx,
    schema::tenants,
    sql::{query, statement},
};
use crate::domain::{
    caller::{Tenant, TenantKind, TenantState},
    ids::TenantId,
    policy::Policy,
    rate_limits::RequestLimits,
};

/// The name of a tenant at the identity provider.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TenantName {
    /// Organization or person. Names of different kinds never collide.
    pub kind: TenantKind,
    /// The issuer of the identity.
    pub issuer: String,
    /// The id of the organization or person at the issuer.
    pub external_id: String,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = tenants, check_for_backend(diesel::pg::Pg))]
pub(super) struct TenantRow {
    id: TenantId,
    kind: TenantKind,
    state: TenantState,
    policy: Policy,
    is_read_only: bool,
    rate_limits: RequestLimits,
}

impl From<TenantRow> for Tenant {
    fn from(row: TenantRow) -> Self {
        Self {
            id: row.id,
            kind: row.kind,
            state: row.state,
            policy: row.policy,
            is_read_only: row.is_read_only,
            rate_limits: row.rate_limits,
        }
    }
}

/// Returns the tenant with this name, unless it is provisional. Returns a deleted tenant only if no other tenant has
/// the name.
pub async fn find_by_name(tx: &mut SystemTx, name: &TenantName) -> Result<Option<Tenant>, DbError> {
    let tenant = tenants::table
        .filter(tenants::kind.eq(name.kind))
        .filter(tenants::issuer.eq(&name.issuer))
        .filter(tenants::external_id.eq(&name.external_id))
        .filter(tenants::provisional_time.is_null())
        .order((tenants::state.eq(TenantState::Deleted), tenants::create_time.desc()))
        .limit(1)
        .select(TenantRow::as_select());
    let row: Option<TenantRow> = query("find tenant by name", tenant).first(tx.connection()?).await?;
    Ok(row.map(Tenant::from))
}

/// Returns the tenant with this id.
pub async fn get(tx: &mut SystemTx, id: TenantId) -> Result<Option<Tenant>, DbError> {
    let tenant = tenants::table.find(id).select(TenantRow::as_select());
    let row: Option<TenantRow> = query("get tenant", tenant).first(tx.connection()?).await?;
    Ok(row.map(Tenant::from))
}

/// The stored policy of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, Queryable, Selectable)]
#[diesel(table_name = tenants, check_for_backend(diesel::pg::Pg))]
pub struct StoredPolicy {
    pub policy: Policy,
    /// Incremented with every change.
    #[diesel(column_name = policy_revision)]
    pub revision: i64,
    /// Whether the tenant is read-only. Absent from responses that an earlier release has recorded.
    #[serde(default)]
    pub is_read_only: bool,
}

impl StoredPolicy {
    /// Returns the etag, which changes with every change of the policy.
    pub fn etag(&self) -> String {
        self.revision.to_string()
    }
}

/// Returns the current state of the transaction's tenant.
pub async fn get_state(tx: &mut TenantTx) -> Result<TenantState, DbError> {
    let state = tenants::table.find(tx.tenant()).select(tenants::state);
    query("read state of tenant", state).one(tx.connection()?).await
}

/// Returns the policy of the transaction's tenant.
pub async fn get_policy(tx: &mut TenantTx) -> Result<StoredPolicy, DbError> {
    let policy = tenants::table.find(tx.tenant()).select(StoredPolicy::as_select());
    query("read policy", policy).one(tx.connection()?).await
}

/// Returns the policy of the transaction's tenant, and locks it until the transaction ends.
pub async fn get_policy_for_update(tx: &mut TenantTx) -> Result<StoredPolicy, DbError> {
    let policy = tenants::table.find(tx.tenant()).select(StoredPolicy::as_select()).for_no_key_update();
    query("lock policy", policy).one(tx.connection()?).await
}

/// Replaces a policy that was read with [`get_policy_for_update`].
pub async fn set_policy(tx: &mut TenantTx, policy: Policy) -> Result<StoredPolicy, DbError> {
    let update = diesel::update(tenants::table.find(tx.tenant()))
        .set((tenants::policy.eq(policy), tenants::policy_revision.eq(tenants::policy_revision + 1)))
        .returning(StoredPolicy::as_returning());
    query("set policy", update).one(tx.connection()?).await
}

/// Waits for commits of files in progress, and blocks new ones until the transaction ends.
pub async fn lock_file_creation(tx: &mut TenantTx) -> Result<(), DbError> {
    // A function without a result.
    statement("lock file creation", "SELECT app.lock_file_creation($1, true)")
        .bind::<SqlUuid, _>(tx.tenant())
        .execute(tx.connection()?)
        .await
        .map(|_| ())
}
