//! The tenant directory. It maps the names of organizations and persons at the identity provider to tenant
//! ids.

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Jsonb, SmallInt, Text, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{DbError, SystemTx, TenantTx, sql::statement};
use crate::domain::{
    caller::{Tenant, TenantKind, TenantState},
    ids::TenantId,
    policy::Policy,
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

#[derive(QueryableByName)]
struct TenantRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = SmallInt)]
    kind: i16,
    #[diesel(sql_type = SmallInt)]
    state: i16,
    #[diesel(sql_type = Jsonb)]
    policy: serde_json::Value,
}

impl TenantRow {
    fn into_tenant(self) -> Result<Tenant, DbError> {
        const OPERATION: &str = "read tenant";
        let kind = TenantKind::from_number(self.kind).ok_or_else(|| DbError::corrupt(OPERATION, "kind"))?;
        let policy =
            serde_json::from_value(self.policy).map_err(|error| DbError::corrupt(OPERATION, error))?;
        let state =
            TenantState::from_number(self.state).ok_or_else(|| DbError::corrupt(OPERATION, "state"))?;
        Ok(Tenant { id: TenantId::from_uuid(self.id), kind, state, policy })
    }
}

/// Returns the tenant with this name. Returns a deleted tenant only if no other tenant has the name.
pub async fn find_by_name(tx: &mut SystemTx, name: &TenantName) -> Result<Option<Tenant>, DbError> {
    let row: Option<TenantRow> = statement(
        "find tenant by name",
        "SELECT id, kind, state, policy FROM tenants WHERE kind = $1 AND issuer = $2 AND external_id = $3
         ORDER BY state = 4, create_time DESC LIMIT 1",
    )
    .bind::<SmallInt, _>(name.kind.number())
    .bind::<Text, _>(name.issuer.clone())
    .bind::<Text, _>(name.external_id.clone())
    .first(tx.connection()?)
    .await?;
    row.map(TenantRow::into_tenant).transpose()
}

/// Returns the tenant with this id.
pub async fn get(tx: &mut SystemTx, id: TenantId) -> Result<Option<Tenant>, DbError> {
    let row: Option<TenantRow> =
        statement("get tenant", "SELECT id, kind, state, policy FROM tenants WHERE id = $1")
            .bind::<SqlUuid, _>(id.as_uuid())
            .first(tx.connection()?)
            .await?;
    row.map(TenantRow::into_tenant).transpose()
}

/// Creates a tenant, unless one with this name exists that is not deleted. Returns whether it was created.
pub async fn create(
    tx: &mut SystemTx,
    id: TenantId,
    name: &TenantName,
    policy: &Policy,
) -> Result<bool, DbError> {
    let policy = serde_json::to_value(policy).map_err(|error| DbError::corrupt("write policy", error))?;
    let created = statement(
        "create tenant",
        "INSERT INTO tenants (id, kind, issuer, external_id, policy, create_time)
         VALUES ($1, $2, $3, $4, $5, app.now()) ON CONFLICT (kind, issuer, external_id) WHERE state <> 4 DO NOTHING",
    )
    .bind::<SqlUuid, _>(id.as_uuid())
    .bind::<SmallInt, _>(name.kind.number())
    .bind::<Text, _>(name.issuer.clone())
    .bind::<Text, _>(name.external_id.clone())
    .bind::<Jsonb, _>(policy)
    .execute(tx.connection()?)
    .await?;
    Ok(created == 1)
}

/// The stored policy of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StoredPolicy {
    pub policy: Policy,
    /// Incremented with every change.
    pub revision: i64,
}

impl StoredPolicy {
    /// Returns the etag, which changes with every change of the policy.
    pub fn etag(&self) -> String {
        self.revision.to_string()
    }
}

#[derive(QueryableByName)]
struct PolicyRow {
    #[diesel(sql_type = Jsonb)]
    policy: serde_json::Value,
    #[diesel(sql_type = BigInt)]
    policy_revision: i64,
}

impl PolicyRow {
    fn into_policy(self) -> Result<StoredPolicy, DbError> {
        let policy =
            serde_json::from_value(self.policy).map_err(|error| DbError::corrupt("read policy", error))?;
        Ok(StoredPolicy { policy, revision: self.policy_revision })
    }
}

#[derive(QueryableByName)]
struct StateRow {
    #[diesel(sql_type = SmallInt)]
    state: i16,
}

/// Returns the current state of the transaction's tenant.
pub async fn get_state(tx: &mut TenantTx) -> Result<TenantState, DbError> {
    const OPERATION: &str = "read state of tenant";
    let row: StateRow = statement(OPERATION, "SELECT state FROM tenants WHERE id = $1")
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .one(tx.connection()?)
        .await?;
    TenantState::from_number(row.state).ok_or_else(|| DbError::corrupt(OPERATION, "state"))
}

/// Returns the policy of the transaction's tenant.
pub async fn get_policy(tx: &mut TenantTx) -> Result<StoredPolicy, DbError> {
    let sql = "SELECT policy, policy_revision FROM tenants WHERE id = $1";
    let tenant = tx.tenant().as_uuid();
    let row: PolicyRow =
        statement("read policy", sql).bind::<SqlUuid, _>(tenant).one(tx.connection()?).await?;
    row.into_policy()
}

/// Returns the policy of the transaction's tenant, and locks it until the transaction ends.
pub async fn get_policy_for_update(tx: &mut TenantTx) -> Result<StoredPolicy, DbError> {
    let sql = "SELECT policy, policy_revision FROM tenants WHERE id = $1 FOR NO KEY UPDATE";
    let tenant = tx.tenant().as_uuid();
    let row: PolicyRow =
        statement("lock policy", sql).bind::<SqlUuid, _>(tenant).one(tx.connection()?).await?;
    row.into_policy()
}

/// Replaces a policy that was read with [`get_policy_for_update`].
pub async fn set_policy(tx: &mut TenantTx, policy: Policy) -> Result<StoredPolicy, DbError> {
    let document = serde_json::to_value(&policy).map_err(|error| DbError::corrupt("write policy", error))?;
    let row: PolicyRow = statement(
        "set policy",
        "UPDATE tenants SET policy = $1, policy_revision = policy_revision + 1 WHERE id = $2
         RETURNING policy, policy_revision",
    )
    .bind::<Jsonb, _>(document)
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .one(tx.connection()?)
    .await?;
    row.into_policy()
}

/// Waits for commits of files in progress, and blocks new ones until the transaction ends.
pub async fn lock_file_creation(tx: &mut TenantTx) -> Result<(), DbError> {
    statement("lock file creation", "SELECT app.lock_file_creation($1, true)")
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .execute(tx.connection()?)
        .await
        .map(|_| ())
}
