//! Shares of files. Row-level security hides the shares of files that the viewer does not see.

use std::collections::HashMap;

use diesel::{
    AsChangeset, BoolExpressionMethods as _, ExpressionMethods as _, NullableExpressionMethods as _,
    QueryDsl as _, Queryable, QueryableByName, Selectable, SelectableHelper as _,
    sql_types::{Array, BigInt, Integer, Text, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, SystemTx, TenantTx,
    schema::{file_grants, shares},
    sql::{OfTenant as _, now, query, sql, statement},
};
use crate::domain::{
    clock::Timestamp,
    digest::Digest,
    ids::{FileId, GrantId, ShareId},
    permission::Permission,
    share::{Share, ShareType},
};

/// A share with its secrets.
#[derive(Debug, Clone)]
pub struct StoredShare {
    pub share: Share,
    /// The digest of the token. Only links have one.
    pub token_hash: Option<Digest>,
    /// The hash of the password, if there is one.
    pub password_hash: Option<String>,
    /// Changes with every rotation of the token, change of the password, and with the revocation.
    pub secret_revision: i64,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = shares, check_for_backend(diesel::pg::Pg))]
struct Row {
    id: ShareId,
    file_id: FileId,
    share_type: ShareType,
    permission: Permission,
    token_hash: Option<Digest>,
    password_hash: Option<String>,
    secret_revision: i64,
    pinned_version: Option<i32>,
    expire_time: Option<Timestamp>,
    max_downloads: Option<i64>,
    download_count: i64,
    view_count: i64,
    last_access_time: Option<Timestamp>,
    note: String,
    created_by: String,
    source_grant_id: Option<GrantId>,
    create_time: Timestamp,
    update_time: Timestamp,
    revision: i64,
    revoke_time: Option<Timestamp>,
}

impl From<Row> for StoredShare {
    fn from(row: Row) -> Self {
        Self {
            share: Share {
                id: row.id,
                file: row.file_id,
                share_type: row.share_type,
                permission: row.permission,
                has_password: row.password_hash.is_some(),
                pinned_version: row.pinned_version,
                expire_time: row.expire_time,
                max_downloads: row.max_downloads,
                download_count: row.download_count,
                view_count: row.view_count,
                last_access_time: row.last_access_time,
                note: row.note,
                recipients: Vec::new(),
                created_by: row.created_by,
                source_grant: row.source_grant_id,
                create_time: row.create_time,
                update_time: row.update_time,
                revision: row.revision,
                revoke_time: row.revoke_time,
            },
            token_hash: row.token_hash,
            password_hash: row.password_hash,
            secret_revision: row.secret_revision,
        }
    }
}

/// A share to insert.
#[derive(Debug, Clone)]
pub struct NewShare<'a> {
    pub id: ShareId,
    pub file: FileId,
    pub share_type: ShareType,
    pub permission: Permission,
    pub token_hash: Option<Digest>,
    pub password_hash: Option<&'a str>,
    pub pinned_version: Option<i32>,
    pub expire_time: Option<Timestamp>,
    pub max_downloads: Option<i64>,
    pub note: &'a str,
    pub created_by: &'a str,
    pub source_grant: Option<GrantId>,
}

/// Inserts a share.
pub async fn insert(tx: &mut TenantTx, new: &NewShare<'_>) -> Result<StoredShare, DbError> {
    let values = (
        shares::tenant_id.eq(tx.tenant()),
        shares::id.eq(new.id),
        shares::file_id.eq(new.file),
        shares::share_type.eq(new.share_type),
        shares::permission.eq(new.permission),
        shares::token_hash.eq(new.token_hash),
        shares::password_hash.eq(new.password_hash),
        shares::pinned_version.eq(new.pinned_version),
        shares::expire_time.eq(new.expire_time),
        shares::max_downloads.eq(new.max_downloads),
        shares::note.eq(new.note),
        shares::created_by.eq(new.created_by),
        shares::source_grant_id.eq(new.source_grant),
        shares::create_time.eq(now()),
        shares::update_time.eq(now()),
    );
    let insert = diesel::insert_into(shares::table).values(values).returning(Row::as_returning());
    let row: Row = query("insert share", insert).one(tx.connection()?).await?;
    Ok(row.into())
}

