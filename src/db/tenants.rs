//! The directory: what the identity provider calls an organisation or a person, and our id for it.

use diesel::{
    QueryableByName,
    sql_types::{Jsonb, SmallInt, Text, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{DbError, SystemTx, statement::statement};
use crate::domain::{
    caller::{Tenant, TenantKind},
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
    #[diesel(sql_type = Jsonb)]
    policy: serde_json::Value,
}

impl TenantRow {
    fn read(self) -> Result<Tenant, DbError> {
        const OPERATION: &str = "read tenant";
        let kind = TenantKind::from_number(self.kind).ok_or_else(|| DbError::corrupt(OPERATION, "kind"))?;
        let policy =
            serde_json::from_value(self.policy).map_err(|error| DbError::corrupt(OPERATION, error))?;
        Ok(Tenant { id: TenantId::from_uuid(self.id), kind, policy })
    }
}

/// Finds a tenant by its outside name.
pub async fn find(tx: &mut SystemTx, name: &TenantName) -> Result<Option<Tenant>, DbError> {
    let row: Option<TenantRow> = statement(
        "find tenant",
        "SELECT id, kind, policy FROM tenants WHERE kind = {} AND issuer = {} AND external_id = {}",
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
        statement("get tenant", "SELECT id, kind, policy FROM tenants WHERE id = {}")
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
         VALUES ({}, {}, {}, {}, {}, app.now()) ON CONFLICT (kind, issuer, external_id) DO NOTHING",
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
