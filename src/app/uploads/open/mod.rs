//! An upload that holds a reservation and an unfinished multipart upload in the store. However the request
//! ends, both are either turned into a file or released, exactly once. A resumable upload is released when it
//! is cancelled or its lease expires; a single-stream upload is released when its stream ends.
//!
//! `record` inserts the row of an upload that is created before its bytes, `abandon` ends an upload that does not
//! become a file, and `multipart` handles a multipart upload that the store lost. A small file is never opened.

pub(super) mod abandon;
pub(super) mod multipart;
pub(super) mod record;

use std::sync::Arc;

use tokio::time::Instant;
use tracing::Instrument as _;

use self::{
    abandon::{AbandonedUpload, abandon_upload},
    multipart::OpenMultipart,
};
use super::{
    admit::{Target, stream_layout},
    error::count_refusal,
};
use crate::{
    app::{
        App, Error,
        owner::delete::{Deletion, delete_from_store},
        quotas::charge::charge_users,
        uploads::UploadError,
    },
    db::{
        TenantTx, Viewer,
        quotas::{self, ChargeOutcome, QuotaDelta, UserDelta},
        resumable_uploads::{StoredUpload, UploadedBytes},
        uploads::{self, NewUpload, ResumableFields, UploadLease},
    },
    domain::{caller::Caller, first_call::FirstCallWork, ids::UploadId},
    storage::{MultipartId, PartLayout},
};

/// An open upload. Dropping it abandons the upload in a task that outlives the request, unless it is
/// resumable or disarmed.
pub(super) struct OpenUpload {
    app: Arc<App>,
    /// Until the upload is abandoned, the tenant is not removed.
    first_call: Option<FirstCallWork>,
    multipart: OpenMultipart,
    reserved_bytes: u64,
    renew_time: Instant,
    state: OpenState,
}

/// The state of an open upload, which determines what dropping it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OpenState {
    /// The row may not exist. Dropping the upload aborts the multipart upload and abandons the row, if any.
    Unrecorded,
    /// The row exists. Dropping the upload abandons it.
    Recorded,
    /// The row exists, and the upload outlives its stream. Dropping it keeps everything.
    Resumable,
    /// The upload became a file, or stays open to be resumed. Dropping it keeps everything.
    Disarmed,
}

impl OpenUpload {
    /// Reserves exactly `bytes` of the quota and starts the multipart upload in the store.
    ///
    /// Runs in a separate task: if the client disconnects while the reservation is being committed, cleanup
    /// must not run before the row exists.
    pub(super) async fn open(
        app: &Arc<App>,
        caller: &Caller,
        target: Target,
        bytes: u64,
    ) -> Result<Box<Self>, Error> {
        let (app, caller) = (Arc::clone(app), caller.clone());
        let tasks = app.tasks.clone();
        let opening = async move { Self::open_in_task(&app, &caller, target, bytes).await.map(Box::new) };
        tasks.spawn(opening.in_current_span()).await.map_err(Error::internal)?
    }

