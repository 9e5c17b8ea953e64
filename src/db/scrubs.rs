//! The passes of scrubbing: one row per provider, the blobs and copies that a pass must still read, and when each was
//! last verified.

use diesel::{
    ExpressionMethods as _, NullableExpressionMethods as _, PgExpressionMethods as _, QueryDsl as _,
    Queryable, Selectable, SelectableHelper as _,
    dsl::{exists, not},
};

use super::{
    DbError, SystemTx,
    blob_claims::{BlobWork, claims_of_blob},
    blobs::{Blob, TenantBlob, versions_of_blob},
    schema::{blobs, scrubs, versions},
    sql::{AcrossTenants as _, OfTenant as _, coalesce, now, query},
};
use crate::domain::{
    clock::Timestamp, file::ContentState, ids::TenantId, object_key::ObjectKey, scrub::scrub_cost_bytes,
};

/// The pass of a provider.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct ScrubPass {
    /// The pass reads blobs that were last verified before this time.
    pub start_time: Timestamp,
    /// The bytes that the pass must still read, as far as known: as of the last count, without those claimed since.
    #[diesel(deserialize_as = i64)]
    pub left_bytes: u64,
    /// The time from which more bytes may be read.
    pub ready_time: Timestamp,
    /// The time of the transaction.
    pub now: Timestamp,
}

/// Reads the pass of a provider and locks it until the end of the transaction. Starts the first one.
pub async fn lock_pass(tx: &mut SystemTx, provider: &str) -> Result<ScrubPass, DbError> {
    let first = diesel::insert_into(scrubs::table)
        .values((
            scrubs::provider.eq(provider),
            scrubs::pass_start_time.eq(now()),
            scrubs::ready_time.eq(now()),
        ))
        .on_conflict_do_nothing();
    query("start first pass of scrubbing", first).execute(tx.connection()?).await?;
    let pass = scrubs::table
        .filter(scrubs::provider.eq(provider))
        .select((scrubs::pass_start_time, scrubs::left_bytes, scrubs::ready_time, now()))
        .for_update();
    query("lock pass of scrubbing", pass).one(tx.connection()?).await
}

/// Starts the next pass of a provider.
pub async fn start_pass(tx: &mut SystemTx, provider: &str) -> Result<(), DbError> {
    let update = diesel::update(scrubs::table.filter(scrubs::provider.eq(provider))).set((
        scrubs::pass_start_time.eq(now()),
        scrubs::measure_time.eq(None::<Timestamp>),
        // A count in progress is of the former pass.
        scrubs::counted_blob_time.eq(None::<Timestamp>),
        scrubs::ready_time.eq(now()),
    ));
    query("start pass of scrubbing", update).execute(tx.connection()?).await.map(|_| ())
}

/// Records that a pass is complete. Returns false if that is already recorded.
pub async fn end_pass(tx: &mut SystemTx, provider: &str) -> Result<bool, DbError> {
    let unrecorded = scrubs::table
        .filter(scrubs::provider.eq(provider))
        .filter(scrubs::full_pass_start_time.is_distinct_from(scrubs::pass_start_time.nullable()));
    let update = diesel::update(unrecorded).set((
        scrubs::full_pass_start_time.eq(scrubs::pass_start_time.nullable()),
        scrubs::full_pass_end_time.eq(now().nullable()),
        scrubs::left_bytes.eq(0_i64),
    ));
    Ok(query("end pass of scrubbing", update).execute(tx.connection()?).await? == 1)
}

/// Records that bytes of a pass are being read, and when more may be.
pub async fn record_claimed(
    tx: &mut SystemTx,
    provider: &str,
    left_bytes: u64,
    ready_time: Timestamp,
) -> Result<(), DbError> {
    let update = diesel::update(scrubs::table.filter(scrubs::provider.eq(provider))).set((
        scrubs::left_bytes.eq(i64::try_from(left_bytes).unwrap_or(i64::MAX)),
        scrubs::ready_time.eq(ready_time),
    ));
    query("record claimed bytes of scrubbing", update).execute(tx.connection()?).await.map(|_| ())
}

/// An object that must be read: the original of a blob, or its copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueScrub {
    pub tenant: TenantId,
    /// The blob, with the provider and the key of the object to read.
    pub object: Blob,
    pub is_replica: bool,
    /// When it was last verified, or created.
    pub verified_time: Timestamp,
}

impl DueScrub {
    /// Returns the work that is claimed.
    pub fn work(&self) -> BlobWork {
        if self.is_replica { BlobWork::ScrubReplica } else { BlobWork::Scrub }
    }

    /// Returns the bytes that it counts in the rate.
    pub fn cost_bytes(&self) -> u64 {
        scrub_cost_bytes(self.object.size_bytes)
    }
}

/// When a blob was last verified, or created.
macro_rules! verified_time {
    () => {
        coalesce(blobs::last_verified_time, blobs::create_time)
    };
}

/// The blobs of a provider that an available version references, and that were verified before a time.
macro_rules! due_blobs {
    ($provider:expr, $before:expr) => {
        blobs::table
            .across_tenants()
            .filter(blobs::provider.eq($provider))
            .filter(blobs::sha256.is_not_null())
            .filter(blobs::delete_after.is_null())
            .filter(verified_time!().lt($before))
            .filter(exists(versions_of_blob!().filter(versions::content_state.eq(ContentState::Available))))
    };
}

