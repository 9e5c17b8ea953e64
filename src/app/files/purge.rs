//! Purges a file: deletes its record and versions permanently, and its bytes after the blob deletion delay.

use super::{
    FileChange, MutationResponse, MutationStart, begin_mutation, finish_mutation,
    pending_release::PendingRelease,
};
use crate::{
    app::{App, Error, audit},
    db::{
        TenantTx, Viewer, attachments,
        audit_entries::{self, AuditAction},
        download_counts, erasures,
        events::{self, Event},
        file_grants, file_tags, files,
        idempotency_keys::Method,
        shares, tombstones, versions,
    },
    domain::{caller::Caller, erasure::Erasure, file::File},
};

/// Purges a file, whether or not it is in the trash. Leaves a tombstone.
///
/// # Errors
/// Returns `NotFound`, `NotAllowed`, `FileRetained` or `EtagMismatch`.
pub async fn purge_file(
    app: &App,
    caller: &Caller,
    change: FileChange,
) -> Result<MutationResponse<()>, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let purged = purge_in_tx(app, &mut tx, caller, &change).await;
    super::record_if_denied(app, caller, AuditAction::FilePurge, change.file, tx.finish(purged).await).await
}

async fn purge_in_tx(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    change: &FileChange,
) -> Result<MutationResponse<()>, Error> {
    let (file, attempt) = match begin_mutation(app, tx, caller, change, Method::PurgeFile).await? {
        MutationStart::Replay(response) => return Ok(response),
        MutationStart::Locked(file, attempt) => (*file, attempt),
    };
    purge_locked(app, tx, caller, file).await?;
    finish_mutation(tx, attempt, ()).await
}

/// Checks that neither retention nor a legal hold prevents the deletion of the file's bytes, by the
/// database's clock.
///
/// # Errors
/// Returns `FileRetained` if one does.
pub(super) async fn check_retention(tx: &mut TenantTx, file: &File) -> Result<(), Error> {
    let now = tx.now().await?;
    if file.is_protected(now) {
        let until = file.retain_until_time.filter(|until| now < *until);
        return Err(Error::FileRetained { until, hold: file.hold.clone() });
    }
    Ok(())
}

/// Checks that a locked file may be purged. Returns the approved erasure that overrides its retention, if that is
/// why. An erasure overrides no legal hold.
async fn check_purge(tx: &mut TenantTx, file: &File) -> Result<Option<Erasure>, Error> {
    match check_retention(tx, file).await {
        Err(Error::FileRetained { until, hold: None }) => match erasures::mark_used(tx, Some(file.id)).await?
        {
            Some(erasure) => Ok(Some(erasure)),
            None => Err(Error::FileRetained { until, hold: None }),
        },
        checked => checked.map(|()| None),
    }
}

/// Purges a locked file, and releases its blobs and quota.
pub(super) async fn purge_locked(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    file: File,
) -> Result<(), Error> {
    let mut release = PendingRelease::default();
    delete_rows(app, tx, caller, &file, &mut release).await?;
    release.apply(app, tx).await
}

/// Deletes the rows of a locked file. Adds its blobs and quota to `release`, which the caller applies.
pub(super) async fn delete_rows(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    file: &File,
    release: &mut PendingRelease,
) -> Result<(), Error> {
    let erasure = check_purge(tx, file).await?;
    let actor_id = &caller.actor.id;
    let tombstone_days = u32::try_from(app.limits.retention.tombstone_days).unwrap_or(u32::MAX);
    tombstones::insert(tx, file, actor_id, tombstone_days).await?;
    let removed = versions::delete(tx, file.id).await?;
    release.release_blobs(removed.blobs);
    download_counts::delete(tx, file.id).await?;
    file_tags::delete(tx, file.id).await?;
    attachments::delete(tx, file.id).await?;
    shares::delete_of_file(tx, file.id).await?;
    file_grants::delete_all(tx, file.id).await?;
    let readers = files::delete(tx, file.id).await?;

    let mut entry = audit::new_entry(caller, AuditAction::FilePurge).for_version(file.id, file.version);
    entry.details = serde_json::json!({ "size_bytes": file.size_bytes, "sha256": file.sha256 });
    if let Some(erasure) = erasure {
        entry.details["erasure"] = erasure.audit_details();
    }
    audit_entries::insert(tx, &[entry]).await?;
    let purged = Event::for_purge(file, actor_id).with_removed_readers(readers);
    events::insert(tx, &[purged]).await?;
    let was_charged = file.trash.is_none() || caller.tenant.policy.trash.counts_against_quota;
    if was_charged {
        release.release_quota(file, &removed.charge);
    }
    Ok(())
}
