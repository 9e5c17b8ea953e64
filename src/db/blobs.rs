//! Blobs: one row per stored object.

use diesel::{
    AggregateExpressionMethods as _, BoolExpressionMethods as _, ExpressionMethods as _, IntoSql as _,
    NullableExpressionMethods as _, QueryDsl as _, Queryable, QueryableByName, Selectable,
    SelectableHelper as _,
    dsl::{self, count, count_star, not},
    sql_types::{BigInt, Nullable, Record, Timestamptz, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, SystemTx, TenantTx,
    object_sizes::{SizeRow, count_and_sum},
    schema::{blobs, versions},
    sql::{
        AcrossTenants as _, OfTenant as _, ToBigint, coalesce, hours, now, now_plus, query, statement,
        sum_numeric, sum_of,
    },
    stray_objects,
};
use crate::domain::{
    checksum::Crc64,
    clock::Timestamp,
    digest::{Digest, ObjectHashes},
    file::ContentState,
    ids::{BlobId, TenantId},
    object_key::ObjectKey,
    storage_class::StorageClass,
};

/// A stored object.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = blobs, check_for_backend(diesel::pg::Pg))]
pub struct Blob {
    pub id: BlobId,
    /// The provider that stores the object.
    pub provider: String,
    /// The object's key at the provider.
    #[diesel(column_name = storage_key)]
    pub key: ObjectKey,
    #[diesel(deserialize_as = i64)]
    pub size_bytes: u64,
    /// `None` until the bytes of a direct upload are verified.
    #[diesel(
        select_expression = (blobs::sha256, blobs::crc64nvme),
        select_expression_type = (blobs::sha256, blobs::crc64nvme),
        deserialize_as = HashColumns
    )]
    pub hashes: Option<ObjectHashes>,
    #[diesel(column_name = storage_class)]
    pub class: StorageClass,
}

/// The columns of the hashes. A CHECK constraint makes both NULL or neither.
#[derive(Queryable)]
pub struct HashColumns {
    sha256: Option<Digest>,
    crc64nvme: Option<Crc64>,
}

impl From<HashColumns> for Option<ObjectHashes> {
    fn from(columns: HashColumns) -> Self {
        let (sha256, crc64nvme) = columns.sha256.zip(columns.crc64nvme)?;
        Some(ObjectHashes { sha256, crc64nvme })
    }
}

/// A subquery for the versions that reference a blob, in queries for blobs across tenants.
macro_rules! versions_of_blob {
    () => {{
        use $crate::db::schema::{blobs, versions};

        versions::table
            .across_tenants()
            .filter(versions::tenant_id.eq(blobs::tenant_id))
            .filter(versions::blob_id.eq(blobs::id))
    }};
}

pub(super) use versions_of_blob;

/// Schedules the deletion of those blobs that no version references.
///
/// The bytes are deleted after a delay in hours, so that a database restored from a recent backup still finds
/// them.
///
/// Locks the rows first, in id order, and checks for references in a second statement. When two transactions
/// delete the last two versions of a blob concurrently, the second one therefore sees the first one's
/// changes.
///
/// A trigger counts the bytes in the row of the quota and locks it, so this must run after all changes of usage
/// counters: commits lock them in this order.
pub async fn schedule_deletion(
    tx: &mut TenantTx,
    ids: &[BlobId],
    blob_deletion_delay_hours: u32,
) -> Result<(), DbError> {
    let of_ids = blobs::table.of(tx.tenant()).filter(blobs::id.eq_any(ids));
    let lock = of_ids.clone().order(blobs::id).select(blobs::id).for_no_key_update();
    query("lock blobs", lock).execute(tx.connection()?).await?;
    let references = versions::table.of(tx.tenant()).filter(versions::blob_id.eq(blobs::id));
    let update = diesel::update(of_ids.filter(not(dsl::exists(references))))
        .set(blobs::delete_after.eq(now_plus(hours(blob_deletion_delay_hours)).nullable()));
    query("schedule deletion of blobs", update).execute(tx.connection()?).await.map(|_| ())
}

