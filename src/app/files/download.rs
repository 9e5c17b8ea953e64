//! Hands out the bytes of a file, or a range of them.
//!
//! The disclosure is in the audit log, durably, before the first byte leaves.
//!
//! What leaves whole is compared with the CRC-64 that was computed when it came in: of damage by accident it misses one in
//! 2⁶⁴. It is no proof against someone who changes bytes in the store on purpose and fits the checksum; that the SHA-256
//! finds, which travels in the header for the client to compare, and which `fsck --deep` computes over what is stored.
//! Computing it here too was more than half of what a download cost.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};

use super::fill_texts;
use crate::{
    app::{
        App, Error,
        access::seen,
        audit,
        integrity::damage::{Suspect, Suspicion},
    },
    db::{
        TenantTx, Viewer,
        audit_entries::AuditAction,
        files,
        versions::{self, StoredVersion},
    },
    domain::{
        byte_range::ByteRangeRequest,
        caller::Caller,
        checksum::{Crc64, Crc64Hasher},
        digest::Digest,
        file::{File, FileState, StateReason, WrongState},
        ids::FileId,
        violations::Violations,
    },
    storage::{ByteStream, StorageError, StorageErrorKind},
};

/// What to download.
#[derive(Debug, Clone)]
pub struct DownloadRequest {
    /// Which file.
    pub file: FileId,
    /// Which version; 0 means the current one.
    pub version: i32,
    /// Which bytes.
    pub range: ByteRangeRequest,
    /// The etag that the file had when it had the content that it must still have, or empty.
    pub if_etag: String,
}

/// Bytes on their way out.
pub struct Download {
    /// The file.
    pub file: File,
    /// Which of its bytes follow.
    pub range: Range<u64>,
    /// How many it has.
    pub total_bytes: u64,
    /// The digest of all of them.
    pub sha256: Digest,
    /// The bytes: exactly the range, or an error.
    pub bytes: BoxStream<'static, Result<Bytes, Error>>,
}

/// Opens a download.
///
/// # Errors
/// `NotFound`, `ReadOutOfRange`, `FileDeleted`, `FileNotAvailable`, `EtagMismatch`, `ObjectMissing`, `ObjectDamaged`.
pub async fn download(app: &Arc<App>, caller: &Caller, request: DownloadRequest) -> Result<Download, Error> {
    if request.version < 0 {
        return Err(Violations::one("version", "must not be negative; 0 means the current one").into());
    }
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let found = find(&mut tx, caller, &request).await;
    let (file, version) = tx.finish(found).await?;
    if !request.if_etag.is_empty() && !file.has_content_of(&request.if_etag) {
        return Err(Error::EtagMismatch);
    }
    let total_bytes = version.blob.size_bytes;
    let range =
        request.range.resolve(total_bytes).map_err(|_| Error::ReadOutOfRange { size_bytes: total_bytes })?;

    // First the bytes are found, so that what cannot be read is not reported as disclosed.
    let store = Arc::clone(app.stores.of(&version.blob.provider)?);
    let suspect =
        Suspect { app: Arc::clone(app), tenant: caller.tenant_id(), store, blob: version.blob.clone() };
    let bytes = suspect.store.get(&version.blob.key, range.clone()).await.map_err(|error| match error.kind {
        // The range lies within the recorded size; a store that refuses it holds something shorter.
        StorageErrorKind::InvalidInput => Error::ObjectDamaged,
        _ => error.into(),
    });
    let bytes = bytes.inspect_err(|error| {
        if matches!(error, Error::ObjectMissing | Error::ObjectDamaged) {
            suspect.look_again(Suspicion::Length);
        }
    })?;
    let mut entry = audit::entry(caller, AuditAction::FileDownload, Some((file.id, version.version)));
    entry.details = serde_json::json!({ "offset": range.start, "length": range.end - range.start });
    app.disclosures.submit(caller.tenant_id(), entry).await.map_err(Error::internal)??;
    app.download_counts.note((caller.tenant_id(), file.id), app.clock.now(), range.start == 0);

    let is_whole = range.end - range.start == total_bytes;
    let bytes = Checked {
        bytes,
        missing_bytes: range.end - range.start,
        hasher: is_whole.then(Crc64Hasher::default),
        recorded: version.blob.crc64nvme,
        suspect,
    };
    Ok(Download { file, range, total_bytes, sha256: version.blob.sha256, bytes: bytes.into_stream() })
}

async fn find(
    tx: &mut TenantTx,
    caller: &Caller,
    request: &DownloadRequest,
) -> Result<(File, StoredVersion), Error> {
    let mut file = seen(caller, files::get(tx, request.file).await?)?;
    fill_texts(tx, std::slice::from_mut(&mut file)).await?;
    let wanted = if request.version == 0 { file.version } else { request.version };
    let version = versions::get(tx, file.id, wanted).await?.ok_or(Error::NotFound("version"))?;
    // The overlays belong to the file, the content's state to the version asked for.
    match (File { content_state: version.content_state, ..file.clone() }.readable(), version.state_reason) {
        (Ok(()), _) => Ok((file, version)),
        (Err(WrongState::State(FileState::Error)), Some(reason)) => Err(match reason {
            StateReason::ObjectMissing => Error::ObjectMissing,
            StateReason::ObjectDamaged => Error::ObjectDamaged,
            StateReason::ChecksumMismatch => Error::of_state(FileState::Error),
        }),
        (Err(wrong), _) => Err(wrong.into()),
    }
}

/// Passes exactly the bytes of the range on. A stream that ends early is an error and never looks like the end of the
/// file; of a whole file the checksum is compared too, and where it differs the last piece is held back for the error.
struct Checked {
    bytes: ByteStream,
    missing_bytes: u64,
    /// While a whole file goes by.
    hasher: Option<Crc64Hasher>,
    recorded: Crc64,
    suspect: Suspect,
}

impl Checked {
    fn into_stream(self) -> BoxStream<'static, Result<Bytes, Error>> {
        stream::unfold(Some(self), |checked| async move {
            let mut checked = checked?;
            match checked.next().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(checked))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let next = self.receive().await;
        match &next {
            Err(Lost::Length) => self.suspect.look_again(Suspicion::Length),
            Err(Lost::Checksum) => self.suspect.look_again(Suspicion::Checksum),
            _ => {}
        }
        next.map_err(|lost| match lost {
            Lost::Length | Lost::Checksum => Error::ObjectDamaged,
            Lost::Storage(error) => error.into(),
        })
    }

    async fn receive(&mut self) -> Result<Option<Bytes>, Lost> {
        let Some(piece) = self.bytes.next().await.transpose()? else {
            return if self.missing_bytes == 0 { Ok(None) } else { Err(Lost::Length) };
        };
        self.missing_bytes = self.missing_bytes.checked_sub(piece.len() as u64).ok_or(Lost::Length)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&piece);
        }
        if self.missing_bytes == 0 {
            let checksum = self.hasher.take().map(Crc64Hasher::finish);
            if checksum.is_some_and(|checksum| checksum != self.recorded) {
                return Err(Lost::Checksum);
            }
        }
        Ok(Some(piece))
    }
}

/// Why the bytes do not come as they should.
enum Lost {
    /// There are fewer or more than recorded.
    Length,
    /// They do not fit their checksum.
    Checksum,
    /// The store says so.
    Storage(StorageError),
}

impl From<StorageError> for Lost {
    fn from(error: StorageError) -> Self {
        match error.kind {
            StorageErrorKind::Damaged => Self::Length,
            _ => Self::Storage(error),
        }
    }
}
