//! The directory: what the identity provider calls an organisation or a person, and our id for it.

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Jsonb, SmallInt, Text, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{DbError, SystemTx, TenantTx, statement::statement};
use crate::domain::{
    caller::{Tenant, TenantKind, TenantState},
    ids::TenantId,
    policy::Policy,
};

/// What the identity provider calls a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TenantName {
    /// Organisation or person: the two can never collide.
    pub kind: TenantKind,
    /// Who vouches for it.
    pub issuer: String,
    /// The organisation's or the person's id there.
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
    fn read(self) -> Result<Tenant, DbError> {
        const OPERATION: &str = "read tenant";
        let kind = TenantKind::from_number(self.kind).ok_or_else(|| DbError::corrupt(OPERATION, "kind"))?;
        let policy =
            serde_json::from_value(self.policy).map_err(|error| DbError::corrupt(OPERATION, error))?;
        let state =
            TenantState::from_number(self.state).ok_or_else(|| DbError::corrupt(OPERATION, "state"))?;
        Ok(Tenant { id: TenantId::from_uuid(self.id), kind, state, policy })
    }
}

/// Finds a tenant by its outside name; one that was deleted only where no other has the name now.
pub async fn find(tx: &mut SystemTx, name: &TenantName) -> Result<Option<Tenant>, DbError> {
    let row: Option<TenantRow> = statement(
        "find tenant",
        "SELECT id, kind, state, policy FROM tenants WHERE kind = {} AND issuer = {} AND external_id = {}
         ORDER BY state = 4, create_time DESC LIMIT 1",
    )
    .bind::<SmallInt, _>(name.kind.number())
    .bind::<Text, _>(name.issuer.clone())
    .bind::<Text, _>(name.external_id.clone())
    .first(tx.connection()?)
    .await?;
    row.map(TenantRow::read).transpose()
}

/// The tenant with this id.
pub async fn get(tx: &mut SystemTx, id: TenantId) -> Result<Option<Tenant>, DbError> {
    let row: Option<TenantRow> =
        statement("get tenant", "SELECT id, kind, state, policy FROM tenants WHERE id = {}")
            .bind::<SqlUuid, _>(id.as_uuid())
            .first(tx.connection()?)
            .await?;
    row.map(TenantRow::read).transpose()
}

/// Creates a tenant unless another request was faster; returns whether this one did.
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
         VALUES ({}, {}, {}, {}, {}, app.now()) ON CONFLICT (kind, issuer, external_id) WHERE state <> 4 DO NOTHING",
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

/// A tenant's policy as its row holds it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StoredPolicy {
    /// The rules.
    pub policy: Policy,
    /// Grows with every change.
    pub revision: i64,
}

impl StoredPolicy {
    /// Changes whenever the policy does.
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
    fn read(self) -> Result<StoredPolicy, DbError> {
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

/// Where the transaction's tenant is in its life, now.
pub async fn state(tx: &mut TenantTx) -> Result<TenantState, DbError> {
    const OPERATION: &str = "read state of tenant";
    let row: StateRow = statement(OPERATION, "SELECT state FROM tenants WHERE id = {}")
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .one(tx.connection()?)
        .await?;
    TenantState::from_number(row.state).ok_or_else(|| DbError::corrupt(OPERATION, "state"))
}

/// The policy of the transaction's tenant.
pub async fn policy(tx: &mut TenantTx) -> Result<StoredPolicy, DbError> {
    let sql = "SELECT policy, policy_revision FROM tenants WHERE id = {}";
    let tenant = tx.tenant().as_uuid();
    let row: PolicyRow =
        statement("read policy", sql).bind::<SqlUuid, _>(tenant).one(tx.connection()?).await?;
    row.read()
}

/// The policy of the transaction's tenant, locked until the transaction ends.
pub async fn policy_for_update(tx: &mut TenantTx) -> Result<StoredPolicy, DbError> {
    let sql = "SELECT policy, policy_revision FROM tenants WHERE id = {} FOR NO KEY UPDATE";
    let tenant = tx.tenant().as_uuid();
    let row: PolicyRow =
        statement("lock policy", sql).bind::<SqlUuid, _>(tenant).one(tx.connection()?).await?;
    row.read()
}

/// Writes a policy that was read with [`policy_for_update`].
pub async fn set_policy(tx: &mut TenantTx, policy: Policy) -> Result<StoredPolicy, DbError> {
    let document = serde_json::to_value(&policy).map_err(|error| DbError::corrupt("write policy", error))?;
    let row: PolicyRow = statement(
        "set policy",
        "UPDATE tenants SET policy = {}, policy_revision = policy_revision + 1 WHERE id = {}
         RETURNING policy, policy_revision",
    )
    .bind::<Jsonb, _>(document)
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .one(tx.connection()?)
    .await?;
    row.read()
}

/// Waits for the commits of files that are under way, and holds up those that come, until the transaction ends.
pub async fn lock_births(tx: &mut TenantTx) -> Result<(), DbError> {
    statement("lock births", "SELECT app.lock_births({}, true)")
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .execute(tx.connection()?)
        .await
        .map(|_| ())
}
