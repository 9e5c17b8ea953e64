//! An upload that holds a reservation and an unfinished multipart object. Whatever happens to the request, both end: they
//! become a file, or they are given back, exactly once. One that can be resumed is given back when it is cancelled or its
//! lease runs out; one of a single stream ends with its stream.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::Instrument as _;

use super::{content::Measured, write::of_parts};
use crate::{
    app::{App, Error},
    db::{
        TenantTx, Viewer,
        blobs::{self, Blob},
        quotas::{self, QuotaDelta},
        resumable_uploads::StoredUpload,
        upload_parts,
        uploads::{self, NewUpload, Resumable, UploadLease},
    },
    domain::{
        caller::Caller,
        checksum::Crc64,
        ids::{BlobId, TenantId, UploadId},
        object_key::ObjectKey,
        upload::UploadState,
        upload_spec::CheckedSpec,
    },
    storage::{MultipartId, ObjectStorage, PartReceipt, Payload, PutOptions, StorageErrorKind},
};

/// Where the bytes of a new blob go.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// The store that they go to from first to last.
    pub(super) store: Arc<dyn ObjectStorage>,
    /// The blob.
    pub(super) blob_id: BlobId,
    /// Its key, made by us alone.
    pub(super) key: ObjectKey,
    /// What goes along with the object; never the file's name.
    pub(super) options: PutOptions,
    /// Whether they are a further version of a file.
    pub(super) is_version: bool,
}

/// An open upload. Dropping it gives back what it holds, in a task that outlives the request.
pub(super) struct OpenUpload {
    app: Arc<App>,
    tenant: TenantId,
    target: Target,
    multipart: MultipartId,
    lease: UploadLease,
    reserved_bytes: u64,
    part_size_bytes: usize,
    renewed: Instant,
    /// Whether the row is known to be there.
    is_recorded: bool,
    /// Whether it outlives its stream.
    is_resumable: bool,
    is_settled: bool,
}

impl OpenUpload {
    /// Reserves room and starts the multipart object. A reservation of exactly `bytes`, or nothing at all.
    ///
    /// In a task of its own: a client that leaves while the reservation is being committed must not be cleaned up after
    /// before it is there.
    pub(super) async fn open(
        app: &Arc<App>,
        caller: &Caller,
        target: Target,
        bytes: u64,
    ) -> Result<Box<Self>, Error> {
        let (app, caller) = (Arc::clone(app), caller.clone());
        let tasks = app.tasks.clone();
        let opening = async move { Self::reserve(&app, &caller, target, bytes).await.map(Box::new) };
        tasks.spawn(opening.in_current_span()).await.map_err(Error::internal)?
    }

