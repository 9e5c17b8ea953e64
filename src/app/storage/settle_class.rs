//! Brings the bytes of a file to the class of storage that they are to have: that of the archive when every file that stands on
//! them is archived, and otherwise the one of everything.
//!
//! Archiving a file and taking it out ask for a job, in their transaction. The job does not know which of the two it was: it
//! looks at the files when it runs and once more when it points a row to its new object, so that of any number of changes the
//! last one counts. A copy inside the store, read back and compared, takes the place of the original as `relocation` has it; a
//! download that has the original open reads on.
//!
//! A blob on which other files stand as well (a copy, a restored version) waits in its class until all of them are archived.
//! Nothing asks anew when the last one that is not goes: the next archiving brings it along. A blob whose bytes were not verified
//! yet stays too.

use super::relocation::{Class, Outcome, Relocation, read_back};
use crate::{
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
    jobs::{self, Job, Unless},
    storage::{ObjectStorage, PutOptions},
};

/// How many blobs a job moves before others have their turn.
const BLOBS_PER_JOB: usize = 20;

/// Asks for the job of a file, where any of its bytes are with a provider that has classes, or are in one.
pub(in crate::app) async fn ask(app: &App, tx: &mut TenantTx, file: FileId) -> Result<(), DbError> {
    let has_classes =
        |provider: &str| app.stores.of(provider).is_ok_and(|store| store.capabilities().storage_classes);
    let places = storage_classes::places(tx, file).await?;
    if places.iter().any(|place| place.has_archived || has_classes(&place.provider)) {
        enqueue(app, tx, file).await?;
    }
    Ok(())
}

/// One that is asked for while it runs is run once more: it may have looked before.
async fn enqueue(app: &App, tx: &mut TenantTx, file: FileId) -> Result<(), DbError> {
    let key = format!("storage class of {file}");
    jobs::enqueue(tx, app.ids.as_ref(), &Job::SettleStorageClass { file }, Unless::Queued(&key)).await
}

/// Moves the bytes of a file that are in another class than they are to be; a file that is gone has none. Blobs that fail do
/// not keep back the others.
///
/// # Errors
/// When store or database do not answer, or a copy is not what the row says: the job is tried again.
pub async fn settle_class(app: &App, tenant: TenantId, file: FileId) -> Result<(), Error> {
    let mut tx = app.db.system_tx().await?;
    let held = storage_classes::of_file(&mut tx, tenant, file).await?;
    tx.commit().await?;
    let unsettled = held.into_iter().filter(|classed| classed.movable.owned.blob.class != classed.wanted);
    let (mut moved, mut is_unsettled, mut failed) = (0, false, None);
    for classed in unsettled {
        let key = classed.movable.owned.blob.key.clone();
        let store = match app.stores.of(&classed.movable.owned.blob.provider) {
            Ok(store) => store.as_ref(),
            Err(unknown) => {
                tracing::info!(%tenant, %key, error = %unknown, "move blob to its storage class");
                failed = Some(unknown.into());
                continue;
            }
        };
        if classed.wanted == StorageClass::Archive && !store.capabilities().storage_classes {
            continue;
        }
        // Once one has failed, the rest is not left to the next attempt: that is far, and it begins with what failed.
        if moved == BLOBS_PER_JOB && failed.is_none() {
            is_unsettled = true;
            break;
        }
        match settle(app, &classed, store).await {
            Ok(Outcome::Moved) => moved += 1,
            Ok(Outcome::Overtaken) => {
                tracing::info!(%tenant, %key, "a blob was purged, moved or wanted otherwise meanwhile");
                // Where it is now, it may be in the wrong class as well.
                is_unsettled = true;
            }
            Err(error) => {
                tracing::info!(%tenant, %key, %error, "move blob to its storage class");
                failed = Some(error);
            }
        }
    }
    match failed {
        Some(error) => Err(error),
        None if is_unsettled => ask_again(app, tenant, file).await,
        None => Ok(()),
    }
}

/// For the rest, when others have had their turn.
async fn ask_again(app: &App, tenant: TenantId, file: FileId) -> Result<(), Error> {
    let mut tx = app.db.tenant_tx(tenant, &Viewer::system()).await?;
    let asked = enqueue(app, &mut tx, file).await;
    Ok(tx.finish(asked).await?)
}

async fn settle(app: &App, classed: &ClassedBlob, store: &dyn ObjectStorage) -> Result<Outcome, Error> {
    let relocation = Relocation {
        db: &app.db,
        clock: app.clock.as_ref(),
        ids: app.ids.as_ref(),
        undelete_window_hours: u32::try_from(app.limits.retention.undelete_window_hours).unwrap_or(u32::MAX),
    };
    let ClassedBlob { movable, wanted } = classed;
    let owned = &movable.owned;
    // A store may copy large objects in parts.
    let target = relocation.begin(owned, store, true).await?;
    let options = PutOptions::of_blob(owned.tenant, movable.created_by.as_deref()).in_class(*wanted);
    let made = copy(store, &owned.blob, &target.key, &options).await;
    relocation.conclude(owned, &target, Class::Wanted(*wanted), made).await
}

/// Copies inside the store. What came of it is read once before anybody relies on it.
async fn copy(
    store: &dyn ObjectStorage,
    blob: &Blob,
    key: &ObjectKey,
    options: &PutOptions,
) -> Result<(), Error> {
    let made = store.copy(&blob.key, key, options).await?;
    if made.size_bytes != blob.size_bytes {
        return Err(Error::ObjectDamaged);
    }
    read_back(store, key, blob).await
}