/// Returns a share, which may be revoked or expired.
pub async fn get(tx: &mut TenantTx, id: ShareId) -> Result<Option<StoredShare>, DbError> {
    let share = shares::table.of(tx.tenant()).filter(shares::id.eq(id)).select(Row::as_select());
    let row: Option<Row> = query("get share", share).first(tx.connection()?).await?;
    Ok(row.map(StoredShare::from))
}

/// Returns a share, which may be revoked or expired, and locks it until the transaction ends.
pub async fn get_for_update(tx: &mut TenantTx, id: ShareId) -> Result<Option<StoredShare>, DbError> {
    let share = shares::table.of(tx.tenant()).filter(shares::id.eq(id)).select(Row::as_select()).for_update();
    let row: Option<Row> = query("lock share", share).first(tx.connection()?).await?;
    Ok(row.map(StoredShare::from))
}

/// Returns the share with a token, if it is neither revoked nor expired.
pub async fn find_open_by_token(
    tx: &mut TenantTx,
    token_hash: Digest,
) -> Result<Option<StoredShare>, DbError> {
    let share = shares::table
        .of(tx.tenant())
        .filter(shares::token_hash.eq(token_hash))
        .filter(shares::revoke_time.is_null())
        .filter(shares::expire_time.is_null().or(shares::expire_time.gt(now().nullable())))
        .select(Row::as_select());
    let row: Option<Row> = query("find share by token", share).first(tx.connection()?).await?;
    Ok(row.map(StoredShare::from))
}

/// Whose shares a list contains.
#[derive(Debug, Clone)]
pub enum SharesOf {
    /// All shares of a file.
    File(FileId),
    /// The shares of a file that this caller created.
    FileAndCreator(FileId, String),
    /// The shares that this caller created.
    Creator(String),
}

/// Returns shares after an id, in the order of their creation. With `open_only`, omits revoked and expired ones.
pub async fn list(
    tx: &mut TenantTx,
    of: &SharesOf,
    open_only: bool,
    after: Option<ShareId>,
    limit: i64,
) -> Result<Vec<StoredShare>, DbError> {
    let mut page = shares::table
        .of(tx.tenant())
        .filter(shares::id.gt(after.unwrap_or(ShareId::from_uuid(Uuid::nil()))))
        .order(shares::id)
        .limit(limit)
        .select(Row::as_select())
        .into_boxed();
    page = match of {
        SharesOf::File(file) => page.filter(shares::file_id.eq(*file)),
        SharesOf::FileAndCreator(file, creator) => {
            page.filter(shares::file_id.eq(*file)).filter(shares::created_by.eq(creator.clone()))
        }
        SharesOf::Creator(creator) => page.filter(shares::created_by.eq(creator.clone())),
    };
    if open_only {
        page = page
            .filter(shares::revoke_time.is_null())
            .filter(shares::expire_time.is_null().or(shares::expire_time.gt(now().nullable())));
    }
    let operation = match of {
        SharesOf::Creator(_) => "list shares of creator",
        SharesOf::File(_) | SharesOf::FileAndCreator(..) => "list shares of file",
    };
    let rows: Vec<Row> = query(operation, page).load(tx.connection()?).await?;
    Ok(rows.into_iter().map(StoredShare::from).collect())
}

#[derive(QueryableByName)]
#[diesel(table_name = file_grants)]
struct ShareOfGrant {
    #[diesel(sql_type = SqlUuid)]
    share_id: ShareId,
}