    async fn reserve(app: &Arc<App>, caller: &Caller, target: Target, bytes: u64) -> Result<Self, Error> {
        let mut open = Self::start(app, caller, target, bytes).await?;
        let upload = open.row(caller, None);
        let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::system()).await?;
        let reserved = insert(&mut tx, &upload).await;
        tx.finish(reserved).await.inspect_err(|error| count_refusal(app, error))?;
        open.is_recorded = true;
        Ok(open)
    }

    /// Starts the multipart object of an upload without a row yet. From here on the guard cleans up, unless it is
    /// [`kept`](Self::kept).
    pub(super) async fn start(
        app: &Arc<App>,
        caller: &Caller,
        target: Target,
        bytes: u64,
    ) -> Result<Self, Error> {
        let part_size_bytes = app.limits.uploads.part_size_bytes;
        let multipart =
            target.store.start_multipart(&target.key, part_size_bytes as u64, &target.options).await?;
        Ok(Self {
            app: Arc::clone(app),
            tenant: caller.tenant_id(),
            target,
            multipart,
            lease: UploadLease::first(UploadId::from_uuid(app.ids.uuid())),
            reserved_bytes: bytes,
            part_size_bytes,
            renewed: Instant::now(),
            is_recorded: false,
            is_resumable: false,
            is_settled: false,
        })
    }

    /// The row of an upload that was started.
    pub(super) fn row(&self, caller: &Caller, resumable: Option<Resumable>) -> NewUpload {
        NewUpload {
            id: self.lease.id,
            blob_id: self.target.blob_id,
            provider: self.target.store.provider().to_owned(),
            key: self.target.key.clone(),
            multipart_id: Some(self.multipart.as_str().to_owned()),
            reserved_bytes: to_i64(self.reserved_bytes),
            is_version: self.target.is_version,
            lease_seconds: lease_seconds(&self.app),
            created_by: caller.actor.id.clone(),
            is_direct: false,
            staging_key: None,
            resumable,
        }
    }

    /// An upload that was taken over.
    pub(super) fn resumed(
        app: &Arc<App>,
        caller: &Caller,
        stored: &StoredUpload,
    ) -> Result<Box<Self>, Error> {
        let store = Arc::clone(app.stores.of(&stored.provider)?);
        Ok(Box::new(Self {
            app: Arc::clone(app),
            tenant: caller.tenant_id(),
            target: Target {
                store,
                blob_id: stored.blob_id,
                key: stored.key.clone(),
                options: PutOptions::of_blob(caller.tenant_id(), Some(&caller.actor.id)),
                is_version: stored.spec.file.is_some(),
            },
            multipart: MultipartId::new(stored.multipart_id.as_str()),
            lease: stored.lease,
            reserved_bytes: stored.reserved_bytes,
            part_size_bytes: usize::try_from(stored.upload.part_size_bytes).map_err(Error::internal)?,
            renewed: Instant::now(),
            is_recorded: true,
            is_resumable: true,
            is_settled: false,
        }))
    }

    /// The size of its parts.
    pub(super) fn part_size_bytes(&self) -> usize {
        self.part_size_bytes
    }

    /// Whether it outlives its stream.
    pub(super) fn is_resumable(&self) -> bool {
        self.is_resumable
    }

    /// Where the bytes go.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// The unfinished object.
    pub(super) fn multipart(&self) -> &MultipartId {
        &self.multipart
    }

    /// What the commit must end.
    pub(super) fn lease(&self) -> UploadLease {
        self.lease
    }

    /// Makes sure that so many bytes are reserved, before they are accepted. Reserves ahead in steps; where a step does
    /// not fit any more, exactly what is needed, so that no file is refused that fits. Renews the lease from time to time.
    pub(super) async fn cover(&mut self, bytes: u64) -> Result<(), Error> {
        if bytes <= self.reserved_bytes {
            return self.renew().await;
        }
        let needed = bytes - self.reserved_bytes;
        let step = needed.max(self.app.limits.uploads.reservation_step_bytes);
        let mut tx = self.app.db.tenant_tx(self.tenant, &Viewer::system()).await?;
        let grown = grow(&mut tx, self.lease, step, needed, lease_seconds(&self.app)).await;
        self.reserved_bytes += tx.finish(grown).await.inspect_err(|error| count_refusal(&self.app, error))?;
        self.renewed = Instant::now();
        Ok(())
    }

    /// The lease counts from the last byte; writing that down for every byte would be too much.
    async fn renew(&mut self) -> Result<(), Error> {
        if self.renewed.elapsed() < self.app.limits.uploads.lease() / 3 {
            return Ok(());
        }
        let mut tx = self.app.db.tenant_tx(self.tenant, &Viewer::system()).await?;
        let renewed = uploads::grow(&mut tx, self.lease, 0, lease_seconds(&self.app)).await;
        if !tx.finish(renewed).await? {
            return Err(Error::UploadFenced);
        }
        self.renewed = Instant::now();
        Ok(())
    }

    /// Puts the object together; again, where that was done before and not known.
    ///
    /// A part that is not the one recorded was written once more by a writer that had been fenced. Its bytes are not to be
    /// had any more, so all parts of the upload are forgotten, and sent again.
    pub(super) async fn complete(&self, receipts: &[PartReceipt]) -> Result<(), Error> {
        let Target { store, key, options, .. } = &self.target;
        if receipts.is_empty() {
            // Stores know no object of no parts. Nobody else writes this key.
            return match store.put(key, Payload::default(), options).await {
                Err(error) if error.kind != StorageErrorKind::AlreadyExists => Err(error.into()),
                _ => Ok(store.abort_multipart(key, &self.multipart).await?),
            };
        }
        match store.complete_multipart(key, &self.multipart, receipts).await {
            Ok(_) => Ok(()),
            Err(error) if self.is_resumable && error.kind == StorageErrorKind::InvalidInput => {
                tracing::warn!(upload = %self.lease.id, %error, "parts of an upload are not those recorded");
                let mut tx = self.app.db.tenant_tx(self.tenant, &Viewer::system()).await?;
                let forgotten = upload_parts::forget_from(&mut tx, self.lease, 1).await;
                match tx.finish(forgotten).await? {
                    // Somebody else went on meanwhile: their parts are none of ours.
                    0 => Err(Error::UploadFenced),
                    _ => Err(Error::UploadPaused { persisted_size_bytes: 0 }),
                }
            }
            Err(error) => Err(of_parts(error)),
        }
    }

    /// The upload has its row and waits for whoever goes on with it.
    pub(super) fn kept(mut self) {
        self.is_settled = true;
    }

    /// Nothing will ever come of the upload: it is given back, also one that could have been resumed.
    pub(super) fn hopeless(mut self) {
        self.is_resumable = false;
    }

    /// The upload became a file: nothing is left to give back.
    pub(super) fn settled(mut self) {
        self.is_settled = true;
    }
}

