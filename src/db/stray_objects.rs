//! Objects that no blob refers to, yet or any more, and when they are to be removed: a copy that is being made, and an
//! original whose blob was moved away. A crash leaves the row, so it leaves nothing behind for good.

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Bool, Integer, Text, Timestamptz, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, SystemTx,
    statement::{Statement, statement},
};
use crate::domain::{clock::Timestamp, ids::TenantId, object_key::ObjectKey};

/// An object without a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StrayObject {
    /// Whose.
    pub tenant: TenantId,
    /// The provider that holds it.
    pub provider: String,
    /// Its key there; nobody writes it a second time.
    pub key: ObjectKey,
    /// There may be a multipart upload of this key that nobody will complete.
    pub may_be_unfinished: bool,
}

impl StrayObject {
    /// Binds tenant, provider and key, in this order.
    fn bind(&self, statement: Statement) -> Statement {
        statement
            .bind::<SqlUuid, _>(self.tenant.as_uuid())
            .bind::<Text, _>(self.provider.clone())
            .bind::<Text, _>(self.key.as_str().to_owned())
    }
}

/// Writes down that an object is to be removed after so many hours.
pub async fn insert(tx: &mut SystemTx, object: &StrayObject, hours: u32) -> Result<(), DbError> {
    let insertion = statement(
        "insert stray object",
        "INSERT INTO stray_objects (tenant_id, provider, storage_key, may_be_unfinished, delete_after)
         VALUES ({}, {}, {}, {}, app.now() + make_interval(hours => {}))",
    );
    object
        .bind(insertion)
        .bind::<Bool, _>(object.may_be_unfinished)
        .bind::<Integer, _>(i32::try_from(hours).unwrap_or(i32::MAX))
        .execute(tx.connection()?)
        .await
        .map(|_| ())
}

/// Says that the object can be removed at once.
pub async fn discard(tx: &mut SystemTx, object: &StrayObject) -> Result<(), DbError> {
    let update = statement(
        "discard stray object",
        "UPDATE stray_objects SET delete_after = app.now() WHERE tenant_id = {} AND provider = {} AND storage_key = {}",
    );
    object.bind(update).execute(tx.connection()?).await.map(|_| ())
}

/// Takes an object out, because a blob of the same transaction refers to it from now on. False when it is being removed.
pub async fn adopt(tx: &mut SystemTx, object: &StrayObject) -> Result<bool, DbError> {
    let delete = statement(
        "adopt object",
        "DELETE FROM stray_objects
         WHERE tenant_id = {} AND provider = {} AND storage_key = {} AND NOT is_being_deleted",
    );
    Ok(object.bind(delete).execute(tx.connection()?).await? == 1)
}

/// Claims an object for removal: from here on nobody adopts it. False when it is not due, or a blob refers to it.
pub async fn claim(tx: &mut SystemTx, object: &StrayObject) -> Result<bool, DbError> {
    let update = statement(
        "claim stray object",
        "UPDATE stray_objects AS s SET is_being_deleted = true
         WHERE tenant_id = {} AND provider = {} AND storage_key = {} AND delete_after <= app.now()
           AND NOT EXISTS (SELECT FROM blobs AS b WHERE b.tenant_id = s.tenant_id AND b.provider = s.provider
                           AND b.storage_key = s.storage_key)",
    );
    Ok(object.bind(update).execute(tx.connection()?).await? == 1)
}

/// Forgets an object that is gone.
pub async fn delete(tx: &mut SystemTx, object: &StrayObject) -> Result<(), DbError> {
    let delete = statement(
        "delete stray object",
        "DELETE FROM stray_objects
         WHERE tenant_id = {} AND provider = {} AND storage_key = {} AND is_being_deleted",
    );
    object.bind(delete).execute(tx.connection()?).await.map(|_| ())
}

/// An object whose time has come.
#[derive(Debug, Clone)]
pub struct DueStray {
    /// The object.
    pub object: StrayObject,
    /// Since when it is due.
    pub delete_after: Timestamp,
}

/// The place of a due object in the list of all.
pub type StrayPlace = (Timestamp, TenantId, String);

impl DueStray {
    /// Its place in the list.
    pub fn place(&self) -> StrayPlace {
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

/// Objects of one provider that are due; longest first, behind a place.
pub async fn list_due(
    tx: &mut SystemTx,
    provider: &str,
    after: Option<StrayPlace>,
    limit: i64,
) -> Result<Vec<DueStray>, DbError> {
    const OPERATION: &str = "find due stray objects";
    let (time, tenant, key) = after.map_or((Timestamp::UNIX_EPOCH, Uuid::nil(), String::new()), |after| {
        (after.0, after.1.as_uuid(), after.2)
    });
    let rows: Vec<StrayRow> = statement(
        OPERATION,
        "SELECT delete_after, tenant_id, storage_key, may_be_unfinished FROM stray_objects
         WHERE delete_after <= app.now() AND provider = {} AND (delete_after, tenant_id, storage_key) > ({}, {}, {})
         ORDER BY delete_after, tenant_id, storage_key LIMIT {}",
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
            Ok(DueStray { object, delete_after: row.delete_after })
        })
        .collect()
}

#[derive(QueryableByName)]
struct WaitingRow {
    #[diesel(sql_type = BigInt)]
    waiting: i64,
}

/// Makes every stray object of a tenant due now; answers how many there are.
pub async fn hurry(tx: &mut SystemTx, tenant: TenantId) -> Result<i64, DbError> {
    let row: WaitingRow = statement(
        "hurry stray objects",
        "WITH due AS (
             UPDATE stray_objects SET delete_after = least(delete_after, app.now()) WHERE tenant_id = {} RETURNING 1)
         SELECT count(*) AS waiting FROM due",
    )
    .bind::<SqlUuid, _>(tenant.as_uuid())
    .one(tx.connection()?)
    .await?;
    Ok(row.waiting)
}