/// The copies at a provider that were verified before a time.
macro_rules! due_replicas {
    ($provider:expr, $before:expr) => {
        blobs::table
            .across_tenants()
            .filter(blobs::replica_provider.eq($provider))
            .filter(blobs::delete_after.is_null())
            .filter(blobs::replica_verified_time.lt($before))
    };
}

/// Returns the objects of a provider that were verified before a time and are not claimed, the oldest first.
pub async fn list_due(
    tx: &mut SystemTx,
    provider: &str,
    before: Timestamp,
    limit: i64,
) -> Result<Vec<DueScrub>, DbError> {
    let originals = due_blobs!(provider, before)
        .filter(not(exists(claims_of_blob!(BlobWork::Scrub))))
        .order(verified_time!())
        .limit(limit)
        .select((TenantBlob::as_select(), verified_time!()));
    let originals: Vec<(TenantBlob, Timestamp)> =
        query("list blobs to scrub", originals).load(tx.connection()?).await?;
    let replicas = due_replicas!(provider, before)
        .filter(not(exists(claims_of_blob!(BlobWork::ScrubReplica))))
        .order((blobs::replica_verified_time, blobs::tenant_id, blobs::id))
        .limit(limit)
        .select((
            TenantBlob::as_select(),
            blobs::replica_key.assume_not_null(),
            blobs::replica_verified_time.assume_not_null(),
        ));
    let replicas: Vec<(TenantBlob, ObjectKey, Timestamp)> =
        query("list replicas to scrub", replicas).load(tx.connection()?).await?;
    let original = |(TenantBlob { tenant, blob }, verified_time)| DueScrub {
        tenant,
        object: blob,
        is_replica: false,
        verified_time,
    };
    let replica = |(TenantBlob { tenant, blob }, key, verified_time)| DueScrub {
        tenant,
        object: Blob { provider: provider.to_owned(), key, ..blob },
        is_replica: true,
        verified_time,
    };
    let mut due: Vec<DueScrub> =
        originals.into_iter().map(original).chain(replicas.into_iter().map(replica)).collect();
    due.sort_by_key(|due| due.verified_time);
    due.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(due)
}

/// Returns whether an object of a provider was verified before a time, whether claimed or not.
pub async fn has_due(tx: &mut SystemTx, provider: &str, before: Timestamp) -> Result<bool, DbError> {
    let original = diesel::select(exists(due_blobs!(provider, before)));
    let replica = diesel::select(exists(due_replicas!(provider, before)));
    Ok(query("find blob to scrub", original).one(tx.connection()?).await?
        || query("find replica to scrub", replica).one(tx.connection()?).await?)
}

/// Records that an object was read and is intact, unless the blob has another object now.
pub async fn record_verified(tx: &mut SystemTx, verified: &DueScrub) -> Result<(), DbError> {
    let DueScrub { tenant, object, is_replica, .. } = verified;
    let row = blobs::table.of(*tenant).filter(blobs::id.eq(object.id));
    if *is_replica {
        let unchanged = row
            .filter(blobs::replica_provider.eq(&object.provider))
            .filter(blobs::replica_key.eq(&object.key));
        let update = diesel::update(unchanged).set(blobs::replica_verified_time.eq(now().nullable()));
        query("record verified replica", update).execute(tx.connection()?).await.map(|_| ())
    } else {
        let unchanged =
            row.filter(blobs::provider.eq(&object.provider)).filter(blobs::storage_key.eq(&object.key));
        let update = diesel::update(unchanged).set(blobs::last_verified_time.eq(now().nullable()));
        query("record verified blob", update).execute(tx.connection()?).await.map(|_| ())
    }
}

/// Records the verification of a provider that is longest ago.
pub async fn record_oldest(tx: &mut SystemTx, provider: &str) -> Result<(), DbError> {
    let oldest = find_oldest(tx, provider).await?;
    let update = diesel::update(scrubs::table.filter(scrubs::provider.eq(provider)))
        .set(scrubs::oldest_verified_time.eq(oldest));
    query("record oldest verification", update).execute(tx.connection()?).await.map(|_| ())
}

pub(super) async fn find_oldest(tx: &mut SystemTx, provider: &str) -> Result<Option<Timestamp>, DbError> {
    let original = due_blobs!(provider, now()).order(verified_time!()).limit(1).select(verified_time!());
    let original: Option<Timestamp> =
        query("find oldest verification", original).first(tx.connection()?).await?;
    let replica = due_replicas!(provider, now().nullable())
        .order(blobs::replica_verified_time)
        .limit(1)
        .select(blobs::replica_verified_time.assume_not_null());
    let replica: Option<Timestamp> =
        query("find oldest verification of replica", replica).first(tx.connection()?).await?;
    Ok([original, replica].into_iter().flatten().min())
}

/// The scrubbing of one provider, for operators.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = scrubs, check_for_backend(diesel::pg::Pg))]
pub struct ScrubRecord {
    pub provider: String,
    pub pass_start_time: Timestamp,
    #[diesel(deserialize_as = i64)]
    pub left_bytes: u64,
    pub oldest_verified_time: Option<Timestamp>,
    pub full_pass_start_time: Option<Timestamp>,
    pub full_pass_end_time: Option<Timestamp>,
}

/// Returns the scrubbing of all providers, and the time of the transaction.
pub async fn list_records(tx: &mut SystemTx) -> Result<Vec<(ScrubRecord, Timestamp)>, DbError> {
    let records = scrubs::table.order(scrubs::provider).select((ScrubRecord::as_select(), now()));
    query("list passes of scrubbing", records).load(tx.connection()?).await
}
