//! The verified copies of blobs at the replica provider. A blob has at most one.
//!
//! A copy in progress, and a copy that no blob references any more, is a stray object. Copies do not count in quotas,
//! so these have no size there.

use diesel::{
    BoolExpressionMethods as _, ExpressionMethods as _, NullableExpressionMethods as _, QueryDsl as _,
    Queryable, SelectableHelper as _, dsl::exists,
};

use super::{
    DbError, SystemTx,
    blobs::{MovableBlob, TenantBlob, is_movable, movable_columns, versions_of_blob},
    schema::{blobs, versions},
    sql::{AcrossTenants as _, OfTenant as _, now, query},
    stray_objects::{self, StrayObject},
};
use crate::domain::{
    clock::Timestamp,
    file::ContentState,
    ids::{BlobId, TenantId},
    object_key::ObjectKey,
};

/// The blobs without a copy that an available version references.
macro_rules! pending_blobs {
    () => {
        blobs::table
            .across_tenants()
            .filter(blobs::replica_key.is_null())
            .filter(is_movable!())
            .filter(exists(versions_of_blob!().filter(versions::content_state.eq(ContentState::Available))))
    };
}

/// Returns a blob of a provider, if it still waits for a copy.
pub async fn find_pending(
    tx: &mut SystemTx,
    tenant: TenantId,
    blob: BlobId,
    source: &str,
) -> Result<Option<MovableBlob>, DbError> {
    let pending = pending_blobs!()
        .filter(blobs::tenant_id.eq(tenant))
        .filter(blobs::id.eq(blob))
        .filter(blobs::provider.eq(source))
        .select(movable_columns!());
    query("find blob to replicate", pending).first(tx.connection()?).await
}

/// Records a verified copy. Returns false if the blob has one already, is being deleted, or has moved to the provider
/// of the copy.
pub async fn record(
    tx: &mut SystemTx,
    tenant: TenantId,
    blob: BlobId,
    provider: &str,
    key: &ObjectKey,
) -> Result<bool, DbError> {
    let without_copy = blobs::table
        .of(tenant)
        .filter(blobs::id.eq(blob))
        .filter(blobs::replica_key.is_null())
        .filter(blobs::delete_after.is_null())
        .filter(blobs::provider.ne(provider));
    let update = diesel::update(without_copy).set((
        blobs::replica_provider.eq(provider),
        blobs::replica_key.eq(key),
        blobs::replica_verified_time.eq(now().nullable()),
    ));
    Ok(query("record replica of blob", update).execute(tx.connection()?).await? == 1)
}

/// The location of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct Replica {
    pub provider: String,
    pub key: ObjectKey,
}

/// Removes the copy of a blob from its row, if it is this one. The object is deleted after the given number of hours.
/// Returns false if the blob has another copy or none.
pub async fn remove(
    tx: &mut SystemTx,
    tenant: TenantId,
    blob: BlobId,
    replica: &Replica,
    hours: u32,
) -> Result<bool, DbError> {
    let with_copy = blobs::table
        .of(tenant)
        .filter(blobs::id.eq(blob))
        .filter(blobs::replica_provider.eq(&replica.provider))
        .filter(blobs::replica_key.eq(&replica.key));
    let update = diesel::update(with_copy).set((
        blobs::replica_provider.eq(None::<String>),
        blobs::replica_key.eq(None::<ObjectKey>),
        blobs::replica_verified_time.eq(None::<Timestamp>),
    ));
    if query("remove replica of blob", update).execute(tx.connection()?).await? == 0 {
        return Ok(false);
    }
    stray_objects::insert(tx, &stray_copy(tenant, replica.clone(), false), hours).await?;
    Ok(true)
}

/// Returns a copy as a stray object.
pub fn stray_copy(tenant: TenantId, replica: Replica, may_be_unfinished: bool) -> StrayObject {
    let Replica { provider, key } = replica;
    StrayObject { tenant, provider, key, may_be_unfinished, size_bytes: 0 }
}

/// Returns the copy of a blob at a provider.
pub async fn find_at(
    tx: &mut SystemTx,
    tenant: TenantId,
    blob: BlobId,
    provider: &str,
) -> Result<Option<Replica>, DbError> {
    let replica = blobs::table
        .of(tenant)
        .filter(blobs::id.eq(blob))
        .filter(blobs::replica_provider.eq(provider))
        .select((blobs::replica_provider.assume_not_null(), blobs::replica_key.assume_not_null()));
    query("find replica of blob", replica).first(tx.connection()?).await
}

/// A blob with missing or damaged bytes, and its copy.
#[derive(Debug, Clone)]
pub struct RepairableBlob {
    pub movable: MovableBlob,
    pub replica: Replica,
}

/// Returns a blob of a provider, if it still has a copy and a version references it as missing or damaged.
pub async fn find_repairable(
    tx: &mut SystemTx,
    tenant: TenantId,
    blob: BlobId,
    provider: &str,
) -> Result<Option<RepairableBlob>, DbError> {
    type RepairableRow = (TenantBlob, Option<String>, String, ObjectKey);
    let lost = versions_of_blob!().filter(versions::state_reason.is_not_null());
    let (tenant_blob, created_by) = movable_columns!();
    let repairable = blobs::table
        .across_tenants()
        .filter(blobs::tenant_id.eq(tenant))
        .filter(blobs::id.eq(blob))
        .filter(blobs::provider.eq(provider))
        .filter(blobs::replica_key.is_not_null())
        .filter(is_movable!())
        .filter(exists(lost))
        .select((
            tenant_blob,
            created_by,
            blobs::replica_provider.assume_not_null(),
            blobs::replica_key.assume_not_null(),
        ));
    let row: Option<RepairableRow> = query("find blob to repair", repairable).first(tx.connection()?).await?;
    Ok(row.map(|(tenant_blob, created_by, provider, key)| RepairableBlob {
        movable: MovableBlob { tenant_blob, created_by },
        replica: Replica { provider, key },
    }))
}