/// Returns open shares of which one of the principals is a recipient, after an id and in the order of their creation.
pub async fn list_of_recipient(
    tx: &mut TenantTx,
    principals: &[String],
    after: Option<ShareId>,
    limit: i64,
) -> Result<Vec<StoredShare>, DbError> {
    // One limited scan per principal.
    let found: Vec<ShareOfGrant> = statement(
        "list shares of recipient",
        "SELECT DISTINCT g.share_id
         FROM unnest($2) AS p CROSS JOIN LATERAL (
            SELECT g.share_id FROM file_grants AS g
            WHERE g.tenant_id = $1 AND g.principal = p AND g.share_id > $3
              AND coalesce(g.expire_time, 'infinity') > app.now()
            ORDER BY g.share_id LIMIT $4) AS g
         ORDER BY g.share_id LIMIT $4",
    )
    .bind::<SqlUuid, _>(tx.tenant())
    .bind::<Array<Text>, _>(principals.to_vec())
    .bind::<SqlUuid, _>(after.unwrap_or(ShareId::from_uuid(Uuid::nil())))
    .bind::<BigInt, _>(limit)
    .load(tx.connection()?)
    .await?;
    let ids: Vec<ShareId> = found.into_iter().map(|row| row.share_id).collect();
    let open = shares::table
        .of(tx.tenant())
        .filter(shares::id.eq_any(ids))
        .filter(shares::revoke_time.is_null())
        .order(shares::id)
        .select(Row::as_select());
    let rows: Vec<Row> = query("get shares of recipient", open).load(tx.connection()?).await?;
    Ok(rows.into_iter().map(StoredShare::from).collect())
}

/// Returns shares after an id, in the order of their ids, for an export. Recipients are not loaded.
pub async fn list_after(
    tx: &mut TenantTx,
    after: Option<ShareId>,
    limit: i64,
) -> Result<Vec<Share>, DbError> {
    let page = shares::table
        .of(tx.tenant())
        .filter(shares::id.gt(after.unwrap_or(ShareId::from_uuid(Uuid::nil()))))
        .order(shares::id)
        .limit(limit)
        .select(Row::as_select());
    let rows: Vec<Row> = query("list exported shares", page).load(tx.connection()?).await?;
    Ok(rows.into_iter().map(|row| StoredShare::from(row).share).collect())
}

/// Returns the principals that are recipients of these shares.
pub async fn list_recipients(
    tx: &mut TenantTx,
    ids: &[ShareId],
) -> Result<HashMap<ShareId, Vec<String>>, DbError> {
    let raw: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
    let grants = file_grants::table
        .of(tx.tenant())
        .filter(file_grants::share_id.eq_any(raw))
        .order((file_grants::share_id, file_grants::principal))
        .select((file_grants::share_id.assume_not_null(), file_grants::principal));
    let rows: Vec<(ShareId, String)> = query("list recipients", grants).load(tx.connection()?).await?;
    let mut recipients: HashMap<ShareId, Vec<String>> = HashMap::new();
    for (share, principal) in rows {
        recipients.entry(share).or_default().push(principal);
    }
    Ok(recipients)
}

/// Returns the grants of a share.
pub async fn list_grants(tx: &mut TenantTx, id: ShareId) -> Result<Vec<GrantId>, DbError> {
    list_other_grants(tx, id, &[]).await
}

/// Returns the grants of a share for other principals than these.
pub async fn list_other_grants(
    tx: &mut TenantTx,
    id: ShareId,
    principals: &[String],
) -> Result<Vec<GrantId>, DbError> {
    let others = file_grants::table
        .of(tx.tenant())
        .filter(file_grants::share_id.eq(id))
        .filter(file_grants::principal.ne_all(principals.to_vec()))
        .select(file_grants::id);
    query("list other grants of share", others).load(tx.connection()?).await
}

/// Returns the number of shares of a file, including revoked and expired ones.
pub async fn count_of_file(tx: &mut TenantTx, file: FileId) -> Result<i64, DbError> {
    let count = shares::table.of(tx.tenant()).filter(shares::file_id.eq(file)).count();
    query("count shares of file", count).one(tx.connection()?).await
}

/// Deletes the revoked and expired shares of a file.
pub async fn delete_closed_of_file(tx: &mut TenantTx, file: FileId) -> Result<(), DbError> {
    let closed = shares::table
        .of(tx.tenant())
        .filter(shares::file_id.eq(file))
        .filter(shares::revoke_time.is_not_null().or(shares::expire_time.le(now().nullable())));
    query("delete closed shares of file", diesel::delete(closed)).execute(tx.connection()?).await.map(|_| ())
}

