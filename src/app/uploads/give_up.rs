//! The end of an upload that will not become a file: its reservation is given back, exactly once, and its bytes go.

use crate::{
    app::{App, Error},
    db::{
        TenantTx, Viewer, blobs,
        quotas::{self, QuotaDelta},
        resumable_uploads::StoredUpload,
        uploads::{self, UploadLease},
    },
    domain::{ids::TenantId, object_key::ObjectKey, upload::UploadState},
    storage::{MultipartId, ObjectStorage},
};

/// What an upload leaves that will not become a file.
pub(super) struct Left<'a> {
    pub(super) tenant: TenantId,
    pub(super) lease: UploadLease,
    pub(super) key: &'a ObjectKey,
    pub(super) multipart: Option<&'a MultipartId>,
    /// Where a direct upload of one piece went.
    pub(super) staging_key: Option<&'a ObjectKey>,
    /// Whether its row is known to have been there.
    pub(super) is_recorded: bool,
    /// Given up because its lease ran out: one that was renewed meanwhile goes on.
    pub(super) is_expired: bool,
}

impl<'a> Left<'a> {
    /// Of an upload that was created before its bytes, and that is ours.
    pub(super) fn of(tenant: TenantId, stored: &'a StoredUpload, multipart: &'a MultipartId) -> Self {
        Self {
            tenant,
            lease: stored.lease,
            key: &stored.key,
            multipart: stored.staging_key.is_none().then_some(multipart),
            staging_key: stored.staging_key.as_ref(),
            is_recorded: true,
            is_expired: false,
        }
    }
}

/// Ends an upload that will not become a file: first its reservation, so that nobody can commit it any more, then its
/// bytes, then its row. What fails leaves the row behind, to be found when the lease has run out. An upload that was
/// committed is left alone; answers whether this one was not.
pub(super) async fn give_up(app: &App, store: &dyn ObjectStorage, left: Left<'_>) -> Result<bool, Error> {
    let mut tx = app.db.tenant_tx(left.tenant, &Viewer::system()).await?;
    let released = release(&mut tx, &left).await;
    if !tx.finish(released).await? {
        return Ok(false);
    }
    clear(app, store, &left).await?;
    Ok(true)
}

/// Removes the bytes of an upload that was released, then its row. What fails is found when its lease has run out.
pub(super) async fn clear(app: &App, store: &dyn ObjectStorage, left: &Left<'_>) -> Result<(), Error> {
    if let Some(multipart) = left.multipart {
        store.abort_multipart(left.key, multipart).await?;
    }
    for key in [Some(left.key), left.staging_key].into_iter().flatten() {
        store.delete(key).await?;
    }
    let mut tx = app.db.system_tx().await?;
    uploads::delete_aborted(&mut tx, left.tenant, left.lease.id).await?;
    Ok(tx.commit().await?)
}

/// Gives the reservation back, unless that was done before; answers whether the bytes are nobody's now.
pub(super) async fn release(tx: &mut TenantTx, left: &Left<'_>) -> Result<bool, Error> {
    let aborted = match left.is_expired {
        true => uploads::abort_expired(tx, left.lease).await?,
        false => uploads::abort(tx, left.lease).await?,
    };
    if let Some(reserved) = aborted {
        let delta = QuotaDelta {
            reserved_bytes: -reserved.bytes,
            reserved_file_count: -reserved.files,
            ..QuotaDelta::default()
        };
        quotas::apply(tx, delta).await?;
    }
    let is_nobodys = match uploads::state(tx, left.lease.id).await? {
        Some(state) => state == UploadState::Aborted,
        // It never came to be; or it was committed, and its row was forgotten since.
        None => !left.is_recorded,
    };
    // Whatever the upload's row says: what a blob refers to stays.
    Ok(is_nobodys && !blobs::has_key(tx, left.key).await?)
}
