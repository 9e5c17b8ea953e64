//! Uploads that hold a reservation. Each end of an upload is a compare-and-set on (id, lease epoch, state
//! open), so a reservation is converted into usage or released exactly once.

use diesel::{
    ExpressionMethods as _, IntoSql as _, QueryDsl as _, Queryable, QueryableByName, Selectable,
    SelectableHelper as _,
    dsl::exists,
    sql_types::{Record, Timestamptz, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, SystemTx, TenantTx, file_owners,
    schema::uploads,
    sql::{AcrossTenants as _, OfTenant as _, now, now_plus, query, seconds},
};
use crate::domain::{
    clock::Timestamp,
    ids::{BlobId, TenantId, UploadId},
    object_key::ObjectKey,
    upload::UploadState,
    upload_destination::{DestinationKind, UploadOwner},
};

/// How often the parts of an upload that begins again renew its lease again. A client that damages its own parts can
/// therefore not keep an upload open without end.
const RESTARTS_MAX: i32 = 3;

/// A new upload.
#[derive(Debug, Clone)]
pub struct NewUpload {
    pub id: UploadId,
    pub blob_id: BlobId,
    pub provider: String,
    pub key: ObjectKey,
    pub multipart_id: Option<String>,
    pub reserved_bytes: i64,
    pub destination: DestinationKind,
    pub lease_seconds: u32,
    pub created_by: String,
    /// The user whose quota contains the reservation.
    pub owner: UploadOwner,
    /// Whether the client sends the bytes directly to the store.
    pub is_direct: bool,
    /// The key of the staging object of a single-part direct upload, from which the object is copied.
    pub staging_key: Option<ObjectKey>,
    /// The data needed to resume it; `None` for uploads of a single stream.
    pub resumable: Option<ResumableFields>,
}

/// The columns of a resumable upload.
#[derive(Debug, Clone)]
pub struct ResumableFields {
    /// The checked specification of the file.
    pub spec: serde_json::Value,
    pub part_size_bytes: i64,
}

/// The lease of an upload. Its holder may commit, extend or abandon the upload until another writer fences
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Queryable, QueryableByName, Selectable)]
#[diesel(table_name = uploads, check_for_backend(diesel::pg::Pg))]
pub struct UploadLease {
    pub id: UploadId,
    #[diesel(column_name = lease_epoch)]
    pub epoch: i32,
}

impl UploadLease {
    /// Returns the lease of a new upload.
    pub fn first(id: UploadId) -> Self {
        Self { id, epoch: 1 }
    }
}

/// Selects an open upload of the tenant whose lease was not lost. It may have expired.
macro_rules! held_upload {
    ($tx:ident, $lease:ident) => {{
        use $crate::db::schema::uploads;

        uploads::table
            .of($tx.tenant())
            .filter(uploads::id.eq($lease.id))
            .filter(uploads::lease_epoch.eq($lease.epoch))
            .filter(uploads::state.eq($crate::domain::upload::UploadState::Open))
    }};
}

pub(super) use held_upload;

/// Selects uploads that may have left bytes in the store.
macro_rules! has_bytes_left {
    () => {
        uploads::state.eq_any([UploadState::Open, UploadState::Abandoned])
    };
}

/// Inserts an open upload with its first lease. Returns the user whose quota contains its reservation.
pub async fn insert(tx: &mut TenantTx, upload: &NewUpload) -> Result<Option<String>, DbError> {
    let lease = UploadLease::first(upload.id);
    let owner_id = match &upload.owner {
        UploadOwner::User(id) => Some(id.clone()),
        UploadOwner::OwnerOf(file) => file_owners::get_owner(tx, *file).await?,
    };
    let insert = diesel::insert_into(uploads::table).values((
        uploads::tenant_id.eq(tx.tenant()),
        uploads::id.eq(lease.id),
        uploads::state.eq(UploadState::Open),
        uploads::lease_epoch.eq(lease.epoch),
        uploads::lease_expire_time.eq(now_plus(seconds(upload.lease_seconds))),
        uploads::reserved_bytes.eq(upload.reserved_bytes),
        uploads::is_version.eq(upload.destination.is_version()),
        uploads::blob_id.eq(upload.blob_id),
        uploads::provider.eq(&upload.provider),
        uploads::storage_key.eq(&upload.key),
        uploads::multipart_id.eq(&upload.multipart_id),
        uploads::created_by.eq(&upload.created_by),
        uploads::create_time.eq(now()),
        uploads::spec.eq(upload.resumable.as_ref().map(|resumable| &resumable.spec)),
        uploads::part_size_bytes.eq(upload.resumable.as_ref().map(|resumable| resumable.part_size_bytes)),
        uploads::is_direct.eq(upload.is_direct),
        uploads::staging_key.eq(upload.staging_key.as_ref()),
        uploads::owner_id.eq(&owner_id),
    ));
    query("insert upload", insert).execute(tx.connection()?).await.map(|_| owner_id)
}

