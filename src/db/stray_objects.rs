//! Stray objects: objects that no blob references, with the time of their deletion. They are copies in
//! progress, and originals whose blob was moved. After a crash the row remains, so the object is still
//! deleted.

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Bool, Integer, Text, Timestamptz, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, SystemTx,
    sql::{Operation, SqlText, statement},
};
use crate::domain::{clock::Timestamp, ids::TenantId, object_key::ObjectKey};

/// An object that no blob references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StrayObject {
    pub tenant: TenantId,
    /// The provider that stores it.
    pub provider: String,
    /// Its key at the provider. Keys are never reused.
    pub key: ObjectKey,
    /// Whether an incomplete multipart upload of this key may exist.
    pub may_be_unfinished: bool,
}

impl StrayObject {
    /// Binds tenant, provider and key, in this order.
    fn bind(&self, statement: Operation<SqlText>) -> Operation<SqlText> {
        statement
            .bind::<SqlUuid, _>(self.tenant.as_uuid())
            .bind::<Text, _>(self.provider.clone())
            .bind::<Text, _>(self.key.as_str().to_owned())
    }
}

/// Inserts a stray object that is due for deletion after the given number of hours.
pub async fn insert(tx: &mut SystemTx, object: &StrayObject, hours: u32) -> Result<(), DbError> {
    let insertion = statement(
        "insert stray object",
        "INSERT INTO stray_objects (tenant_id, provider, storage_key, may_be_unfinished, delete_after)
         VALUES ($1, $2, $3, $4, app.now() + make_interval(hours => $5))",
    );
    object
        .bind(insertion)
        .bind::<Bool, _>(object.may_be_unfinished)
        .bind::<Integer, _>(i32::try_from(hours).unwrap_or(i32::MAX))
        .execute(tx.connection()?)
        .await
        .map(|_| ())
}

/// Makes a stray object due for deletion immediately.
pub async fn make_due(tx: &mut SystemTx, object: &StrayObject) -> Result<(), DbError> {
    let update = statement(
        "make stray object due",
        "UPDATE stray_objects SET delete_after = app.now() WHERE tenant_id = $1 AND provider = $2 AND storage_key = $3",
    );
    object.bind(update).execute(tx.connection()?).await.map(|_| ())
}

/// Deletes the row of an object that a blob of the same transaction now references. Returns false if the
/// object is already being deleted.
pub async fn adopt(tx: &mut SystemTx, object: &StrayObject) -> Result<bool, DbError> {
    let delete = statement(
        "adopt stray object",
        "DELETE FROM stray_objects
         WHERE tenant_id = $1 AND provider = $2 AND storage_key = $3 AND NOT is_being_deleted",
    );
    Ok(object.bind(delete).execute(tx.connection()?).await? == 1)
}

/// Claims an object for deletion; it can no longer be adopted. Returns false if it is not due, or a blob
/// references it.
pub async fn claim(tx: &mut SystemTx, object: &StrayObject) -> Result<bool, DbError> {
    let update = statement(
        "claim stray object",
        "UPDATE stray_objects AS s SET is_being_deleted = true
         WHERE tenant_id = $1 AND provider = $2 AND storage_key = $3 AND delete_after <= app.now()
           AND NOT EXISTS (SELECT FROM blobs AS b WHERE b.tenant_id = s.tenant_id AND b.provider = s.provider
                           AND b.storage_key = s.storage_key)",
    );
    Ok(object.bind(update).execute(tx.connection()?).await? == 1)
}

/// Deletes the row of an object that has been deleted.
pub async fn delete(tx: &mut SystemTx, object: &StrayObject) -> Result<(), DbError> {
    let delete = statement(
        "delete stray object",
        "DELETE FROM stray_objects
         WHERE tenant_id = $1 AND provider = $2 AND storage_key = $3 AND is_being_deleted",
    );
    object.bind(delete).execute(tx.connection()?).await.map(|_| ())
}

/// A stray object that is due for deletion.
#[derive(Debug, Clone)]
pub struct DueStrayObject {
    pub object: StrayObject,
    /// The time from which it is due.
    pub delete_after: Timestamp,
}

/// The position of an object in the list of due stray objects.
pub type StrayObjectCursor = (Timestamp, TenantId, String);

impl DueStrayObject {
    /// Returns the position of this object in the list of due stray objects.
    pub fn cursor(&self) -> StrayObjectCursor {
        (self.delete_after, self.object.tenant, self.object.key.to_string())
    }
}

#[derive(QueryableByName)]
struct StrayRow {
    #[diesel(sql_type = Timestamptz)]
    delete_after: Timestamp,
    #[diesel(sql_type = SqlUuid)]
    tenant_id: Uuid,
    #[diesel(sql_type = Text)]
    storage_key: String,
    #[diesel(sql_type = Bool)]
    may_be_unfinished: bool,
}

/// Returns due stray objects of a provider, after a position, ordered by due time.
pub async fn list_due(
    tx: &mut SystemTx,
    provider: &str,
    after: Option<StrayObjectCursor>,
    limit: i64,
) -> Result<Vec<DueStrayObject>, DbError> {
    const OPERATION: &str = "list due stray objects";
    let (time, tenant, key) = after.map_or((Timestamp::UNIX_EPOCH, Uuid::nil(), String::new()), |after| {
        (after.0, after.1.as_uuid(), after.2)
    });
    let rows: Vec<StrayRow> = statement(
        OPERATION,
        "SELECT delete_after, tenant_id, storage_key, may_be_unfinished FROM stray_objects
         WHERE delete_after <= app.now() AND provider = $1 AND (delete_after, tenant_id, storage_key) > ($2, $3, $4)
         ORDER BY delete_after, tenant_id, storage_key LIMIT $5",
    )
    .bind::<Text, _>(provider.to_owned())
    .bind::<Timestamptz, _>(time)
    .bind::<SqlUuid, _>(tenant)
    .bind::<Text, _>(key)
    .bind::<BigInt, _>(limit)
    .load(tx.connection()?)
    .await?;
    rows.into_iter()
        .map(|row| {
            let object = StrayObject {
                tenant: TenantId::from_uuid(row.tenant_id),
                provider: provider.to_owned(),
                key: ObjectKey::parse(&row.storage_key)
                    .map_err(|error| DbError::corrupt(OPERATION, error))?,
                may_be_unfinished: row.may_be_unfinished,
            };
            Ok(DueStrayObject { object, delete_after: row.delete_after })
        })
        .collect()
}

#[derive(QueryableByName)]
struct CountRow {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Makes all stray objects of a tenant due immediately. Returns their number.
pub async fn make_all_due(tx: &mut SystemTx, tenant: TenantId) -> Result<i64, DbError> {
    let row: CountRow = statement(
        "make stray objects due",
        "WITH due AS (
             UPDATE stray_objects SET delete_after = least(delete_after, app.now()) WHERE tenant_id = $1 RETURNING 1)
         SELECT count(*) AS count FROM due",
    )
    .bind::<SqlUuid, _>(tenant.as_uuid())
    .one(tx.connection()?)
    .await?;
    Ok(row.count)
}