/// New terms of a share. Absent fields are unchanged.
#[derive(Debug, Default, AsChangeset)]
#[diesel(table_name = shares)]
pub struct ShareChanges {
    pub permission: Option<Permission>,
    /// The hash of the new password, or `None` to remove it.
    pub password_hash: Option<Option<String>>,
    pub expire_time: Option<Option<Timestamp>>,
    pub max_downloads: Option<Option<i64>>,
    pub note: Option<String>,
    pub source_grant_id: Option<Option<GrantId>>,
    /// Must be present if the password or the permission changes.
    pub secret_revision: Option<i64>,
}

/// Changes the terms of a share.
pub async fn update(tx: &mut TenantTx, id: ShareId, changes: &ShareChanges) -> Result<StoredShare, DbError> {
    let update = diesel::update(shares::table.of(tx.tenant()).filter(shares::id.eq(id)))
        .set((changes, shares::update_time.eq(now()), shares::revision.eq(shares::revision + 1)))
        .returning(Row::as_returning());
    let row: Row = query("update share", update).one(tx.connection()?).await?;
    Ok(row.into())
}

/// Replaces the token of a link, and the grant under which it is shared.
pub async fn set_token(
    tx: &mut TenantTx,
    id: ShareId,
    token_hash: Digest,
    source: Option<GrantId>,
) -> Result<StoredShare, DbError> {
    let update = diesel::update(shares::table.of(tx.tenant()).filter(shares::id.eq(id)))
        .set((
            shares::token_hash.eq(token_hash),
            shares::source_grant_id.eq(source),
            shares::secret_revision.eq(shares::secret_revision + 1),
            shares::update_time.eq(now()),
            shares::revision.eq(shares::revision + 1),
        ))
        .returning(Row::as_returning());
    let row: Row = query("rotate share token", update).one(tx.connection()?).await?;
    Ok(row.into())
}

/// Revokes a share.
pub async fn revoke(tx: &mut TenantTx, id: ShareId) -> Result<StoredShare, DbError> {
    let update = diesel::update(shares::table.of(tx.tenant()).filter(shares::id.eq(id)))
        .set((
            shares::revoke_time.eq(now().nullable()),
            shares::secret_revision.eq(shares::secret_revision + 1),
            shares::update_time.eq(now()),
            shares::revision.eq(shares::revision + 1),
        ))
        .returning(Row::as_returning());
    let row: Row = query("revoke share", update).one(tx.connection()?).await?;
    Ok(row.into())
}

/// Deletes up to `limit` shares that ended `age_days` ago, and temporary ones that have ended. Returns their number.
pub async fn delete_closed(tx: &mut SystemTx, age_days: u32, limit: i64) -> Result<usize, DbError> {
    // Two limited scans and SKIP LOCKED.
    let text = sql!(
        "DELETE FROM shares AS s USING (
            SELECT c.tenant_id, c.id FROM shares AS c
            WHERE least(c.revoke_time, c.expire_time) <= app.now()
              AND (c.share_type = {temporary}
                   OR least(c.revoke_time, c.expire_time) <= app.now() - make_interval(days => $1))
            ORDER BY least(c.revoke_time, c.expire_time), c.tenant_id, c.id LIMIT $2
            FOR UPDATE SKIP LOCKED) AS closed
         WHERE s.tenant_id = closed.tenant_id AND s.id = closed.id",
        temporary = ShareType::Temporary,
    );
    statement("delete closed shares", text)
        .bind::<Integer, _>(i32::try_from(age_days).unwrap_or(i32::MAX))
        .bind::<BigInt, _>(limit)
        .execute(tx.connection()?)
        .await
}

/// Deletes the shares of a file that is being purged.
pub async fn delete_of_file(tx: &mut TenantTx, file: FileId) -> Result<(), DbError> {
    let delete = diesel::delete(shares::table.of(tx.tenant()).filter(shares::file_id.eq(file)));
    query("delete shares of file", delete).execute(tx.connection()?).await.map(|_| ())
}
