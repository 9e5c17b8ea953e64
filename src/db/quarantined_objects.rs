//! Quarantined objects: objects that no other row references, and that an operator keeps.

use diesel::{
    ExpressionMethods as _, IntoSql as _, QueryDsl as _, Queryable, Selectable, SelectableHelper as _,
    dsl::{count_star, exists},
    sql_types::{Array, BigInt, Record, Text, Timestamptz, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, SystemTx, TenantTx,
    schema::quarantined_objects,
    sql::{AcrossTenants as _, OfTenant as _, coalesce, query, statement, sum_of},
};
use crate::domain::{clock::Timestamp, ids::TenantId, object_key::ObjectKey};

/// An object that an operator keeps.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, Queryable, Selectable)]
#[diesel(table_name = quarantined_objects, check_for_backend(diesel::pg::Pg))]
pub struct QuarantinedObject {
    #[diesel(column_name = tenant_id)]
    pub tenant: TenantId,
    pub provider: String,
    #[diesel(column_name = storage_key)]
    #[serde(serialize_with = "serialize_key")]
    pub key: ObjectKey,
    pub size_bytes: i64,
    /// The time of the object in its store.
    pub modify_time: Timestamp,
    pub reason: String,
    pub quarantine_time: Timestamp,
}

fn serialize_key<S: serde::Serializer>(key: &ObjectKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(key.as_str())
}

/// An object to quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectToQuarantine {
    pub key: ObjectKey,
    pub size_bytes: u64,
    /// The time of the object in its store.
    pub modify_time: Timestamp,
}

/// Quarantines objects of a store. Those that are quarantined already are left unchanged.
pub async fn insert(
    tx: &mut SystemTx,
    provider: &str,
    objects: &[ObjectToQuarantine],
    reason: &str,
) -> Result<(), DbError> {
    // `unnest` batch.
    statement(
        "insert quarantined objects",
        "INSERT INTO quarantined_objects (tenant_id, provider, storage_key, size_bytes, modify_time, reason,
             quarantine_time)
         SELECT k.tenant_id, $1, k.storage_key, k.size_bytes, k.modify_time, $2, app.now()
         FROM unnest($3, $4, $5, $6) AS k (tenant_id, storage_key, size_bytes, modify_time)
         ON CONFLICT DO NOTHING",
    )
    .bind::<Text, _>(provider.to_owned())
    .bind::<Text, _>(reason.to_owned())
    .bind::<Array<SqlUuid>, _>(objects.iter().map(|object| object.key.tenant()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(objects.iter().map(|object| object.key.clone()).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(
        objects.iter().map(|object| i64::try_from(object.size_bytes).unwrap_or(i64::MAX)).collect::<Vec<_>>(),
    )
    .bind::<Array<Timestamptz>, _>(objects.iter().map(|object| object.modify_time).collect::<Vec<_>>())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// The position of an object in the list of quarantined objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineCursor {
    pub tenant: TenantId,
    pub key: ObjectKey,
    pub provider: String,
}

impl QuarantinedObject {
    /// Returns the position of this object in the list of quarantined objects.
    pub fn cursor(&self) -> QuarantineCursor {
        QuarantineCursor { tenant: self.tenant, key: self.key.clone(), provider: self.provider.clone() }
    }
}

/// Returns quarantined objects after a position, ordered by tenant, key and provider.
pub async fn list(
    tx: &mut SystemTx,
    after: Option<QuarantineCursor>,
    limit: i64,
) -> Result<Vec<QuarantinedObject>, DbError> {
    type Position = Record<(SqlUuid, Text, Text)>;
    let start = (TenantId::from_uuid(Uuid::nil()), "", "");
    let after =
        after.as_ref().map_or(start, |after| (after.tenant, after.key.as_str(), after.provider.as_str()));
    let position =
        (quarantined_objects::tenant_id, quarantined_objects::storage_key, quarantined_objects::provider);
    let page = quarantined_objects::table
        .across_tenants()
        .filter(position.into_sql::<Position>().gt(after))
        .order(position)
        .limit(limit)
        .select(QuarantinedObject::as_select());
    query("list quarantined objects", page).load(tx.connection()?).await
}

/// Deletes the row of an object that was released, or deleted from its store.
pub async fn delete(tx: &mut SystemTx, object: &QuarantineCursor) -> Result<(), DbError> {
    let row = quarantined_objects::table
        .of(object.tenant)
        .filter(quarantined_objects::storage_key.eq(&object.key))
        .filter(quarantined_objects::provider.eq(&object.provider));
    query("delete quarantined object", diesel::delete(row)).execute(tx.connection()?).await.map(|_| ())
}

/// Returns whether the object with this key is quarantined.
pub async fn has_key(tx: &mut TenantTx, key: &ObjectKey) -> Result<bool, DbError> {
    let object = quarantined_objects::table.of(tx.tenant()).filter(quarantined_objects::storage_key.eq(key));
    query("find quarantined object", diesel::select(exists(object))).one(tx.connection()?).await
}

/// The number and size of quarantined objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Queryable)]
pub struct QuarantineTotals {
    pub count: i64,
    pub bytes: i64,
}

/// Counts the quarantined objects of a provider.
pub async fn count_all(tx: &mut SystemTx, provider: &str) -> Result<QuarantineTotals, DbError> {
    let bytes = coalesce(sum_of(quarantined_objects::size_bytes), 0.into_sql::<BigInt>());
    let totals = quarantined_objects::table
        .across_tenants()
        .filter(quarantined_objects::provider.eq(provider))
        .select((count_star(), bytes));
    query("count quarantined objects", totals).one(tx.connection()?).await
}