/// Makes blobs of the tenant whose deletion is scheduled due now, at most `limit`. Returns their number and
/// total size in bytes.
pub async fn make_scheduled_due(tx: &mut TenantTx, limit: i64) -> Result<(i64, i64), DbError> {
    // The query builder cannot update the rows of a limited subquery of the same table.
    let sizes: Vec<SizeRow> = statement(
        "make scheduled blobs due",
        "UPDATE blobs SET delete_after = app.now()
         WHERE tenant_id = $1 AND id IN (
             SELECT id FROM blobs WHERE tenant_id = $1 AND delete_after > app.now() ORDER BY delete_after LIMIT $2)
         RETURNING size_bytes",
    )
    .bind::<SqlUuid, _>(tx.tenant())
    .bind::<BigInt, _>(limit)
    .load(tx.connection()?)
    .await?;
    Ok(count_and_sum(sizes.iter().map(|row| row.size_bytes)))
}

/// A blob and the tenant it belongs to.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = blobs, check_for_backend(diesel::pg::Pg))]
pub struct TenantBlob {
    #[diesel(column_name = tenant_id)]
    pub tenant: TenantId,
    #[diesel(embed)]
    pub blob: Blob,
}

/// The position of a blob in a list that is ordered by tenant and id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobCursor {
    pub tenant: TenantId,
    pub blob: BlobId,
}

impl BlobCursor {
    /// The position before all blobs.
    pub(super) const START: Self =
        Self { tenant: TenantId::from_uuid(Uuid::nil()), blob: BlobId::from_uuid(Uuid::nil()) };
}

impl TenantBlob {
    /// Returns the position of this blob in a list that is ordered by tenant and id.
    pub fn cursor(&self) -> BlobCursor {
        BlobCursor { tenant: self.tenant, blob: self.blob.id }
    }
}

/// A blob that is due for deletion.
#[derive(Debug, Clone, Queryable)]
pub struct DueBlob {
    pub tenant_blob: TenantBlob,
    /// The time from which it is due.
    pub delete_after: Timestamp,
}

/// The position of a blob in the list of due blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueBlobCursor {
    pub delete_after: Timestamp,
    pub blob: BlobCursor,
}

impl DueBlob {
    /// Returns the position of this blob in the list of due blobs.
    pub fn cursor(&self) -> DueBlobCursor {
        DueBlobCursor { delete_after: self.delete_after, blob: self.tenant_blob.cursor() }
    }
}

/// Returns unreferenced blobs of a provider whose deletion delay has passed, after a position, ordered by due
/// time.
pub async fn list_due(
    tx: &mut SystemTx,
    provider: &str,
    after: Option<DueBlobCursor>,
    limit: i64,
) -> Result<Vec<DueBlob>, DbError> {
    type Position = Record<(Nullable<Timestamptz>, SqlUuid, SqlUuid)>;
    let start = DueBlobCursor { delete_after: Timestamp::UNIX_EPOCH, blob: BlobCursor::START };
    let DueBlobCursor { delete_after, blob } = after.unwrap_or(start);
    let position = (blobs::delete_after, blobs::tenant_id, blobs::id);
    let page = blobs::table
        .across_tenants()
        .filter(blobs::delete_after.le(now().nullable()))
        .filter(blobs::provider.eq(provider))
        .filter(not(dsl::exists(versions_of_blob!())))
        .filter(position.into_sql::<Position>().gt((delete_after, blob.tenant, blob.blob)))
        .order(position)
        .limit(limit)
        .select((TenantBlob::as_select(), blobs::delete_after.assume_not_null()));
    query("list due blobs", page).load(tx.connection()?).await
}

/// Returns the digest of a blob; `None` if the blob does not exist or its bytes are not verified.
pub async fn get_sha256(tx: &mut TenantTx, id: BlobId) -> Result<Option<Digest>, DbError> {
    let digest = blobs::table.of(tx.tenant()).filter(blobs::id.eq(id)).select(blobs::sha256);
    let digest: Option<Option<Digest>> = query("get digest of blob", digest).first(tx.connection()?).await?;
    Ok(digest.flatten())
}

/// Returns whether a blob references the object with this key.
pub async fn has_key(tx: &mut TenantTx, key: &ObjectKey) -> Result<bool, DbError> {
    let blob = blobs::table.of(tx.tenant()).filter(blobs::storage_key.eq(key));
    query("find blob by key", diesel::select(dsl::exists(blob))).one(tx.connection()?).await
}

