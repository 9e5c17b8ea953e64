//! Grants: permissions on a file for a user, a group or the organization, given by people or created by a share.
//!
//! The rows of `file_readers` repeat the effect of the grants, for access checks and lists. Each function here that
//! changes grants updates them too. The transaction must have locked the file with `file_locks` before.
//!
//! A grant may have a source: the grant under which its creator gave it. It never exceeds its source, and ends with it.

use diesel::{
    BoolExpressionMethods as _, ExpressionMethods as _, IntoSql as _, NullableExpressionMethods as _,
    QueryDsl as _, Queryable, QueryableByName, Selectable, SelectableHelper as _,
    sql_types::{Array, BigInt, Bool, Jsonb, Nullable, Record, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{
    DbError, SystemTx, TenantTx, file_readers,
    schema::file_grants,
    sql::{OfTenant as _, now, query, sql, statement},
};
use crate::domain::{
    caller::TenantState,
    clock::Timestamp,
    ids::{FileId, GrantId, TenantId},
    permission::Permission,
};

/// A stored grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Queryable, QueryableByName, Selectable)]
#[diesel(table_name = file_grants, check_for_backend(diesel::pg::Pg))]
pub struct Grant {
    pub id: GrantId,
    pub file_id: FileId,
    /// The user, service, group or organization; see `domain::principal`.
    pub principal: String,
    pub permission: Permission,
    /// The share that created the grant, if any.
    pub share_id: Option<Uuid>,
    /// The grant under which its creator gave it. `None` if the creator was the owner or an admin.
    pub source_id: Option<GrantId>,
    /// `None` if it does not expire.
    pub expire_time: Option<Timestamp>,
    pub created_by: String,
    pub create_time: Timestamp,
    pub update_time: Timestamp,
}

impl Grant {
    /// Returns whether the grant has not expired.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.expire_time.is_none_or(|end| now < end)
    }
}

/// A grant to insert.
#[derive(Debug, Clone, Serialize)]
pub struct NewGrant {
    pub id: GrantId,
    pub principal: String,
    #[serde(serialize_with = "serialize_permission")]
    pub permission: Permission,
    pub share_id: Option<Uuid>,
    pub source_id: Option<GrantId>,
    pub expire_time: Option<Timestamp>,
}

fn serialize_permission<S: serde::Serializer>(
    permission: &Permission,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_i16(permission.number())
}

/// The columns of a [`Grant`], for SQL text over the table `g`.
const COLUMNS: &str = "g.id, g.file_id, g.principal, g.permission, g.share_id, g.source_id, g.expire_time,
    g.created_by, g.create_time, g.update_time";

/// The grants `g` of the file `$2` of the tenant `$1` whose source is, directly or not, one of `$3`.
const DERIVED: &str = "WITH RECURSIVE derived AS (
        SELECT g.id FROM file_grants AS g
        WHERE g.tenant_id = $1 AND g.file_id = $2 AND g.source_id = ANY ($3)
        UNION
        SELECT g.id FROM file_grants AS g JOIN derived ON g.source_id = derived.id
        WHERE g.tenant_id = $1 AND g.file_id = $2
    )";

/// Returns the number of grants of a file, including expired ones.
pub async fn count(tx: &mut TenantTx, file: FileId) -> Result<i64, DbError> {
    let count = file_grants::table.of(tx.tenant()).filter(file_grants::file_id.eq(file)).count();
    query("count grants", count).one(tx.connection()?).await
}

/// Returns the grant of a principal that no share created.
pub async fn find_direct(tx: &mut TenantTx, file: FileId, principal: &str) -> Result<Option<Grant>, DbError> {
    let grant = file_grants::table
        .of(tx.tenant())
        .filter(file_grants::file_id.eq(file))
        .filter(file_grants::principal.eq(principal))
        .filter(file_grants::share_id.is_null())
        .select(Grant::as_select());
    query("find grant", grant).first(tx.connection()?).await
}

/// Inserts grants, or replaces the permission, expiry and creator of those that their principals have, from the same
/// share or without one. Grants that have a replaced grant as their source do not exceed it afterwards.
pub async fn put(
    tx: &mut TenantTx,
    file: FileId,
    grants: &[NewGrant],
    created_by: &str,
) -> Result<Vec<Grant>, DbError> {
    // A batch that inserts or updates.
    let text = sql!(
        "INSERT INTO file_grants AS g (tenant_id, file_id, id, principal, permission, share_id, source_id, expire_time,
            created_by, create_time, update_time)
         SELECT $1, $2, n.id, n.principal, n.permission, n.share_id, n.source_id, n.expire_time, $3, app.now(),
            app.now()
         FROM jsonb_to_recordset($4) AS n (id uuid, principal text, permission smallint, share_id uuid, source_id uuid,
            expire_time timestamptz)
         ON CONFLICT (tenant_id, file_id, principal, share_id) DO UPDATE
         SET permission = excluded.permission, source_id = excluded.source_id, expire_time = excluded.expire_time,
            created_by = excluded.created_by, update_time = excluded.update_time
         RETURNING {columns}",
        columns = COLUMNS,
    );
    let stored: Vec<Grant> = statement("put grants", text)
        .bind::<SqlUuid, _>(tx.tenant())
        .bind::<SqlUuid, _>(file)
        .bind::<Text, _>(created_by.to_owned())
        .bind::<Jsonb, _>(json!(grants))
        .load(tx.connection()?)
        .await?;
    let mut principals: Vec<String> = stored.iter().map(|grant| grant.principal.clone()).collect();
    for grant in stored.iter().filter(|grant| !grants.iter().any(|new| new.id == grant.id)) {
        principals.extend(narrow_derived(tx, grant).await?);
    }
    file_readers::refresh(tx, file, &principals).await?;
    Ok(stored)
}