/// Renews the lease. Returns `false` if the lease was lost or has expired.
pub async fn renew_lease(tx: &mut TenantTx, lease: UploadLease, lease_seconds: u32) -> Result<bool, DbError> {
    let unexpired = held_upload!(tx, lease).filter(uploads::lease_expire_time.gt(now()));
    let update =
        diesel::update(unexpired).set(uploads::lease_expire_time.eq(now_plus(seconds(lease_seconds))));
    Ok(query("renew lease", update).execute(tx.connection()?).await? == 1)
}

/// Renews the lease of an upload if it had fewer parts before. Does nothing if the lease was lost or
/// has expired.
pub async fn renew_lease_for_parts(
    tx: &mut TenantTx,
    lease: UploadLease,
    part_count: i32,
    lease_seconds: u32,
) -> Result<(), DbError> {
    let advanced = held_upload!(tx, lease)
        .filter(uploads::lease_expire_time.gt(now()))
        .filter(uploads::renewed_part_count.lt(part_count));
    let update = diesel::update(advanced).set((
        uploads::lease_expire_time.eq(now_plus(seconds(lease_seconds))),
        uploads::renewed_part_count.eq(part_count),
    ));
    query("renew lease for parts", update).execute(tx.connection()?).await.map(|_| ())
}

/// Lets the parts of an upload that begins again renew the lease again, at most `RESTARTS_MAX` times. Does nothing
/// if the lease was lost.
pub async fn restart_renewals(tx: &mut TenantTx, lease: UploadLease) -> Result<(), DbError> {
    let restarted = held_upload!(tx, lease).filter(uploads::restart_count.lt(RESTARTS_MAX));
    let update = diesel::update(restarted)
        .set((uploads::renewed_part_count.eq(0), uploads::restart_count.eq(uploads::restart_count + 1)));
    query("restart renewals of lease", update).execute(tx.connection()?).await.map(|_| ())
}

/// Returns whether the lease was neither lost nor has expired.
pub async fn is_lease_held(tx: &mut TenantTx, lease: UploadLease) -> Result<bool, DbError> {
    let held = held_upload!(tx, lease).filter(uploads::lease_expire_time.gt(now()));
    query("check lease", diesel::select(exists(held))).one(tx.connection()?).await
}

/// Returns the id of the multipart upload of an upload whose lease was neither lost nor has expired.
pub async fn get_held_multipart_id(tx: &mut TenantTx, lease: UploadLease) -> Result<Option<String>, DbError> {
    let held = held_upload!(tx, lease).filter(uploads::lease_expire_time.gt(now()));
    let id = held.select(uploads::multipart_id);
    let id: Option<Option<String>> = query("get multipart id", id).first(tx.connection()?).await?;
    Ok(id.flatten())
}

/// Changes the reserved bytes by `by_bytes`, which may be negative. Returns `None` if the lease was lost or has
/// expired, because such an upload can no longer be committed; otherwise the reservation.
pub async fn adjust_reservation(
    tx: &mut TenantTx,
    lease: UploadLease,
    by_bytes: i64,
) -> Result<Option<Reservation>, DbError> {
    let unexpired = held_upload!(tx, lease).filter(uploads::lease_expire_time.gt(now()));
    let update = diesel::update(unexpired)
        .set(uploads::reserved_bytes.eq(uploads::reserved_bytes + by_bytes))
        .returning(Reservation::as_returning());
    query("adjust reservation", update).first(tx.connection()?).await
}

