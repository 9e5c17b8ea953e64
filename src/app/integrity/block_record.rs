//! Corrects the recorded checksums of the blocks of a blob. The whole object was read and matches its SHA-256, so the
//! checksums that were computed from the same bytes are right.

use super::damage::DamageRecorder;
use crate::{
    app::Error,
    db::{Database, DbError, TenantTx, Viewer, blob_checksums, blobs::Blob},
    domain::{block_checksums::BlockChecksums, ids::TenantId},
};

/// A change of the recorded checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChecksumChange {
    None,
    /// They were missing.
    Recorded,
    /// They were wrong.
    Replaced,
}

/// Compares the checksums of the blocks of an intact object with the recorded ones. Records missing ones, and replaces
/// wrong ones: they would make the file unreadable. `found` is `None` if the object has at most one block.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable.
pub(in crate::app) async fn correct_block_checksums(
    recorder: DamageRecorder<'_>,
    tenant: TenantId,
    blob: &Blob,
    found: Option<&BlockChecksums>,
) -> Result<(), Error> {
    if record_checksums(recorder.db, tenant, blob, found).await? == ChecksumChange::Replaced {
        recorder.metrics.count_replaced_checksums(&blob.provider);
        tracing::error!(
            %tenant, provider = blob.provider, key = %blob.key,
            "replaced wrong block checksums of an intact object; their row in the database was damaged"
        );
    }
    Ok(())
}

async fn record_checksums(
    db: &Database,
    tenant: TenantId,
    blob: &Blob,
    found: Option<&BlockChecksums>,
) -> Result<ChecksumChange, DbError> {
    let mut tx = db.tenant_tx(tenant, &Viewer::system()).await?;
    let changed = record_checksums_in(&mut tx, blob, found).await;
    tx.finish(changed).await
}

async fn record_checksums_in(
    tx: &mut TenantTx,
    blob: &Blob,
    found: Option<&BlockChecksums>,
) -> Result<ChecksumChange, DbError> {
    if blob_checksums::get_all(tx, blob.id).await?.as_ref() == found {
        return Ok(ChecksumChange::None);
    }
    // Another process may have changed them, or deleted the blob.
    if !blob_checksums::lock_blob(tx, blob.id).await? {
        return Ok(ChecksumChange::None);
    }
    let recorded = blob_checksums::get_all(tx, blob.id).await?;
    if recorded.as_ref() == found {
        return Ok(ChecksumChange::None);
    }
    if recorded.is_some() {
        blob_checksums::delete(tx, blob.id).await?;
    }
    if let Some(found) = found {
        blob_checksums::insert(tx, blob.id, found).await?;
    }
    Ok(if recorded.is_some() { ChecksumChange::Replaced } else { ChecksumChange::Recorded })
}
