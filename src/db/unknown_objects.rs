//! Which objects of a store the database knows, and which files an object belongs to.

use diesel::{
    BoolExpressionMethods as _, ExpressionMethods as _, JoinOnDsl as _, QueryDsl as _, Queryable,
    QueryableByName, SelectableHelper as _,
    sql_types::{Array, Bool, Text, Uuid as SqlUuid},
};

use super::{
    DbError, SystemTx,
    blobs::TenantBlob,
    schema::{blobs, files, uploads, versions},
    sql::{OfTenant as _, query, sql, statement},
};
use crate::domain::{
    digest::Digest,
    ids::{BlobId, FileId, TenantId},
    object_key::ObjectKey,
    upload::UploadState,
};

/// Whether the database knows an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knowledge {
    /// Its key is that of a blob (the original or the copy) or of a quarantined object, or it is the staging object of
    /// an open upload.
    Known,
    /// It waits for its deletion as a stray object. It may be the copy of a move that was in progress in the restored
    /// state, and ended since.
    Stray,
    /// An upload that is not committed has its key. Normally its object does not exist yet.
    OfUpload,
    /// No row has its key.
    Unknown,
    /// Its tenant is not in this database, so it belongs to another installation.
    Foreign,
}

#[derive(QueryableByName)]
struct KeyRow {
    #[diesel(sql_type = Bool)]
    has_tenant: bool,
    #[diesel(sql_type = Bool)]
    is_known: bool,
    #[diesel(sql_type = Bool)]
    is_stray: bool,
    #[diesel(sql_type = Bool)]
    has_upload: bool,
}

/// Returns whether the database knows the objects with these keys, in order. Keys are never reused, so the
/// provider of the row does not matter.
pub async fn check(tx: &mut SystemTx, keys: &[ObjectKey]) -> Result<Vec<Knowledge>, DbError> {
    let tenants: Vec<TenantId> = keys.iter().map(ObjectKey::tenant).collect();
    // `unnest` batch.
    let text = sql!(
        "SELECT EXISTS (SELECT FROM tenants AS t WHERE t.id = k.tenant_id) AS has_tenant,
                EXISTS (SELECT FROM blobs AS b WHERE b.tenant_id = k.tenant_id AND b.storage_key = k.storage_key)
             OR EXISTS (SELECT FROM blobs AS b WHERE b.tenant_id = k.tenant_id AND b.replica_key = k.storage_key)
             OR EXISTS (SELECT FROM quarantined_objects AS q WHERE q.tenant_id = k.tenant_id
                        AND q.storage_key = k.storage_key)
             OR EXISTS (SELECT FROM uploads AS u WHERE u.tenant_id = k.tenant_id
                        AND u.staging_key = k.storage_key AND u.state = {open}) AS is_known,
                EXISTS (SELECT FROM stray_objects AS s WHERE s.tenant_id = k.tenant_id
                        AND s.storage_key = k.storage_key) AS is_stray,
                EXISTS (SELECT FROM uploads AS u WHERE u.tenant_id = k.tenant_id
                        AND u.storage_key = k.storage_key) AS has_upload
         FROM unnest($1, $2) WITH ORDINALITY AS k (tenant_id, storage_key, n) ORDER BY k.n",
        open = UploadState::Open,
    );
    let rows: Vec<KeyRow> = statement("find unknown keys", text)
        .bind::<Array<SqlUuid>, _>(tenants)
        .bind::<Array<Text>, _>(keys.to_vec())
        .load(tx.connection()?)
        .await?;
    if rows.len() != keys.len() {
        return Err(DbError::corrupt("find unknown keys", "number of rows"));
    }
    let knowledge = |row: KeyRow| match row {
        KeyRow { is_known: true, .. } => Knowledge::Known,
        KeyRow { is_stray: true, .. } => Knowledge::Stray,
        KeyRow { has_tenant: false, .. } => Knowledge::Foreign,
        KeyRow { has_upload: true, .. } => Knowledge::OfUpload,
        KeyRow { .. } => Knowledge::Unknown,
    };
    Ok(rows.into_iter().map(knowledge).collect())
}

/// A version of a file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, Queryable)]
pub struct AffectedVersion {
    pub file: FileId,
    pub name: String,
    pub version: i32,
}

/// Returns the versions that reference a blob, at most `limit`.
pub async fn list_versions(
    tx: &mut SystemTx,
    tenant: TenantId,
    blob: BlobId,
    limit: i64,
) -> Result<Vec<AffectedVersion>, DbError> {
    let affected = versions::table
        .of(tenant)
        .inner_join(
            files::table.on(files::tenant_id.eq(versions::tenant_id).and(files::id.eq(versions::file_id))),
        )
        .filter(versions::blob_id.eq(blob))
        .order((versions::file_id, versions::version))
        .limit(limit)
        .select((versions::file_id, files::name, versions::version));
    query("list versions of blob", affected).load(tx.connection()?).await
}

/// Selects a blob that a version references.
macro_rules! referenced_blob {
    ($tenant:expr) => {
        blobs::table
            .of($tenant)
            .inner_join(
                versions::table
                    .on(versions::tenant_id.eq(blobs::tenant_id).and(versions::blob_id.eq(blobs::id))),
            )
            .order((versions::file_id, versions::version))
            .limit(1)
            .select(TenantBlob::as_select())
    };
}

/// Returns the blob with this id, if a version references it.
pub async fn find_blob(
    tx: &mut SystemTx,
    tenant: TenantId,
    blob: BlobId,
) -> Result<Option<TenantBlob>, DbError> {
    let same = referenced_blob!(tenant).filter(blobs::id.eq(blob));
    query("find referenced blob by id", same).first(tx.connection()?).await
}

/// Returns a blob with this digest that a version of the file references.
pub async fn find_blob_of_file(
    tx: &mut SystemTx,
    tenant: TenantId,
    file: FileId,
    sha256: Digest,
) -> Result<Option<TenantBlob>, DbError> {
    let same = referenced_blob!(tenant).filter(blobs::sha256.eq(sha256)).filter(versions::file_id.eq(file));
    query("find blob of file by digest", same).first(tx.connection()?).await
}

/// Returns a blob of the tenant with this digest that a version references.
pub async fn find_blob_by_digest(
    tx: &mut SystemTx,
    tenant: TenantId,
    sha256: Digest,
) -> Result<Option<TenantBlob>, DbError> {
    let same = referenced_blob!(tenant).filter(blobs::sha256.eq(sha256));
    query("find blob by digest", same).first(tx.connection()?).await
}

/// Deletes the rows of abandoned uploads that have the key of an object that must not be deleted with them.
pub async fn delete_abandoned_uploads(tx: &mut SystemTx, key: &ObjectKey) -> Result<(), DbError> {
    let abandoned = uploads::table
        .of(key.tenant())
        .filter(uploads::storage_key.eq(key))
        .filter(uploads::state.eq(UploadState::Abandoned));
    query("delete abandoned uploads of key", diesel::delete(abandoned))
        .execute(tx.connection()?)
        .await
        .map(|_| ())
}
