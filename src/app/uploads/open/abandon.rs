//! Abandons an upload: releases its reservation, exactly once, and deletes its bytes.

use super::super::admit::Target;
use crate::{
    admission::Holder,
    app::{
        App, Error, Resource, audit,
        owner::{
            StoreRefusal,
            delete::{Deletion, delete_from_store},
        },
        quotas::charge::release,
    },
    db::{
        TenantTx, Viewer,
        audit_entries::AuditAction,
        blobs, quarantined_objects,
        quotas::QuotaDelta,
        resumable_uploads::{self, StoredUpload, UploadedBytes},
        uploads::{self, UploadLease},
    },
    domain::{
        caller::Caller,
        ids::{TenantId, UploadId},
        object_key::ObjectKey,
        upload::UploadState,
        upload_destination::{Destination, NewVersion},
    },
    storage::{MultipartId, ObjectStorage, StorageError},
};

/// An upload to abandon.
pub(in crate::app::uploads) struct AbandonedUpload<'a> {
    pub(in crate::app::uploads) tenant: TenantId,
    pub(in crate::app::uploads) lease: UploadLease,
    pub(in crate::app::uploads) key: &'a ObjectKey,
    pub(in crate::app::uploads) multipart: Option<MultipartId>,
    /// The staging key of a single-part direct upload.
    pub(in crate::app::uploads) staging_key: Option<&'a ObjectKey>,
    /// Whether the upload's row is known to have been committed.
    pub(in crate::app::uploads) is_recorded: bool,
    /// Whether the upload is abandoned because its lease expired. If the lease was renewed in the meantime,
    /// the upload stays open.
    pub(in crate::app::uploads) is_expired: bool,
}

impl<'a> AbandonedUpload<'a> {
    /// Describes a stored upload whose lease this process holds.
    pub(in crate::app::uploads) fn from_stored(tenant: TenantId, stored: &'a StoredUpload) -> Self {
        let (multipart, staging_key) = match &stored.bytes {
            UploadedBytes::Multipart(id) => (Some(MultipartId::new(id.as_str())), None),
            UploadedBytes::Staged(key) => (None, Some(key)),
        };
        Self {
            tenant,
            lease: stored.lease,
            key: &stored.key,
            multipart,
            staging_key,
            is_recorded: true,
            is_expired: false,
        }
    }
}

/// Abandons an upload: first releases its reservation, so that it can no longer be committed, then deletes
/// its bytes, then its row. If a step fails, the row remains and is processed again when the lease has
/// expired.
///
/// Returns `false`, without a change, if the upload was committed, and also if its bytes and its row remain
/// because deletions are disabled or wait.
pub(in crate::app::uploads) async fn abandon_upload(
    app: &App,
    store: &dyn ObjectStorage,
    upload: AbandonedUpload<'_>,
) -> Result<bool, Error> {
    app.owners.check_known(store.provider())?;
    let mut tx = app.db.tenant_tx(upload.tenant, &Viewer::system()).await?;
    let released = release_reservation(&mut tx, &upload).await;
    if !tx.finish(released).await? {
        return Ok(false);
    }
    delete_leftovers(app, store, &upload).await
}

/// Abandons the open upload of a version if its file is gone or hidden, or if the caller may no longer change it:
/// it can never become a version. A denial is recorded in the audit log. Passes other outcomes through.
pub(in crate::app::uploads) async fn abandon_if_refused<T>(
    app: &App,
    caller: &Caller,
    upload: UploadId,
    outcome: Result<T, Error>,
) -> Result<T, Error> {
    let Err(error @ (Error::NotAllowed(_) | Error::NotFound(Resource::File))) = outcome else {
        return outcome;
    };
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let stored = resumable_uploads::get(&mut tx, upload).await;
    let stored = tx.finish(stored).await?.filter(|stored| stored.upload.created_by == caller.actor.id);
    let Some(stored) = stored else { return Err(error) };
    let target = Target::from_stored(app, caller, &stored)?;
    let abandoned = AbandonedUpload::from_stored(caller.tenant_id(), &stored);
    if let Err(error) = abandon_upload(app, target.store.as_ref(), abandoned).await {
        tracing::warn!(%upload, %error, "failed to abandon upload");
    }
    match (&error, &stored.spec.checked.destination) {
        (Error::NotAllowed(_), Destination::NewVersion(NewVersion { file, .. })) => {
            Err(audit::record_denial(app, caller, AuditAction::FileUpload, Some(*file), error).await)
        }
        _ => Err(error),
    }
}

/// Deletes the bytes of an upload whose reservation was released, then its row. If a step fails, the row
/// remains and is processed again when the lease has expired. Returns false if bytes and row remain because
/// deletions are disabled or wait.
pub(in crate::app::uploads) async fn delete_leftovers(
    app: &App,
    store: &dyn ObjectStorage,
    upload: &AbandonedUpload<'_>,
) -> Result<bool, Error> {
    match delete_bytes(store, upload).await {
        Err(error) if StoreRefusal::is_temporary(&error) => {
            tracing::debug!(upload = %upload.lease.id, %error, "bytes of an abandoned upload remain");
            return Ok(false);
        }
        deleted => deleted?,
    }
    let mut tx = app.db.system_tx_for(Holder::of_tenant(upload.tenant)).await?;
    uploads::delete_abandoned(&mut tx, upload.tenant, upload.lease.id).await?;
    tx.commit().await?;
    Ok(true)
}

async fn delete_bytes(store: &dyn ObjectStorage, upload: &AbandonedUpload<'_>) -> Result<(), StorageError> {
    if let Some(multipart) = &upload.multipart {
        delete_from_store(store, Deletion::Multipart(upload.key, multipart)).await?;
    }
    for key in [Some(upload.key), upload.staging_key].into_iter().flatten() {
        delete_from_store(store, Deletion::Object(key)).await?;
    }
    Ok(())
}

/// Releases the reservation unless it was released before. Returns whether the bytes may be deleted.
pub(in crate::app::uploads) async fn release_reservation(
    tx: &mut TenantTx,
    upload: &AbandonedUpload<'_>,
) -> Result<bool, Error> {
    let reservation = match upload.is_expired {
        true => uploads::abandon_expired(tx, upload.lease).await?,
        false => uploads::abandon(tx, upload.lease).await?,
    };
    if let Some(reserved) = reservation {
        let delta = QuotaDelta {
            reserved_bytes: -reserved.bytes,
            reserved_file_count: -reserved.file_count(),
            ..QuotaDelta::default()
        };
        release(tx, reserved.owner_id.as_deref(), delta).await?;
    }
    let is_unowned = match uploads::get_state(tx, upload.lease.id).await? {
        Some(state) => state == UploadState::Abandoned,
        // Either the row was never committed, or the upload was committed and its row was deleted since.
        None => !upload.is_recorded,
    };
    // Keep an object that a blob references or that is quarantined, regardless of the state of the upload.
    Ok(is_unowned
        && !blobs::has_key(tx, upload.key).await?
        && !quarantined_objects::has_key(tx, upload.key).await?)
}
