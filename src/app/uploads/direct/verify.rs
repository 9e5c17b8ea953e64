//! Verifies a direct upload by reading all its bytes before anyone else may. The version becomes AVAILABLE
//! with its digest, or ERROR with a reason. Clients can no longer write to the object, so the verified bytes
//! are the bytes that are served.
//!
//! A new version of an existing file becomes the current version here and not earlier, unless a later version
//! became current first. Until then, and permanently if verification fails, the file is unchanged. This also
//! applies to files in the trash and in the archive: after undelete or unarchive, the file has the latest
//! version uploaded before.

use crate::{
    admission::Holder,
    app::{
        App, Error,
        integrity::{
            damage::{CheckedSuspicion, Suspicion, check_suspicion},
            read_object::{ReadObject, read_object},
        },
        storage::apply_storage_class,
        tenants::system_caller,
    },
    db::{
        TenantTx, Viewer, blob_checksums,
        blobs::Blob,
        file_locks, file_readers, files,
        usage_counters::{self, UsageDelta},
        verifications,
        versions::{self, StoredVersion},
    },
    domain::{
        digest::Digest,
        file::{ContentState, File, StateReason},
        ids::{FileId, TenantId},
        media_names::canonical_name,
        object_hasher::HashedObject,
        policy::Policy,
    },
    storage::{ObjectStorage, StorageError, StorageErrorKind},
};

/// The data that determines whether and how a verified version becomes current.
struct CurrentRules<'a> {
    policy: &'a Policy,
    /// The permissions of the uploader at the completion of the upload.
    uploader: Option<&'a Viewer>,
}

/// Verifies a version that is PROCESSING. Does nothing if the version has another state or was purged.
///
/// # Errors
/// Returns an error if the store or the database is unavailable, or if a read ends early. The job is then
/// retried.
pub async fn verify_upload(
    app: &App,
    tenant: TenantId,
    file: FileId,
    version: i32,
    sha256: Option<Digest>,
    sniffed: Option<&str>,
    uploader: Option<&Viewer>,
) -> Result<(), Error> {
    let mut tx = app.db.tenant_tx(tenant, &Viewer::system()).await?;
    let stored = versions::get(&mut tx, file, version).await.map_err(Error::from);
    let stored = tx.finish(stored).await?;
    let Some(stored) = stored.filter(|stored| stored.content_state == ContentState::Processing) else {
        return Ok(());
    };
    let store = app.background_stores.get_for(&stored.blob.provider, Holder::of_tenant(tenant))?;
    let verified = match check_suspicion(store.as_ref(), &stored.blob, Suspicion::Length).await? {
        CheckedSuspicion::Confirmed(reason) => Err(reason),
        CheckedSuspicion::Refuted(_) | CheckedSuspicion::Open => {
            let read = read_whole(store.as_ref(), &stored.blob).await?;
            if sha256.is_some_and(|declared| declared != read.checksums.hashes.sha256) {
                Err(StateReason::ChecksumMismatch)
            } else if read.sniffed.as_deref().map(canonical_name) != sniffed.map(canonical_name) {
                // An earlier release may have used an alias.
                Err(StateReason::ObjectDamaged)
            } else {
                Ok(read.checksums)
            }
        }
    };
    let system = system_caller(app, tenant).await?;
    let rules = CurrentRules { policy: &system.tenant.policy, uploader };
    let mut tx = app.db.tenant_tx(tenant, &Viewer::system()).await?;
    let recorded = record_outcome(app, &mut tx, file, &stored, verified, &rules).await;
    if !tx.finish(recorded).await? {
        tracing::info!(%tenant, %file, version, "direct upload was verified or purged in the meantime");
    }
    Ok(())
}

async fn record_outcome(
    app: &App,
    tx: &mut TenantTx,
    file: FileId,
    stored: &StoredVersion,
    verified: Result<HashedObject, StateReason>,
    rules: &CurrentRules<'_>,
) -> Result<bool, Error> {
    let sha256 = verified.as_ref().map(|read| read.hashes.sha256).map_err(|reason| *reason);
    let is_recorded = verifications::record_result(tx, file, stored.version, sha256).await?;
    if let (true, Ok(read)) = (is_recorded, verified) {
        // Lock the file before its blobs, as a purge does.
        verifications::record_hashes(tx, &stored.blob, read.hashes).await?;
        if let Some(checksums) = &read.block_checksums {
            blob_checksums::insert(tx, stored.blob.id, checksums).await?;
        }
        if let Some(found) = file_locks::get_for_update(tx, file).await? {
            make_available(app, tx, found.file, stored, rules).await?;
        }
    }
    Ok(is_recorded)
}

/// Updates the file for a version that became available: applies the archive's storage class if the file was
/// archived in the meantime, and makes the version current.
async fn make_available(
    app: &App,
    tx: &mut TenantTx,
    file: File,
    stored: &StoredVersion,
    rules: &CurrentRules<'_>,
) -> Result<(), Error> {
    if file.archive_time.is_some() {
        // The job that archiving enqueued skipped this version because it was not available yet.
        apply_storage_class::enqueue_if_needed(app, tx, file.id).await?;
    }
    make_current(tx, file, stored, rules).await
}

/// Makes an available version current, unless it or a later version already is. Its bytes were charged when
/// it was committed; from here on the file is counted under the version's media kind. The version does not become
/// current if its uploader may no longer change the file, which this transaction has locked.
async fn make_current(
    tx: &mut TenantTx,
    before: File,
    stored: &StoredVersion,
    rules: &CurrentRules<'_>,
) -> Result<(), Error> {
    if stored.version <= before.version {
        return Ok(());
    }
    if let Some(uploader) = rules.uploader
        && !files::can_be_changed_by(tx, before.id, uploader, rules.policy.write).await?
    {
        tracing::info!(file = %before.id, version = stored.version, "uploader may no longer change the file");
        return Ok(());
    }
    let after = files::set_current_version(tx, before.id, stored.version, &stored.created_by).await?;
    file_readers::set_size(tx, before.id, after.size_bytes).await?;
    let is_counted = before.trash.is_none() || rules.policy.trash.counts_against_quota;
    if is_counted && before.media_kind != after.media_kind {
        let mut delta = UsageDelta::default();
        delta.add_file_count(&after.category, before.media_kind, -1);
        delta.add_file_count(&after.category, after.media_kind, 1);
        usage_counters::apply_delta(tx, &delta).await?;
    }
    Ok(())
}

/// Reads the whole object.
///
/// # Errors
/// Returns an error if the store is unavailable, or if the read ends early. The object has the right length, so that
/// does not mean that its bytes are damaged.
async fn read_whole(store: &dyn ObjectStorage, blob: &Blob) -> Result<ReadObject, StorageError> {
    let read = read_object(store, &blob.key, blob.size_bytes).await?;
    if read.checksums.size_bytes == blob.size_bytes {
        return Ok(read);
    }
    let early = StorageError::new(StorageErrorKind::Transient, "get object").with_key(&blob.key);
    Err(early.with_source("the store ended the stream early"))
}