/// Narrows the grants that have this one as their source, directly or not. Returns their principals.
async fn narrow_derived(tx: &mut TenantTx, grant: &Grant) -> Result<Vec<String>, DbError> {
    // A recursive update.
    let text = sql!(
        "{derived}
         UPDATE file_grants AS g SET permission = least(g.permission, $4), expire_time = least(g.expire_time, $5),
            update_time = app.now()
         FROM derived
         WHERE g.tenant_id = $1 AND g.file_id = $2 AND g.id = derived.id AND g.id <> ALL ($3)
           AND (g.permission > $4 OR coalesce(g.expire_time, 'infinity') > coalesce($5, 'infinity'))
         RETURNING {columns}",
        derived = DERIVED,
        columns = COLUMNS,
    );
    let narrowed: Vec<Grant> = statement("narrow derived grants", text)
        .bind::<SqlUuid, _>(tx.tenant())
        .bind::<SqlUuid, _>(grant.file_id)
        .bind::<Array<SqlUuid>, _>(vec![grant.id])
        .bind::<SmallInt, _>(grant.permission)
        .bind::<Nullable<Timestamptz>, _>(grant.expire_time)
        .load(tx.connection()?)
        .await?;
    Ok(narrowed.into_iter().map(|grant| grant.principal).collect())
}

/// Deletes grants of a file, and those that have them as their source. Returns all deleted grants.
pub async fn delete(tx: &mut TenantTx, file: FileId, ids: &[GrantId]) -> Result<Vec<Grant>, DbError> {
    // A recursive deletion.
    let text = sql!(
        "{derived}
         DELETE FROM file_grants AS g
         WHERE g.tenant_id = $1 AND g.file_id = $2 AND (g.id = ANY ($3) OR g.id IN (SELECT id FROM derived))
         RETURNING {columns}",
        derived = DERIVED,
        columns = COLUMNS,
    );
    let deleted: Vec<Grant> = statement("delete grants", text)
        .bind::<SqlUuid, _>(tx.tenant())
        .bind::<SqlUuid, _>(file)
        .bind::<Array<SqlUuid>, _>(ids.to_vec())
        .load(tx.connection()?)
        .await?;
    let principals: Vec<String> = deleted.iter().map(|grant| grant.principal.clone()).collect();
    file_readers::refresh(tx, file, &principals).await?;
    Ok(deleted)
}

/// Deletes the grants that a share created on a file, and those that have them as their source. Returns all deleted
/// grants.
pub async fn delete_of_share(tx: &mut TenantTx, file: FileId, share: Uuid) -> Result<Vec<Grant>, DbError> {
    let of_share = file_grants::table
        .of(tx.tenant())
        .filter(file_grants::file_id.eq(file))
        .filter(file_grants::share_id.eq(share))
        .select(file_grants::id);
    let ids: Vec<GrantId> = query("find grants of share", of_share).load(tx.connection()?).await?;
    delete(tx, file, &ids).await
}

/// Deletes the expired grants of a file, and returns them.
pub async fn delete_expired(tx: &mut TenantTx, file: FileId) -> Result<Vec<Grant>, DbError> {
    let expired = file_grants::table
        .of(tx.tenant())
        .filter(file_grants::file_id.eq(file))
        .filter(file_grants::expire_time.le(now().nullable()))
        .select(file_grants::id);
    let ids: Vec<GrantId> = query("find expired grants", expired).load(tx.connection()?).await?;
    delete(tx, file, &ids).await
}

/// Deletes the grants of a file whose readers are deleted too.
pub async fn delete_all(tx: &mut TenantTx, file: FileId) -> Result<(), DbError> {
    let delete = diesel::delete(file_grants::table.of(tx.tenant()).filter(file_grants::file_id.eq(file)));
    query("delete all grants", delete).execute(tx.connection()?).await.map(|_| ())
}

/// What a caller who is neither owner nor admin wants to give to others.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub permission: Permission,
    /// `None` means without expiry.
    pub expire_time: Option<Timestamp>,
    /// The grants to replace. Neither they nor grants that they are a source of can be the source.
    pub replaced: &'a [GrantId],
}