impl Drop for OpenUpload {
    fn drop(&mut self) {
        if self.is_settled || self.is_resumable {
            return;
        }
        let (app, tenant, lease) = (Arc::clone(&self.app), self.tenant, self.lease);
        let (target, multipart) = (self.target.clone(), self.multipart.clone());
        let (tasks, is_recorded) = (app.tasks.clone(), self.is_recorded);
        tasks.spawn(async move {
            let Target { store, key, .. } = target;
            // Perhaps no row will ever tell of this object, because the database is away: so it goes first. Nothing can
            // become of it, whether there is a row or not.
            if !is_recorded && let Err(error) = store.abort_multipart(&key, &multipart).await {
                tracing::warn!(%tenant, %key, %error, "abort multipart upload");
            }
            // What fails here stays as a row whose lease will run out; `expire` does it again then.
            let left = Left {
                tenant,
                lease,
                key: &key,
                multipart: Some(&multipart),
                staging_key: None,
                is_recorded,
                is_expired: false,
            };
            if let Err(error) = give_up(&app, store.as_ref(), left).await {
                tracing::warn!(%tenant, upload = %lease.id, %key, %error, "give up upload");
            }
        });
    }
}

/// For how long an upload holds its reservation without news.
pub(super) fn lease_seconds(app: &App) -> u32 {
    u32::try_from(app.limits.uploads.lease_seconds).unwrap_or(u32::MAX)
}

/// Removes an object that no committed row refers to.
pub(super) async fn remove_object(target: &Target) {
    let key = &target.key;
    if let Err(error) = target.store.delete(key).await {
        tracing::warn!(%key, %error, "delete object");
    }
}

/// Writes the row of a new upload, and reserves its room.
pub(super) async fn insert(tx: &mut TenantTx, upload: &NewUpload) -> Result<(), Error> {
    uploads::insert(tx, upload).await?;
    let delta = QuotaDelta {
        reserved_bytes: upload.reserved_bytes,
        reserved_file_count: i64::from(!upload.is_version),
        ..QuotaDelta::default()
    };
    match quotas::apply(tx, delta).await? {
        Some(_) => Ok(()),
        None => Err(Error::over_quota(&quotas::get(tx).await?, upload.reserved_bytes)),
    }
}

/// The upload's row goes first, then the quota's: it is also the order of the commit.
async fn grow(
    tx: &mut TenantTx,
    lease: UploadLease,
    step: u64,
    needed: u64,
    lease_seconds: u32,
) -> Result<u64, Error> {
    let mut recorded = 0;
    for bytes in [step, needed] {
        if !uploads::grow(tx, lease, to_i64(bytes) - recorded, lease_seconds).await? {
            return Err(Error::UploadFenced);
        }
        recorded = to_i64(bytes);
        let delta = QuotaDelta { reserved_bytes: recorded, ..QuotaDelta::default() };
        if quotas::apply(tx, delta).await?.is_some() {
            return Ok(bytes);
        }
    }
    Err(Error::over_quota(&quotas::get(tx).await?, to_i64(needed)))
}

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

fn count_refusal(app: &App, error: &Error) {
    super::commit::count_refusal(&app.metrics, error);
}

fn to_i64(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A new blob's place: a fresh key in every attempt.
pub(super) fn target(app: &App, caller: &Caller, spec: &CheckedSpec) -> Result<Target, Error> {
    let blob_id = BlobId::from_uuid(app.ids.uuid());
    let day = app.clock.now().date_naive();
    let key = ObjectKey::for_blob(&app.limits.key_prefix, caller.tenant_id(), &spec.category, day, blob_id)
        .map_err(Error::internal)?;
    let options = PutOptions::of_blob(caller.tenant_id(), Some(&caller.actor.id));
    let store = Arc::clone(app.stores.writing());
    Ok(Target { store, blob_id, key, options, is_version: spec.file.is_some() })
}

impl Target {
    /// The blob that the bytes became.
    pub(super) fn blob(&self, content: &Measured, crc64nvme: Crc64) -> Blob {
        Blob {
            id: self.blob_id,
            provider: self.store.provider().to_owned(),
            key: self.key.clone(),
            size_bytes: content.size_bytes,
            sha256: content.sha256,
            crc64nvme,
            class: self.options.class,
        }
    }
}
