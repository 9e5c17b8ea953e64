//! The current and the target storage class of blobs. The target is the archive class if every file that
//! references the blob is archived.

use diesel::{
    BoolExpressionMethods as _, ExpressionMethods as _, JoinOnDsl as _, NullableExpressionMethods as _,
    QueryDsl as _, Queryable, SelectableHelper as _,
};

use super::{
    DbError, SystemTx, TenantTx,
    blobs::{MovableBlob, TenantBlob, is_movable, movable_columns},
    schema::{blobs, files, versions},
    sql::{AcrossTenants as _, OfTenant as _, bool_and, bool_or, query},
};
use crate::domain::{
    ids::{BlobId, FileId, TenantId},
    storage_class::StorageClass,
};

/// Whether all files that reference a blob are archived; NULL if there are none. A column of queries for
/// blobs.
macro_rules! are_archived {
    () => {
        versions::table
            .across_tenants()
            .inner_join(
                files::table
                    .on(files::tenant_id.eq(versions::tenant_id).and(files::id.eq(versions::file_id))),
            )
            .filter(versions::tenant_id.eq(blobs::tenant_id))
            .filter(versions::blob_id.eq(blobs::id))
            .select(bool_and(files::archive_time.is_not_null()))
            .single_value()
    };
}

/// The blobs of all versions of a file.
macro_rules! blobs_of_file {
    ($tenant:expr, $file:expr) => {
        blobs::table.of($tenant).filter(blobs::id.eq_any(
            versions::table.of($tenant).filter(versions::file_id.eq($file)).select(versions::blob_id),
        ))
    };
}

/// A blob and its target storage class.
#[derive(Debug, Clone)]
pub struct ClassedBlob {
    /// The blob, with its current class.
    pub movable: MovableBlob,
    pub target: StorageClass,
}

/// Returns the movable blobs of a file, ordered by id.
///
/// Locks the rows first and reads them in a second statement, which therefore sees the result of concurrent
/// relocations.
pub async fn list_file_blobs(
    tx: &mut SystemTx,
    tenant: TenantId,
    file: FileId,
) -> Result<Vec<ClassedBlob>, DbError> {
    let lock = blobs_of_file!(tenant, file).order(blobs::id).select(blobs::id).for_no_key_update();
    query("lock blobs of file", lock).execute(tx.connection()?).await?;
    let (tenant_blob, created_by) = movable_columns!();
    let movable = blobs_of_file!(tenant, file).filter(is_movable!()).order(blobs::id).select((
        tenant_blob,
        created_by,
        are_archived!().assume_not_null(),
    ));
    let rows: Vec<(TenantBlob, Option<String>, bool)> =
        query("list blobs of file", movable).load(tx.connection()?).await?;
    let classed = |(tenant_blob, created_by, is_archived)| ClassedBlob {
        movable: MovableBlob { tenant_blob, created_by },
        target: StorageClass::for_archived(is_archived),
    };
    Ok(rows.into_iter().map(classed).collect())
}

/// Returns the target storage class of a blob, or `None` if no file references it.
pub async fn get_target_class(
    tx: &mut SystemTx,
    tenant: TenantId,
    blob: BlobId,
) -> Result<Option<StorageClass>, DbError> {
    let target = blobs::table.of(tenant).filter(blobs::id.eq(blob)).select(are_archived!());
    let are_archived: Option<Option<bool>> =
        query("get target class of blob", target).first(tx.connection()?).await?;
    Ok(are_archived.flatten().map(StorageClass::for_archived))
}

/// A provider that stores bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct FileLocation {
    pub provider: String,
    /// Whether some of the bytes are in its archive class.
    pub has_archived: bool,
}

/// Returns the providers that store the bytes of all versions of a file.
pub async fn list_file_locations(tx: &mut TenantTx, file: FileId) -> Result<Vec<FileLocation>, DbError> {
    let has_archived = bool_or(blobs::storage_class.eq(StorageClass::Archive)).assume_not_null();
    let locations =
        blobs_of_file!(tx.tenant(), file).group_by(blobs::provider).select((blobs::provider, has_archived));
    query("list locations of file", locations).load(tx.connection()?).await
}
