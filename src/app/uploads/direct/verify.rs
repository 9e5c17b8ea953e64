//! Reads the bytes of a direct upload, all of them, before anybody else may: the version becomes AVAILABLE with its digest, or
//! ERROR with a reason. Nobody can write to its object any more, so what is read here is what is served.
//!
//! A further version becomes the file's current one here and not before, unless a later one did meanwhile; until then, and for
//! ever if it is refused, the file is what it was. Also in the trash and in the archive: what comes out of there is what was
//! uploaded last before.

use futures::StreamExt as _;

use crate::{
    app::{
        App, Error,
        integrity::damage::{Suspicion, confirm},
        storage::settle_class,
        tenants::system_caller,
    },
    db::{
        TenantTx, Viewer,
        blobs::Blob,
        file_readers, files,
        usage_counters::{self, UsageDelta},
        verifications,
        versions::{self, StoredVersion},
    },
    domain::{
        checksum::{Crc64, Crc64Hasher},
        digest::{Digest, Hasher},
        file::{ContentState, File, StateReason},
        ids::{FileId, TenantId},
    },
    media::sniff::{SNIFF_BYTES_MAX, sniff},
    storage::ObjectStorage,
};

/// What was read.
struct Read {
    sha256: Digest,
    crc64nvme: Crc64,
    sniffed: Option<String>,
}

/// Verifies a version that is PROCESSING; one that is not, or was purged, is done.
///
/// # Errors
/// When store or database do not answer, or a read ends early: the job is tried again.
pub async fn verify(
    app: &App,
    tenant: TenantId,
    (file, version): (FileId, i32),
    sha256: Option<Digest>,
    sniffed: Option<&str>,
) -> Result<(), Error> {
    let mut tx = app.db.tenant_tx(tenant, &Viewer::system()).await?;
    let stored = versions::get(&mut tx, file, version).await.map_err(Error::from);
    let stored = tx.finish(stored).await?;
    let Some(stored) = stored.filter(|stored| stored.content_state == ContentState::Processing) else {
        return Ok(());
    };
    let store = app.stores.of(&stored.blob.provider)?;
    let verified = match confirm(store.as_ref(), &stored.blob, Suspicion::Length).await? {
        Some(reason) => Err(reason),
        None => {
            let read = read(store.as_ref(), &stored.blob).await?;
            if sha256.is_some_and(|declared| declared != read.sha256) {
                Err(StateReason::ChecksumMismatch)
            } else if read.sniffed.as_deref() != sniffed {
                Err(StateReason::ObjectDamaged)
            } else {
                Ok(read)
            }
        }
    };
    let trash_counts = system_caller(app, tenant).await?.tenant.policy.trash.counts_against_quota;
    let mut tx = app.db.tenant_tx(tenant, &Viewer::system()).await?;
    let concluded = conclude(app, &mut tx, (file, &stored), verified, trash_counts).await;
    if !tx.finish(concluded).await? {
        tracing::info!(%tenant, %file, version, "a direct upload was verified or purged meanwhile");
    }
    Ok(())
}

async fn conclude(
    app: &App,
    tx: &mut TenantTx,
    (file, stored): (FileId, &StoredVersion),
    verified: Result<Read, StateReason>,
    trash_counts: bool,
) -> Result<bool, Error> {
    let sha256 = verified.as_ref().map(|read| read.sha256).map_err(|reason| *reason);
    let is_concluded = verifications::conclude(tx, (file, stored.version), sha256).await?;
    if let (true, Ok(read)) = (is_concluded, verified) {
        // Behind the lock of the file, as everywhere: whoever purges it locks it before its blobs.
        verifications::record_sums(tx, &stored.blob, read.sha256, read.crc64nvme).await?;
        if let Some(found) = files::get_for_update(tx, file).await? {
            make_available(app, tx, (found.file, stored), trash_counts).await?;
        }
    }
    Ok(is_concluded)
}

/// Brings an available version to where its file is: into the class of the archive, for one that was archived meanwhile, and
/// to the place of the current one.
async fn make_available(
    app: &App,
    tx: &mut TenantTx,
    (file, stored): (File, &StoredVersion),
    trash_counts: bool,
) -> Result<(), Error> {
    if file.archive_time.is_some() {
        // The job that the archiving asked for left these bytes alone.
        settle_class::ask(app, tx, file.id).await?;
    }
    make_current(tx, file, stored, trash_counts).await
}

/// Makes an available version the current one, unless it is, or a later one is. Its bytes were charged when it was committed;
/// its file is counted under its kind from here on.
async fn make_current(
    tx: &mut TenantTx,
    before: File,
    stored: &StoredVersion,
    trash_counts: bool,
) -> Result<(), Error> {
    if stored.version <= before.version {
        return Ok(());
    }
    let after = files::set_current(tx, before.id, stored.version, &stored.created_by).await?;
    file_readers::set_size(tx, before.id, after.size_bytes).await?;
    let is_counted = before.trash.is_none() || trash_counts;
    if is_counted && before.media_kind != after.media_kind {
        let mut delta = UsageDelta::default();
        delta.files(&after.category, before.media_kind, -1);
        delta.files(&after.category, after.media_kind, 1);
        usage_counters::apply(tx, &delta).await?;
    }
    Ok(())
}

async fn read(store: &dyn ObjectStorage, blob: &Blob) -> Result<Read, Error> {
    let (mut sha256, mut crc64nvme) = (Hasher::default(), Crc64Hasher::default());
    let (mut head, mut read_bytes) = (Vec::new(), 0);
    let mut bytes = store.get(&blob.key, 0..blob.size_bytes).await?;
    while let Some(piece) = bytes.next().await {
        let piece = piece?;
        sha256.update(&piece);
        crc64nvme.update(&piece);
        let missing = SNIFF_BYTES_MAX - head.len();
        head.extend_from_slice(&piece[..piece.len().min(missing)]);
        read_bytes += piece.len() as u64;
    }
    // It has the right length, and this read ended early: that says nothing about the bytes.
    if read_bytes != blob.size_bytes {
        return Err(Error::internal("a read of a direct upload ended early"));
    }
    Ok(Read { sha256: sha256.finish(), crc64nvme: crc64nvme.finish(), sniffed: sniff(&head) })
}
