//! Removes a file for good, with its versions and, after the undelete window of the store, its bytes.

use super::{Changed, Claimed, FileChange, claim, conclude, settlement::Settlement};
use crate::{
    app::{App, Error, audit},
    db::{
        TenantTx, Viewer, attachments,
        audit_entries::{self, AuditAction},
        download_counts,
        events::{self, Event, EventKind},
        file_readers, file_tags, files,
        idempotency_keys::Method,
        tombstones, versions,
    },
    domain::{caller::Caller, file::File},
};

/// Removes a file for good, whether or not it is in the trash. A tombstone stays.
///
/// # Errors
/// `NotFound`, `NotAllowed`, `FileRetained`, `EtagMismatch`.
pub async fn purge(app: &App, caller: &Caller, change: FileChange) -> Result<Changed<()>, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let purged = run(app, &mut tx, caller, &change).await;
    super::recorded(app, caller, AuditAction::FilePurge, change.file, tx.finish(purged).await).await
}

async fn run(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    change: &FileChange,
) -> Result<Changed<()>, Error> {
    let (file, attempt) = match claim(app, tx, caller, change, Method::PurgeFile).await? {
        Claimed::Answered(answer) => return Ok(answer),
        Claimed::Ours(file, attempt) => (*file, attempt),
    };
    remove(app, tx, caller, file).await?;
    conclude(tx, attempt, ()).await
}

/// Whether nothing says that the file's bytes must be kept, by the database's clock.
pub(super) async fn check_kept(tx: &mut TenantTx, file: &File) -> Result<(), Error> {
    let now = tx.now().await?;
    if file.must_be_kept(now) {
        let until = file.retain_until_time.filter(|until| now < *until);
        return Err(Error::FileRetained { until, hold: file.hold.clone() });
    }
    Ok(())
}

/// Removes a locked file and all that hangs on it.
pub(super) async fn remove(app: &App, tx: &mut TenantTx, caller: &Caller, file: File) -> Result<(), Error> {
    let mut settlement = Settlement::default();
    take_apart(app, tx, caller, &file, &mut settlement).await?;
    settlement.apply(app, tx).await
}

/// The same, up to what it gives back.
pub(super) async fn take_apart(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    file: &File,
    settlement: &mut Settlement,
) -> Result<(), Error> {
    check_kept(tx, file).await?;
    let actor_id = &caller.actor.id;
    let tombstone_days = u32::try_from(app.limits.retention.tombstone_days).unwrap_or(u32::MAX);
    tombstones::insert(tx, file, actor_id, tombstone_days).await?;
    let removed = versions::delete(tx, file.id).await?;
    settlement.let_go(removed.blobs);
    download_counts::delete(tx, file.id).await?;
    file_tags::delete(tx, file.id).await?;
    attachments::delete(tx, file.id).await?;
    let readers = file_readers::delete(tx, file.id).await?;
    files::delete(tx, file.id).await?;

    let mut entry = audit::entry(caller, AuditAction::FilePurge, Some((file.id, file.version)));
    entry.details = serde_json::json!({ "size_bytes": file.size_bytes, "sha256": file.sha256 });
    audit_entries::insert(tx, &[entry]).await?;
    let purged = Event::of(EventKind::FilePurged, file, actor_id).taken_from(readers);
    events::insert(tx, &[purged]).await?;
    let was_charged = file.trash.is_none() || caller.tenant.policy.trash.counts_against_quota;
    if was_charged {
        settlement.release(file, &removed.charge);
    }
    Ok(())
}