    async fn open_in_task(
        app: &Arc<App>,
        caller: &Caller,
        mut target: Target,
        bytes: u64,
    ) -> Result<Self, Error> {
        target.options.equal_parts = stream_layout(app).equal_parts();
        let mut open = Self::start(app, caller, target, bytes).await?;
        let upload = open.to_row(caller, None);
        let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::system()).await?;
        let reserved = insert_upload(&mut tx, &upload).await;
        tx.finish(reserved).await.inspect_err(|error| count_refusal(&app.metrics, error))?;
        open.state = OpenState::Recorded;
        Ok(open)
    }

    /// Starts the multipart upload of an upload that has no row yet. Dropping the result cleans up, unless
    /// [`disarm`](Self::disarm) is called.
    pub(super) async fn start(
        app: &Arc<App>,
        caller: &Caller,
        target: Target,
        bytes: u64,
    ) -> Result<Self, Error> {
        let part_size_bytes = app.limits.uploads.part_size_bytes as u64;
        let id = target.store.start_multipart(&target.key, part_size_bytes, &target.options).await?;
        let multipart = OpenMultipart {
            tenant: caller.tenant_id(),
            lease: UploadLease::first(UploadId::from_uuid(app.ids.uuid())),
            layout: target.options.layout(part_size_bytes),
            target,
            id,
            is_resumable: false,
        };
        Ok(Self {
            app: Arc::clone(app),
            first_call: caller.first_call.clone(),
            multipart,
            reserved_bytes: bytes,
            renew_time: Instant::now(),
            state: OpenState::Unrecorded,
        })
    }

    /// Returns the row to insert for this upload.
    pub(super) fn to_row(&self, caller: &Caller, resumable: Option<ResumableFields>) -> NewUpload {
        let OpenMultipart { lease, target, id, .. } = &self.multipart;
        NewUpload {
            id: lease.id,
            blob_id: target.blob_id,
            provider: target.store.provider().to_owned(),
            key: target.key.clone(),
            multipart_id: Some(id.as_str().to_owned()),
            reserved_bytes: to_i64(self.reserved_bytes),
            destination: target.destination,
            lease_seconds: lease_seconds(&self.app),
            created_by: caller.actor.id.clone(),
            owner: target.owner.clone(),
            is_direct: false,
            staging_key: None,
            resumable,
        }
    }

    /// Opens a stored upload whose lease was taken over.
    pub(super) fn from_stored(
        app: &Arc<App>,
        caller: &Caller,
        stored: &StoredUpload,
    ) -> Result<Box<Self>, Error> {
        let UploadedBytes::Multipart(multipart_id) = &stored.bytes else {
            return Err(Error::internal("staged upload cannot be resumed by a stream"));
        };
        let multipart = OpenMultipart {
            tenant: caller.tenant_id(),
            lease: stored.lease,
            target: Target::from_stored(app, caller, stored)?,
            id: MultipartId::new(multipart_id.as_str()),
            layout: PartLayout::equal(stored.upload.part_size_bytes),
            is_resumable: true,
        };
        Ok(Box::new(Self {
            app: Arc::clone(app),
            first_call: caller.first_call.clone(),
            multipart,
            reserved_bytes: stored.reserved_bytes,
            renew_time: Instant::now(),
            state: OpenState::Resumable,
        }))
    }

    pub(super) fn layout(&self) -> PartLayout {
        self.multipart.layout
    }

    /// Whether the upload outlives its stream.
    pub(super) fn is_resumable(&self) -> bool {
        self.state == OpenState::Resumable
    }

    pub(super) fn target(&self) -> &Target {
        &self.multipart.target
    }

    pub(super) fn multipart(&self) -> &OpenMultipart {
        &self.multipart
    }

    pub(super) fn lease(&self) -> UploadLease {
        self.multipart.lease
    }

    /// Ensures that at least `bytes` are reserved before they are accepted.
    ///
    /// Reserves ahead in steps. If a step exceeds the quota, reserves exactly the missing bytes, so that a
    /// file that fits is never rejected. Also renews the lease of a single-stream upload from time to time; that
    /// of a resumable upload is renewed by its recorded parts, because its client may send the same bytes again
    /// and again.
    pub(super) async fn reserve_at_least(&mut self, bytes: u64) -> Result<(), Error> {
        if bytes <= self.reserved_bytes {
            return self.renew_lease().await;
        }
        let needed = bytes - self.reserved_bytes;
        let step = needed.max(self.app.limits.uploads.reservation_step_bytes);
        let mut tx = self.app.db.tenant_tx(self.multipart.tenant, &Viewer::system()).await?;
        let added = grow_reservation(&mut tx, self.lease(), step, needed).await;
        let added = tx.finish(added).await;
        self.reserved_bytes += added.inspect_err(|error| count_refusal(&self.app.metrics, error))?;
        self.renew_lease().await
    }

    /// Renews the lease at most three times per lease duration: recording every byte would cost too much.
    async fn renew_lease(&mut self) -> Result<(), Error> {
        if self.is_resumable() || self.renew_time.elapsed() < self.app.limits.uploads.lease_duration() / 3 {
            return Ok(());
        }
        let mut tx = self.app.db.tenant_tx(self.multipart.tenant, &Viewer::system()).await?;
        let renewed = uploads::renew_lease(&mut tx, self.lease(), lease_seconds(&self.app)).await;
        if !tx.finish(renewed).await? {
            return Err(UploadError::Fenced.into());
        }
        self.renew_time = Instant::now();
        Ok(())
    }

    /// Keeps the reservation and the object when this value is dropped: the upload became a file, or stays
    /// open to be resumed.
    pub(super) fn disarm(mut self) {
        self.state = OpenState::Disarmed;
    }

    /// Abandons the upload, even if it is resumable: it can never become a file.
    pub(super) fn abandon(mut self) {
        if self.state == OpenState::Resumable {
            self.state = OpenState::Recorded;
        }
    }
}