/// Returns whether a blob with this id exists. Ids are never reused.
pub async fn exists(tx: &mut SystemTx, tenant: TenantId, id: BlobId) -> Result<bool, DbError> {
    let blob = blobs::table.of(tenant).filter(blobs::id.eq(id));
    query("find blob by id", diesel::select(dsl::exists(blob))).one(tx.connection()?).await
}

#[derive(QueryableByName)]
#[diesel(table_name = blobs)]
struct ProviderRow {
    provider: String,
}

/// Returns the providers that blobs reference. Skips through the index from one (tenant, provider) pair to
/// the next, because there are far fewer pairs than blobs.
pub async fn list_providers(tx: &mut SystemTx) -> Result<Vec<String>, DbError> {
    // A recursive skip scan.
    let rows: Vec<ProviderRow> = statement(
        "list providers of blobs",
        "WITH RECURSIVE walk AS (
             (SELECT tenant_id, provider FROM blobs ORDER BY tenant_id, provider LIMIT 1)
             UNION ALL
             SELECT next.tenant_id, next.provider FROM walk CROSS JOIN LATERAL (
                 SELECT b.tenant_id, b.provider FROM blobs AS b
                 WHERE (b.tenant_id, b.provider) > (walk.tenant_id, walk.provider)
                 ORDER BY b.tenant_id, b.provider LIMIT 1) AS next
         )
         SELECT DISTINCT provider FROM walk ORDER BY provider",
    )
    .load(tx.connection()?)
    .await?;
    Ok(rows.into_iter().map(|row| row.provider).collect())
}

/// A blob that can be moved to another provider.
#[derive(Debug, Clone, Queryable)]
pub struct MovableBlob {
    pub tenant_blob: TenantBlob,
    /// The uploader, from the blob's first version.
    pub created_by: Option<String>,
}

/// The columns of a [`MovableBlob`].
macro_rules! movable_columns {
    () => {{
        use $crate::db::{blobs::TenantBlob, schema::versions};

        let first_uploader = $crate::db::blobs::versions_of_blob!()
            .order((versions::create_time, versions::file_id))
            .select(versions::created_by)
            .single_value();
        (TenantBlob::as_select(), first_uploader)
    }};
}

/// Selects movable blobs: those whose deletion is not scheduled and whose digest is known.
macro_rules! is_movable {
    () => {{
        use $crate::db::schema::blobs;

        blobs::delete_after.is_null().and(blobs::sha256.is_not_null())
    }};
}

pub(super) use {is_movable, movable_columns};

/// Returns movable blobs of a provider after a position, ordered by (tenant, id). A blob is movable if its
/// deletion is not scheduled and its digest is known.
pub async fn list_movable(
    tx: &mut SystemTx,
    provider: &str,
    after: Option<BlobCursor>,
    limit: i64,
) -> Result<Vec<MovableBlob>, DbError> {
    let after = after.unwrap_or(BlobCursor::START);
    let position = (blobs::tenant_id, blobs::id);
    let page = blobs::table
        .across_tenants()
        .filter(position.into_sql::<Record<(SqlUuid, SqlUuid)>>().gt((after.tenant, after.blob)))
        .filter(blobs::provider.eq(provider))
        .filter(is_movable!())
        .order(position)
        .limit(limit)
        .select(movable_columns!());
    query("list movable blobs", page).load(tx.connection()?).await
}

/// Counts the blobs of a provider whose deletion is scheduled.
pub async fn count_scheduled(tx: &mut SystemTx, provider: &str) -> Result<u64, DbError> {
    let scheduled = blobs::table
        .across_tenants()
        .filter(blobs::delete_after.is_not_null())
        .filter(blobs::provider.eq(provider));
    let count: i64 =
        query("count blobs scheduled for deletion", scheduled.count()).one(tx.connection()?).await?;
    Ok(u64::try_from(count).unwrap_or_default())
}

/// Counts all blobs that [`list_movable`] selects.
pub async fn count_movable(tx: &mut SystemTx, provider: &str) -> Result<u64, DbError> {
    let movable = blobs::table.across_tenants().filter(blobs::provider.eq(provider)).filter(is_movable!());
    let count: i64 = query("count movable blobs", movable.count()).one(tx.connection()?).await?;
    Ok(u64::try_from(count).unwrap_or_default())
}