/// Returns a grant of one of the principals that includes a permission until a time and has not expired: the source of a
/// grant that one of them gives.
pub async fn find_source(
    tx: &mut TenantTx,
    file: FileId,
    principals: &[String],
    wanted: Wanted<'_>,
) -> Result<Option<Grant>, DbError> {
    // A recursive condition. Prefers grants without expiry, and then the latest expiry.
    let text = sql!(
        "{derived}
         SELECT {columns} FROM file_grants AS g
         WHERE g.tenant_id = $1 AND g.file_id = $2 AND g.principal = ANY ($4) AND g.permission >= $5
           AND coalesce(g.expire_time, 'infinity') > app.now()
           AND coalesce(g.expire_time, 'infinity') >= coalesce($6, 'infinity')
           AND g.id <> ALL ($3) AND g.id NOT IN (SELECT id FROM derived)
         ORDER BY g.expire_time DESC NULLS FIRST, g.id LIMIT 1",
        derived = DERIVED,
        columns = COLUMNS,
    );
    statement("find source of grant", text)
        .bind::<SqlUuid, _>(tx.tenant())
        .bind::<SqlUuid, _>(file)
        .bind::<Array<SqlUuid>, _>(wanted.replaced.to_vec())
        .bind::<Array<Text>, _>(principals.to_vec())
        .bind::<SmallInt, _>(wanted.permission)
        .bind::<Nullable<Timestamptz>, _>(wanted.expire_time)
        .first(tx.connection()?)
        .await
}

/// The grants that a caller may see: all, or those that it gave or got.
#[derive(Debug, Clone)]
pub enum GrantsOf {
    File,
    Caller { id: String, principals: Vec<String> },
}

/// Returns grants of a file that have not expired, after an id and in the order of their ids.
pub async fn list(
    tx: &mut TenantTx,
    file: FileId,
    of: &GrantsOf,
    after: Option<GrantId>,
    limit: i64,
) -> Result<Vec<Grant>, DbError> {
    let (is_all, id, principals) = match of {
        GrantsOf::File => (true, "", [].as_slice()),
        GrantsOf::Caller { id, principals } => (false, id.as_str(), principals.as_slice()),
    };
    let is_shown = is_all
        .into_sql::<Bool>()
        .or(file_grants::created_by.eq(id.to_owned()))
        .or(file_grants::principal.eq_any(principals.to_vec()));
    let page = file_grants::table
        .of(tx.tenant())
        .filter(file_grants::file_id.eq(file))
        .filter(file_grants::id.gt(after.unwrap_or(GrantId::from_uuid(Uuid::nil()))))
        .filter(file_grants::expire_time.is_null().or(file_grants::expire_time.gt(now().nullable())))
        .filter(is_shown)
        .order(file_grants::id)
        .limit(limit)
        .select(Grant::as_select());
    query("list grants", page).load(tx.connection()?).await
}

/// Returns grants of all files after a grant, ordered by file and id, for an export.
pub async fn list_after(
    tx: &mut TenantTx,
    after: Option<(FileId, GrantId)>,
    limit: i64,
) -> Result<Vec<Grant>, DbError> {
    let start = (FileId::from_uuid(Uuid::nil()), GrantId::from_uuid(Uuid::nil()));
    let position = (file_grants::file_id, file_grants::id);
    let page = file_grants::table
        .of(tx.tenant())
        .filter(position.into_sql::<Record<(SqlUuid, SqlUuid)>>().gt(after.unwrap_or(start)))
        .order(position)
        .limit(limit)
        .select(Grant::as_select());
    query("list exported grants", page).load(tx.connection()?).await
}

/// A file with expired grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, QueryableByName)]
#[diesel(table_name = file_grants)]
pub struct ExpiredGrants {
    pub tenant_id: TenantId,
    pub file_id: FileId,
}

/// Returns files with expired grants, of all tenants that are not being deleted, after a position.
pub async fn list_expired(
    tx: &mut SystemTx,
    after: Option<ExpiredGrants>,
    limit: i64,
) -> Result<Vec<ExpiredGrants>, DbError> {
    let (tenant, file) = after
        .map_or((Uuid::nil(), Uuid::nil()), |after| (after.tenant_id.as_uuid(), after.file_id.as_uuid()));
    // A distinct list of the oldest entries of the index.
    let text = sql!(
        "SELECT DISTINCT g.tenant_id, g.file_id FROM file_grants AS g JOIN tenants AS t ON t.id = g.tenant_id
         WHERE g.expire_time <= app.now() AND (g.tenant_id, g.file_id) > ($1, $2)
           AND t.state IN ({active}, {suspended})
         ORDER BY g.tenant_id, g.file_id LIMIT $3",
        active = TenantState::Active,
        suspended = TenantState::Suspended,
    );
    statement("list files with expired grants", text)
        .bind::<SqlUuid, _>(tenant)
        .bind::<SqlUuid, _>(file)
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await
}