impl Drop for OpenUpload {
    fn drop(&mut self) {
        let is_recorded = match self.state {
            OpenState::Resumable | OpenState::Disarmed => return,
            OpenState::Recorded => true,
            OpenState::Unrecorded => false,
        };
        let app = Arc::clone(&self.app);
        let OpenMultipart { tenant, lease, target, id: multipart, .. } = self.multipart.clone();
        let (tasks, first_call) = (app.tasks.clone(), self.first_call.take());
        tasks.spawn(async move {
            let _first_call = first_call;
            let Target { store, key, .. } = target;
            // The row may never have been committed. Then nothing else references the multipart upload, so
            // abort it here. It cannot become a file in either case.
            let deletion = Deletion::Multipart(&key, &multipart);
            if !is_recorded && let Err(error) = delete_from_store(store.as_ref(), deletion).await {
                tracing::warn!(%tenant, %key, %error, "failed to abort multipart upload");
            }
            // If this fails, the row remains and `expire_uploads` tries again when the lease has expired.
            let abandoned = AbandonedUpload {
                tenant,
                lease,
                key: &key,
                multipart: Some(multipart),
                staging_key: None,
                is_recorded,
                is_expired: false,
            };
            if let Err(error) = abandon_upload(&app, store.as_ref(), abandoned).await {
                tracing::warn!(%tenant, upload = %lease.id, %key, %error, "failed to abandon upload");
            }
        });
    }
}

/// Returns the lease duration of an upload in seconds.
pub(super) fn lease_seconds(app: &App) -> u32 {
    u32::try_from(app.limits.uploads.lease_seconds).unwrap_or(u32::MAX)
}

/// Inserts the row of a new upload and reserves its bytes.
pub(super) async fn insert_upload(tx: &mut TenantTx, upload: &NewUpload) -> Result<(), Error> {
    let delta = QuotaDelta {
        reserved_bytes: upload.reserved_bytes,
        reserved_file_count: upload.destination.file_count(),
        ..QuotaDelta::default()
    };
    let owner_id = uploads::insert(tx, upload).await?;
    let users: Vec<UserDelta> = owner_id.iter().map(|owner_id| UserDelta::new(owner_id, delta)).collect();
    charge_users(tx, delta, &users).await.map(|_| ())
}

/// Updates the upload's row before the quota's, which is also the lock order of the commit.
async fn grow_reservation(
    tx: &mut TenantTx,
    lease: UploadLease,
    step: u64,
    needed: u64,
) -> Result<u64, Error> {
    let delta = |bytes| QuotaDelta { reserved_bytes: to_i64(bytes), ..QuotaDelta::default() };
    let reservation = uploads::adjust_reservation(tx, lease, to_i64(step)).await?;
    let owner_id = reservation.ok_or(UploadError::Fenced)?.owner_id;
    let users = |bytes| -> Vec<UserDelta> {
        owner_id.iter().map(|owner_id| UserDelta::new(owner_id, delta(bytes))).collect()
    };
    match quotas::apply_delta(tx, delta(step), &users(step)).await? {
        ChargeOutcome::Charged(_) => return Ok(step),
        ChargeOutcome::TenantExceeded => {}
        ChargeOutcome::UserExceeded(_) => quotas::revert_delta(tx, delta(step)).await?,
    }
    uploads::adjust_reservation(tx, lease, to_i64(needed) - to_i64(step))
        .await?
        .ok_or(UploadError::Fenced)?;
    charge_users(tx, delta(needed), &users(needed)).await.map(|_| needed)
}

fn to_i64(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
