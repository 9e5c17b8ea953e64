//! Moves the blobs of a file to their target storage class: the archive class if all files that reference the
//! blob are archived, and the standard class otherwise.
//!
//! Archiving and unarchiving a file enqueue the same job in their transaction. The job reads the states of
//! the files when it runs, and again when it switches a row to its new object, so that the last of several
//! changes decides. A verified copy inside the store replaces the original, see `relocation`. A download that
//! has the original open is not interrupted.
//!
//! A blob that other files reference too (a copy, a restored version) stays in its class until all of them
//! are archived. If the last other file is purged, no job is enqueued; the next archiving moves the blob. A
//! blob with unverified bytes is not moved either.

use super::relocation::{
    Relocation, RelocationOutcome, TargetClass, hold_reservation, verify_object, with_label_of,
};
use crate::{
    admission::Holder,
    app::{App, Error},
    db::{
        DbError, TenantTx, Viewer,
        blobs::Blob,
        storage_classes::{self, ClassedBlob},
    },
    domain::{
        ids::{FileId, TenantId},
        object_key::ObjectKey,
        storage_class::StorageClass,
    },
    jobs::{self, Deduplicate, Job},
    storage::{ObjectStorage, PutOptions},
};

/// The number of blobs that a job moves before it yields to others.
const BLOBS_PER_JOB: usize = 20;

/// Enqueues the job of a file if any of its blobs is in the archive class or stored with a provider that has
/// one. Returns whether it did.
pub(in crate::app) async fn enqueue_if_needed(
    app: &App,
    tx: &mut TenantTx,
    file: FileId,
) -> Result<bool, DbError> {
    let has_classes =
        |provider: &str| app.stores.get(provider).is_ok_and(|store| store.capabilities().storage_classes);
    let locations = storage_classes::list_file_locations(tx, file).await?;
    let is_needed = locations.iter().any(|location| location.has_archived || has_classes(&location.provider));
    if is_needed {
        enqueue_job(app, tx, file).await?;
    }
    Ok(is_needed)
}

/// Enqueues the job of a file. A running job does not count as a duplicate, because it may have read the
/// files already.
///
/// # Errors
/// Returns an error if the database is unavailable.
pub(in crate::app) async fn enqueue_job(app: &App, tx: &mut TenantTx, file: FileId) -> Result<(), DbError> {
    let key = format!("storage class of {file}");
    jobs::enqueue_job(tx, app.ids.as_ref(), &Job::ApplyStorageClass { file }, Deduplicate::ByKey(&key)).await
}

/// Moves the blobs of a file that are not in their target class. Does nothing for a purged file. A blob that
/// fails does not block the others.
///
/// # Errors
/// Returns an error if a store or the database is unreachable, or if a copy does not match its row. The job
/// is retried then.
pub async fn apply_storage_class(app: &App, tenant: TenantId, file: FileId) -> Result<(), Error> {
    let mut tx = app.db.system_tx().await?;
    let blobs = storage_classes::list_file_blobs(&mut tx, tenant, file).await?;
    tx.commit().await?;
    let misplaced =
        blobs.into_iter().filter(|classed| classed.movable.tenant_blob.blob.class != classed.target);
    let (mut moved, mut is_incomplete, mut failure) = (0, false, None);
    for classed in misplaced {
        let key = classed.movable.tenant_blob.blob.key.clone();
        let provider = &classed.movable.tenant_blob.blob.provider;
        let store = match app.background_stores.get_for(provider, Holder::of_tenant(tenant)) {
            Ok(store) => store,
            Err(unknown) => {
                tracing::info!(%tenant, %key, error = %unknown, "failed to move blob to its storage class");
                failure = Some(unknown.into());
                continue;
            }
        };
        if classed.target == StorageClass::Archive && !store.capabilities().storage_classes {
            continue;
        }
        // After a failure, continue past the limit: the next attempt is delayed and starts with the blob that
        // failed.
        if moved == BLOBS_PER_JOB && failure.is_none() {
            is_incomplete = true;
            break;
        }
        match move_blob(app, &classed, store.as_ref()).await {
            Ok(RelocationOutcome::Moved) => moved += 1,
            Ok(RelocationOutcome::Superseded) => {
                tracing::info!(%tenant, %key, "blob was purged, moved or given another target class during its move");
                // It may be in the wrong class at its new location too.
                is_incomplete = true;
            }
            Err(error) => {
                tracing::info!(%tenant, %key, %error, "failed to move blob to its storage class");
                failure = Some(error);
            }
        }
    }
    match failure {
        Some(error) => Err(error),
        None if is_incomplete => enqueue_again(app, tenant, file).await,
        None => Ok(()),
    }
}

/// Enqueues a job for the remaining blobs, so that others are served first.
async fn enqueue_again(app: &App, tenant: TenantId, file: FileId) -> Result<(), Error> {
    let mut tx = app.db.tenant_tx(tenant, &Viewer::system()).await?;
    let enqueued = enqueue_job(app, &mut tx, file).await;
    Ok(tx.finish(enqueued).await?)
}

async fn move_blob(
    app: &App,
    classed: &ClassedBlob,
    store: &dyn ObjectStorage,
) -> Result<RelocationOutcome, Error> {
    let relocation = Relocation::by(app);
    let ClassedBlob { movable, target: target_class } = classed;
    let owned = &movable.tenant_blob;
    // A store may copy large objects in parts.
    let target = relocation.reserve_target(owned, store, true).await?;
    let options = PutOptions::for_blob(owned.tenant, movable.created_by.as_deref()).with_class(*target_class);
    let copied = async {
        let options = with_label_of(store, &owned.blob, options).await?;
        copy_in_store(store, &owned.blob, &target.key, &options).await
    };
    let copied = Box::pin(hold_reservation(&app.db, &target, copied)).await;
    relocation.finish(owned, &target, TargetClass::Requested(*target_class), copied).await
}

/// Copies an object inside the store, then reads it back and verifies it.
async fn copy_in_store(
    store: &dyn ObjectStorage,
    blob: &Blob,
    key: &ObjectKey,
    options: &PutOptions,
) -> Result<(), Error> {
    let copy = store.copy(&blob.key, key, options).await?;
    if copy.size_bytes != blob.size_bytes {
        return Err(Error::ObjectDamaged);
    }
    verify_object(store, key, blob).await
}
