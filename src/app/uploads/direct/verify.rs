//! Reads the bytes of a direct upload, all of them, before anybody else may: the file becomes AVAILABLE with its digest, or
//! ERROR with a reason. Nobody can write to its object any more, so what is read here is what is served.

use futures::StreamExt as _;

use crate::{
    app::{
        App, Error,
        integrity::damage::{Suspicion, confirm},
    },
    db::{TenantTx, Viewer, blobs::Blob, verifications, versions},
    domain::{
        checksum::{Crc64, Crc64Hasher},
        digest::{Digest, Hasher},
        file::{ContentState, StateReason},
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
    let mut tx = app.db.tenant_tx(tenant, &Viewer::system()).await?;
    let concluded = conclude(&mut tx, &stored.blob, (file, version), verified).await;
    if !tx.finish(concluded).await? {
        tracing::info!(%tenant, %file, version, "a direct upload was verified or purged meanwhile");
    }
    Ok(())
}

async fn conclude(
    tx: &mut TenantTx,
    blob: &Blob,
    place: (FileId, i32),
    verified: Result<Read, StateReason>,
) -> Result<bool, Error> {
    if let Ok(read) = &verified {
        verifications::record_sums(tx, blob, read.sha256, read.crc64nvme).await?;
    }
    Ok(verifications::conclude(tx, place, verified.map(|read| read.sha256)).await?)
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