/// The quota that an upload has reserved.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = uploads, check_for_backend(diesel::pg::Pg))]
pub struct Reservation {
    #[diesel(column_name = reserved_bytes)]
    pub bytes: i64,
    is_version: bool,
    /// The user whose quota contains it. `None` for uploads that earlier releases opened.
    pub owner_id: Option<String>,
}

impl Reservation {
    /// Returns 1, or 0 for a new version of an existing file.
    pub fn file_count(&self) -> i64 {
        DestinationKind::from_is_version(self.is_version).file_count()
    }
}

/// Marks an upload as abandoned. Evaluates to its reservation, if there is such an upload.
macro_rules! abandon_upload {
    ($tx:ident, $upload:expr) => {{
        let update = diesel::update($upload)
            .set(uploads::state.eq(UploadState::Abandoned))
            .returning(Reservation::as_returning());
        query("abandon upload", update).first($tx.connection()?).await
    }};
}

/// Abandons an upload whose lease has expired. Returns its reservation, or `None` if the lease was renewed or
/// the upload ended in the meantime.
pub async fn abandon_expired(tx: &mut TenantTx, lease: UploadLease) -> Result<Option<Reservation>, DbError> {
    abandon_upload!(tx, held_upload!(tx, lease).filter(uploads::lease_expire_time.le(now())))
}

/// Abandons an upload. Returns its reservation, or `None` if it was not open or the lease was lost.
///
/// Uploads that become files are ended by their commit, in `app.commit_uploads`.
pub async fn abandon(tx: &mut TenantTx, lease: UploadLease) -> Result<Option<Reservation>, DbError> {
    abandon_upload!(tx, held_upload!(tx, lease))
}

/// Returns the state of an upload, if it exists.
pub async fn get_state(tx: &mut TenantTx, id: UploadId) -> Result<Option<UploadState>, DbError> {
    let state = uploads::table.of(tx.tenant()).filter(uploads::id.eq(id)).select(uploads::state);
    query("read state of upload", state).first(tx.connection()?).await
}

/// An upload that was not committed and whose lease has expired, with the objects that it left in the store.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = uploads, check_for_backend(diesel::pg::Pg))]
pub struct ExpiredUpload {
    #[diesel(column_name = tenant_id)]
    pub tenant: TenantId,
    #[diesel(embed)]
    pub lease: UploadLease,
    /// The key of the object.
    #[diesel(column_name = storage_key)]
    pub key: ObjectKey,
    /// The key of the staging object, if there is one.
    pub staging_key: Option<ObjectKey>,
    /// The id of the multipart upload, if there is one.
    pub multipart_id: Option<String>,
    pub lease_expire_time: Timestamp,
}

/// The position of an upload in the list of expired uploads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpiredUploadCursor {
    pub lease_expire_time: Timestamp,
    pub tenant: TenantId,
    pub upload: UploadId,
}

impl ExpiredUploadCursor {
    /// The position before all uploads.
    const START: Self = Self {
        lease_expire_time: Timestamp::UNIX_EPOCH,
        tenant: TenantId::from_uuid(Uuid::nil()),
        upload: UploadId::from_uuid(Uuid::nil()),
    };
}

impl ExpiredUpload {
    /// Returns the position of this upload in the list of expired uploads.
    pub fn cursor(&self) -> ExpiredUploadCursor {
        ExpiredUploadCursor {
            lease_expire_time: self.lease_expire_time,
            tenant: self.tenant,
            upload: self.lease.id,
        }
    }
}

/// Returns uploads of a provider whose lease has expired and that are open or abandoned with bytes left in
/// the store. Starts after a position; ordered by expiry time.
pub async fn list_expired(
    tx: &mut SystemTx,
    provider: &str,
    after: Option<ExpiredUploadCursor>,
    limit: i64,
) -> Result<Vec<ExpiredUpload>, DbError> {
    type Position = Record<(Timestamptz, SqlUuid, SqlUuid)>;
    let after = after.unwrap_or(ExpiredUploadCursor::START);
    let position = (uploads::lease_expire_time, uploads::tenant_id, uploads::id);
    let page = uploads::table
        .across_tenants()
        .filter(has_bytes_left!())
        .filter(uploads::provider.eq(provider))
        .filter(uploads::lease_expire_time.le(now()))
        .filter(position.into_sql::<Position>().gt((after.lease_expire_time, after.tenant, after.upload)))
        .order(position)
        .limit(limit)
        .select(ExpiredUpload::as_select());
    query("list expired uploads", page).load(tx.connection()?).await
}