/// The number of blobs whose digest is unknown, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UndigestedCounts {
    /// Blobs of direct uploads that are not verified yet.
    pub unverified: u64,
    /// Blobs of direct uploads that failed verification.
    pub refused: u64,
}

/// Counts the blobs of a provider that [`list_movable`] skips because their digest is unknown.
pub async fn count_undigested(tx: &mut SystemTx, provider: &str) -> Result<UndigestedCounts, DbError> {
    let is_unverified =
        dsl::exists(versions_of_blob!().filter(versions::content_state.eq(ContentState::Processing)));
    let counts = blobs::table
        .across_tenants()
        .filter(blobs::provider.eq(provider))
        .filter(blobs::delete_after.is_null())
        .filter(blobs::sha256.is_null())
        .select((count_star(), count(blobs::id).aggregate_filter(is_unverified)));
    let (total, unverified): (i64, i64) =
        query("count blobs without digest", counts).one(tx.connection()?).await?;
    Ok(UndigestedCounts {
        unverified: u64::try_from(unverified).unwrap_or_default(),
        refused: u64::try_from(total - unverified).unwrap_or_default(),
    })
}

/// Points a blob to another object with the same bytes.
///
/// Returns false if the blob has been moved in the meantime or its deletion is scheduled.
pub async fn relocate(
    tx: &mut SystemTx,
    from: &TenantBlob,
    provider: &str,
    key: &ObjectKey,
    class: StorageClass,
) -> Result<bool, DbError> {
    let unmoved = blobs::table
        .of(from.tenant)
        .filter(blobs::id.eq(from.blob.id))
        .filter(blobs::provider.eq(&from.blob.provider))
        .filter(blobs::storage_key.eq(&from.blob.key))
        .filter(blobs::delete_after.is_null());
    let update = diesel::update(unmoved).set((
        blobs::provider.eq(provider),
        blobs::storage_key.eq(key),
        blobs::storage_class.eq(class),
    ));
    Ok(query("relocate blob", update).execute(tx.connection()?).await? == 1)
}

/// The recorded storage usage of a provider.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct ProviderUsage {
    pub provider: String,
    #[diesel(deserialize_as = i64)]
    pub objects: u64,
    #[diesel(deserialize_as = i64)]
    pub bytes: u64,
    /// The part of `bytes` that is in the archive storage class.
    #[diesel(deserialize_as = i64)]
    pub archived_bytes: u64,
}

/// Returns the storage usage of every provider. Reads all blobs: for operators, not for requests.
pub async fn list_provider_usage(tx: &mut SystemTx) -> Result<Vec<ProviderUsage>, DbError> {
    let archived_bytes =
        sum_numeric(blobs::size_bytes).aggregate_filter(blobs::storage_class.eq(StorageClass::Archive));
    let usage = blobs::table.across_tenants().group_by(blobs::provider).select((
        blobs::provider,
        count_star(),
        sum_of(blobs::size_bytes).assume_not_null(),
        coalesce(ToBigint::new(archived_bytes), 0.into_sql::<BigInt>()),
    ));
    query("sum up blobs", usage).load(tx.connection()?).await
}

/// Returns blobs of one tenant, whether referenced or not. For tenants that are being erased.
pub async fn list_for_tenant(
    tx: &mut SystemTx,
    tenant: TenantId,
    limit: i64,
) -> Result<Vec<TenantBlob>, DbError> {
    let page = blobs::table.of(tenant).order(blobs::id).limit(limit).select(TenantBlob::as_select());
    query("list blobs of tenant", page).load(tx.connection()?).await
}

/// Deletes the rows of blobs whose objects have been deleted, and schedules the deletion of their copies. Returns their
/// number and total size in bytes.
pub async fn delete_all(tx: &mut SystemTx, tenant: TenantId, ids: &[BlobId]) -> Result<(i64, i64), DbError> {
    stray_objects::insert_replicas_of(tx, tenant, ids).await?;
    let delete =
        diesel::delete(blobs::table.of(tenant).filter(blobs::id.eq_any(ids))).returning(blobs::size_bytes);
    let sizes: Vec<i64> = query("delete blobs", delete).load(tx.connection()?).await?;
    Ok(count_and_sum(sizes.into_iter()))
}
