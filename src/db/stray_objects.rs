//! Stray objects: objects that no blob references, with the time of their deletion. They are copies in
//! progress, and originals whose blob was moved. After a crash the row remains, so the object is still
//! deleted.
//!
//! A trigger counts their bytes in the row of the quota and locks it. Inserting and deleting them must therefore be
//! the last changes of a transaction.

use diesel::{
    ExpressionMethods as _, Insertable, IntoSql as _, NullableExpressionMethods as _, QueryDsl as _,
    Queryable, Selectable, SelectableHelper as _,
    dsl::{exists, not},
    sql_types::{Array, BigInt, Integer, Record, Text, Timestamptz, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, SystemTx, TenantTx,
    object_sizes::{SizeRow, count_and_sum},
    schema::{blobs, stray_objects},
    sql::{self, AcrossTenants as _, OfTenant as _, least, now, now_plus, query, statement},
};
use crate::domain::{
    clock::Timestamp,
    ids::{BlobId, TenantId},
    object_key::ObjectKey,
};

/// An object that no blob references.
#[derive(Debug, Clone, PartialEq, Eq, Insertable, Queryable, Selectable)]
#[diesel(table_name = stray_objects, check_for_backend(diesel::pg::Pg))]
pub struct StrayObject {
    #[diesel(column_name = tenant_id)]
    pub tenant: TenantId,
    /// The provider that stores it.
    pub provider: String,
    /// Its key at the provider. Keys are never reused.
    #[diesel(column_name = storage_key)]
    pub key: ObjectKey,
    /// Whether an incomplete multipart upload of this key may exist.
    pub may_be_unfinished: bool,
    /// Its size, or the size that the copy will have. It counts as pending deletion.
    pub size_bytes: i64,
}

/// Selects the row of an object.
macro_rules! row_of {
    ($object:expr) => {
        stray_objects::table
            .of($object.tenant)
            .filter(stray_objects::provider.eq(&$object.provider))
            .filter(stray_objects::storage_key.eq(&$object.key))
    };
}

/// Inserts a stray object that is due for deletion after the given number of hours.
pub async fn insert(tx: &mut SystemTx, object: &StrayObject, hours: u32) -> Result<(), DbError> {
    let insert = diesel::insert_into(stray_objects::table)
        .values((object, stray_objects::delete_after.eq(now_plus(sql::hours(hours)))));
    query("insert stray object", insert).execute(tx.connection()?).await.map(|_| ())
}

/// Inserts the copies of blobs whose rows the same transaction deletes. They are due immediately, and have no size,
/// because copies do not count in quotas.
pub(super) async fn insert_replicas_of(
    tx: &mut SystemTx,
    tenant: TenantId,
    ids: &[BlobId],
) -> Result<(), DbError> {
    // An insert from a query.
    statement(
        "release replicas of blobs",
        "INSERT INTO stray_objects (tenant_id, provider, storage_key, may_be_unfinished, delete_after)
         SELECT tenant_id, replica_provider, replica_key, false, app.now() FROM blobs
         WHERE tenant_id = $1 AND id = ANY ($2) AND replica_key IS NOT NULL",
    )
    .bind::<SqlUuid, _>(tenant)
    .bind::<Array<SqlUuid>, _>(ids.to_vec())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Makes a stray object due for deletion immediately.
pub async fn make_due(tx: &mut SystemTx, object: &StrayObject) -> Result<(), DbError> {
    let update = diesel::update(row_of!(object)).set(stray_objects::delete_after.eq(now()));
    query("make stray object due", update).execute(tx.connection()?).await.map(|_| ())
}

/// Postpones the deletion of an object to the given number of hours from now, unless it is due.
pub async fn postpone(tx: &mut SystemTx, object: &StrayObject, hours: u32) -> Result<(), DbError> {
    let update = diesel::update(row_of!(object).filter(stray_objects::delete_after.gt(now())))
        .set(stray_objects::delete_after.eq(now_plus(sql::hours(hours))));
    query("postpone deletion of stray object", update).execute(tx.connection()?).await.map(|_| ())
}

/// Deletes the row of an object that a blob of the same transaction now references. Returns false if the
/// object is already being deleted.
pub async fn adopt(tx: &mut SystemTx, object: &StrayObject) -> Result<bool, DbError> {
    let delete = diesel::delete(row_of!(object).filter(not(stray_objects::is_being_deleted)));
    Ok(query("adopt stray object", delete).execute(tx.connection()?).await? == 1)
}

/// Claims an object for deletion; it can no longer be adopted. Returns false if it is not due, or a blob
/// references it as its original or its copy.
pub async fn claim(tx: &mut SystemTx, object: &StrayObject) -> Result<bool, DbError> {
    let references = blobs::table
        .of(object.tenant)
        .filter(blobs::provider.eq(stray_objects::provider))
        .filter(blobs::storage_key.eq(stray_objects::storage_key));
    let copies = blobs::table
        .of(object.tenant)
        .filter(blobs::replica_provider.eq(stray_objects::provider.nullable()))
        .filter(blobs::replica_key.eq(stray_objects::storage_key.nullable()));
    let due = row_of!(object)
        .filter(stray_objects::delete_after.le(now()))
        .filter(not(exists(references)))
        .filter(not(exists(copies)));
    let update = diesel::update(due).set(stray_objects::is_being_deleted.eq(true));
    Ok(query("claim stray object", update).execute(tx.connection()?).await? == 1)
}

/// Deletes the row of an object that has been deleted.
pub async fn delete(tx: &mut SystemTx, object: &StrayObject) -> Result<(), DbError> {
    let delete = diesel::delete(row_of!(object).filter(stray_objects::is_being_deleted));
    query("delete stray object", delete).execute(tx.connection()?).await.map(|_| ())
}

/// A stray object that is due for deletion.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = stray_objects, check_for_backend(diesel::pg::Pg))]
pub struct DueStrayObject {
    #[diesel(embed)]
    pub object: StrayObject,
    /// The time from which it is due.
    pub delete_after: Timestamp,
}

/// The position of an object in the list of due stray objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StrayObjectCursor {
    pub delete_after: Timestamp,
    pub tenant: TenantId,
    pub key: ObjectKey,
}

impl DueStrayObject {
    /// Returns the position of this object in the list of due stray objects.
    pub fn cursor(&self) -> StrayObjectCursor {
        StrayObjectCursor {
            delete_after: self.delete_after,
            tenant: self.object.tenant,
            key: self.object.key.clone(),
        }
    }
}

/// Returns due stray objects of a provider, after a position, ordered by due time.
pub async fn list_due(
    tx: &mut SystemTx,
    provider: &str,
    after: Option<StrayObjectCursor>,
    limit: i64,
) -> Result<Vec<DueStrayObject>, DbError> {
    type Position = Record<(Timestamptz, SqlUuid, Text)>;
    let start = (Timestamp::UNIX_EPOCH, TenantId::from_uuid(Uuid::nil()), "");
    let after = after.as_ref().map_or(start, |after| (after.delete_after, after.tenant, after.key.as_str()));
    let position = (stray_objects::delete_after, stray_objects::tenant_id, stray_objects::storage_key);
    let page = stray_objects::table
        .across_tenants()
        .filter(stray_objects::delete_after.le(now()))
        .filter(stray_objects::provider.eq(provider))
        .filter(position.into_sql::<Position>().gt(after))
        .order(position)
        .limit(limit)
        .select(DueStrayObject::as_select());
    query("list due stray objects", page).load(tx.connection()?).await
}

/// Makes originals of moved blobs of the tenant due after the given number of hours, if they are due later; at most
/// `limit`. Returns their number and total size in bytes.
pub async fn make_originals_due(tx: &mut TenantTx, hours: u32, limit: i64) -> Result<(i64, i64), DbError> {
    // The query builder cannot update the rows of a limited subquery of the same table. A copy that may be
    // unfinished is in progress.
    let sizes: Vec<SizeRow> = statement(
        "make originals due",
        "UPDATE stray_objects SET delete_after = app.now() + make_interval(hours => $2)
         WHERE tenant_id = $1 AND (storage_key, provider) IN (
             SELECT storage_key, provider FROM stray_objects
             WHERE tenant_id = $1 AND NOT may_be_unfinished
               AND delete_after > app.now() + make_interval(hours => $2)
             ORDER BY delete_after LIMIT $3)
         RETURNING size_bytes",
    )
    .bind::<SqlUuid, _>(tx.tenant())
    .bind::<Integer, _>(i32::try_from(hours).unwrap_or(i32::MAX))
    .bind::<BigInt, _>(limit)
    .load(tx.connection()?)
    .await?;
    Ok(count_and_sum(sizes.iter().map(|row| row.size_bytes)))
}

/// Makes all stray objects of a tenant due immediately. Returns their number.
pub async fn make_all_due(tx: &mut SystemTx, tenant: TenantId) -> Result<i64, DbError> {
    let update = diesel::update(stray_objects::table.of(tenant))
        .set(stray_objects::delete_after.eq(least(stray_objects::delete_after, now())));
    let updated = query("make stray objects due", update).execute(tx.connection()?).await?;
    Ok(i64::try_from(updated).unwrap_or(i64::MAX))
}