/// Returns open uploads of all providers whose lease has expired, after a position, ordered by expiry time.
pub async fn list_expired_open(
    tx: &mut SystemTx,
    after: Option<ExpiredUploadCursor>,
    limit: i64,
) -> Result<Vec<ExpiredUpload>, DbError> {
    type Position = Record<(Timestamptz, SqlUuid, SqlUuid)>;
    let after = after.unwrap_or(ExpiredUploadCursor::START);
    let position = (uploads::lease_expire_time, uploads::tenant_id, uploads::id);
    let page = uploads::table
        .across_tenants()
        .filter(uploads::state.eq(UploadState::Open))
        .filter(uploads::lease_expire_time.le(now()))
        .filter(position.into_sql::<Position>().gt((after.lease_expire_time, after.tenant, after.upload)))
        .order(position)
        .limit(limit)
        .select(ExpiredUpload::as_select());
    query("list expired open uploads", page).load(tx.connection()?).await
}

/// Returns uploads of one tenant that are open or abandoned with bytes left in the store, regardless of their
/// lease, each with its provider.
pub async fn list_for_tenant(
    tx: &mut SystemTx,
    tenant: TenantId,
    limit: i64,
) -> Result<Vec<(String, ExpiredUpload)>, DbError> {
    let page = uploads::table
        .of(tenant)
        .filter(has_bytes_left!())
        .order(uploads::id)
        .limit(limit)
        .select((uploads::provider, ExpiredUpload::as_select()));
    query("list uploads of tenant", page).load(tx.connection()?).await
}

/// Returns uploads that are open or abandoned with bytes left in a store, and that have the key of an object.
pub async fn list_for_key(tx: &mut SystemTx, key: &ObjectKey) -> Result<Vec<ExpiredUpload>, DbError> {
    let named = uploads::table
        .of(key.tenant())
        .filter(has_bytes_left!())
        .filter(uploads::storage_key.eq(key))
        .order(uploads::id)
        .select(ExpiredUpload::as_select());
    query("list uploads of key", named).load(tx.connection()?).await
}

/// Counts all uploads that [`list_expired`] selects.
pub async fn count_expired(tx: &mut SystemTx, provider: &str) -> Result<u64, DbError> {
    let expired = uploads::table
        .across_tenants()
        .filter(has_bytes_left!())
        .filter(uploads::provider.eq(provider))
        .filter(uploads::lease_expire_time.le(now()));
    let count: i64 = query("count expired uploads", expired.count()).one(tx.connection()?).await?;
    Ok(u64::try_from(count).unwrap_or_default())
}

/// Counts the uploads of a provider that are open or abandoned with bytes left in the store.
pub async fn count_open(tx: &mut SystemTx, provider: &str) -> Result<u64, DbError> {
    let open =
        uploads::table.across_tenants().filter(has_bytes_left!()).filter(uploads::provider.eq(provider));
    let count: i64 = query("count open uploads", open.count()).one(tx.connection()?).await?;
    Ok(u64::try_from(count).unwrap_or_default())
}

/// Deletes an abandoned upload whose bytes have been deleted from the store.
pub async fn delete_abandoned(tx: &mut SystemTx, tenant: TenantId, id: UploadId) -> Result<(), DbError> {
    let abandoned = uploads::table
        .of(tenant)
        .filter(uploads::id.eq(id))
        .filter(uploads::state.eq(UploadState::Abandoned));
    query("delete abandoned upload", diesel::delete(abandoned)).execute(tx.connection()?).await.map(|_| ())
}

/// Deletes committed uploads whose lease has expired.
pub async fn delete_committed(tx: &mut SystemTx) -> Result<usize, DbError> {
    let committed = uploads::table
        .across_tenants()
        .filter(uploads::state.eq(UploadState::Committed))
        .filter(uploads::lease_expire_time.le(now()));
    query("delete committed uploads", diesel::delete(committed)).execute(tx.connection()?).await
}
