//! Downloads a file or a range of its bytes.
//!
//! The disclosure is durable in the audit log before the first byte is sent.
//!
//! Each block of a file is compared with its CRC-32C before any of its bytes is sent (`block_stream`), also for a
//! range. Whole files are also checked against the CRC-64 that was computed during the upload. The CRC-64 misses one in
//! 2⁶⁴ accidental corruptions, and a deliberate change in the store that keeps the CRC-64. The SHA-256
//! detects such a change: the header contains it for the client to compare, and `fsck --deep` computes it
//! over the stored bytes. Computing the SHA-256 here took more than half of the time of a download.

use std::{ops::Range, sync::Arc};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::time::Instant;

use super::{
    block_stream::{BlobToRead, BlockStream, DownloadPiece, StreamError, checksums_max},
    count_downloads::CountedFile,
    load_tags_and_attachments,
};
use crate::{
    admission::{CallerKey, Holder},
    app::{
        App, Error, Resource,
        access::require_visible,
        audit,
        integrity::{damage::Suspicion, recheck::SuspectObject},
    },
    db::{
        TenantTx, Viewer,
        audit_entries::AuditAction,
        blob_checksums, files,
        versions::{self, ReadableVersion},
    },
    domain::{
        block_checksums::BlockSlice,
        byte_range::ByteRangeRequest,
        caller::Caller,
        checksum::{Crc64, Crc64Hasher},
        digest::Digest,
        file::{File, FileState, StateReason, WrongState},
        ids::FileId,
        violations::Violations,
    },
    storage::StorageErrorKind,
};

/// A request to download a file.
#[derive(Debug, Clone)]
pub struct DownloadRequest {
    pub file: FileId,
    /// The version to download; 0 means the current one.
    pub version: i32,
    pub range: ByteRangeRequest,
    /// An etag of the file. The download fails if the content has changed since then. Empty means no check.
    pub if_etag: String,
}

/// An open download.
pub struct Download {
    pub file: File,
    /// The range of the bytes that `bytes` returns.
    pub range: Range<u64>,
    /// The size of the whole version.
    pub total_bytes: u64,
    /// The SHA-256 of the whole version.
    pub sha256: Digest,
    /// Exactly the bytes of the range, or an error.
    pub bytes: BoxStream<'static, Result<DownloadPiece, Error>>,
}

/// Opens a download.
///
/// # Errors
/// Returns `Invalid`, `NotFound`, `ReadOutOfRange`, `FileDeleted`, `FileNotAvailable`, `EtagMismatch`,
/// `ObjectMissing` or `ObjectDamaged`.
pub async fn download_file(
    app: &Arc<App>,
    caller: &Caller,
    request: DownloadRequest,
) -> Result<Download, Error> {
    if request.version < 0 {
        return Err(Violations::one("version", "must not be negative; 0 means the current one").into());
    }
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let found = find_version_and_details(&mut tx, caller, &request, checksums_max(app)).await;
    let FoundVersion { file, version: ReadableVersion { stored: version, checksums }, slice } =
        tx.finish(found).await?;
    if !request.if_etag.is_empty() && !file.has_same_content(&request.if_etag) {
        return Err(Error::EtagMismatch);
    }
    let hashes = version.blob.hashes.ok_or_else(|| Error::internal("available version without hashes"))?;
    let total_bytes = version.blob.size_bytes;
    let range =
        request.range.resolve(total_bytes).map_err(|_| Error::ReadOutOfRange { size_bytes: total_bytes })?;

    // Open the object first, so that unreadable bytes are not recorded as disclosed.
    let provider = &version.blob.provider;
    let suspect = SuspectObject {
        app: Arc::clone(app),
        tenant: caller.tenant_id(),
        store: Arc::clone(app.stores.get(provider)?),
        blob: version.blob.clone(),
    };
    let from = BlobToRead {
        app: Arc::clone(app),
        tenant: caller.tenant_id(),
        store: app.stores.get_for(provider, Holder::of_caller(caller))?,
        blob: version.blob.clone(),
        checksums,
        slice,
    };
    let bytes = BlockStream::open(from, range.clone()).await.map_err(|error| match error.kind {
        // The range is within the recorded size, so a store that rejects it has a shorter object.
        StorageErrorKind::InvalidInput => Error::ObjectDamaged,
        _ => error.into(),
    });
    let bytes = bytes.inspect_err(|error| {
        if matches!(error, Error::ObjectMissing | Error::ObjectDamaged) {
            suspect.recheck_in_background(Suspicion::Length);
        }
    })?;
    let mut entry = audit::new_entry(caller, AuditAction::FileDownload).for_version(file.id, version.version);
    entry.details = serde_json::json!({ "offset": range.start, "length": range.end - range.start });
    app.disclosures
        .submit(caller.tenant_id(), CallerKey::of_actor(&caller.actor), entry)
        .await
        .map_err(Error::internal)??;
    let counted = CountedFile { tenant: caller.tenant_id(), file: file.id };
    app.download_counts.record_access(counted, app.clock.now(), range.start == 0);

    let is_whole = range.end - range.start == total_bytes;
    let request = DownloadRequest { version: version.version, ..request };
    let bytes = VerifiedStream {
        access: ReadAccess::new(app, caller, request),
        remaining_bytes: range.end - range.start,
        hasher: (is_whole && !bytes.verifies_whole()).then(Crc64Hasher::default),
        bytes,
        expected_crc64: hashes.crc64nvme,
        suspect,
    };
    Ok(Download { file, range, total_bytes, sha256: hashes.sha256, bytes: bytes.into_stream() })
}

/// A version to download.
struct FoundVersion {
    file: File,
    version: ReadableVersion,
    /// The blocks whose checksums were read.
    slice: BlockSlice,
}

async fn find_version_and_details(
    tx: &mut TenantTx,
    caller: &Caller,
    request: &DownloadRequest,
    checksums_max: u64,
) -> Result<FoundVersion, Error> {
    let (offset, limit) = (request.range.offset, request.range.limit);
    // The checksums of the first blocks are read together with the version, if the range does not depend on its size.
    let start = u64::try_from(offset).ok();
    let end = |start: u64| if limit == 0 { u64::MAX } else { start.saturating_add(limit) };
    let mut slice =
        start.map_or(BlockSlice::EMPTY, |start| BlockSlice::of_range(&(start..end(start)), checksums_max));
    let (mut file, mut version) = find_version(tx, caller, request, slice).await?;
    let ReadableVersion { stored, checksums } = &mut version;
    if start.is_none()
        && checksums.is_some()
        && let Ok(range) = request.range.resolve(stored.blob.size_bytes)
    {
        slice = BlockSlice::of_range(&range, checksums_max);
        *checksums = blob_checksums::get(tx, stored.blob.id, slice).await?;
    }
    load_tags_and_attachments(tx, std::slice::from_mut(&mut file)).await?;
    Ok(FoundVersion { file, version, slice })
}

/// Returns the version of a file and the checksums of some blocks, if the caller may read it now.
async fn find_version(
    tx: &mut TenantTx,
    caller: &Caller,
    request: &DownloadRequest,
    slice: BlockSlice,
) -> Result<(File, ReadableVersion), Error> {
    let file = require_visible(caller, files::get(tx, request.file).await?)?;
    let number = if request.version == 0 { file.version } else { request.version };
    let version = versions::get_readable(tx, file.id, number, slice).await?;
    let version = version.ok_or(Error::NotFound(Resource::Version))?;
    let stored = &version.stored;
    // Trash and archive are states of the file; the content state is that of the requested version.
    match (File { content_state: stored.content_state, ..file.clone() }.check_readable(), stored.state_reason)
    {
        (Ok(()), _) => Ok((file, version)),
        (Err(WrongState::State(FileState::Error)), Some(reason)) => Err(match reason {
            StateReason::ObjectMissing => Error::ObjectMissing,
            StateReason::ObjectDamaged => Error::ObjectDamaged,
            StateReason::ChecksumMismatch | StateReason::RecordDamaged => {
                Error::for_file_state(FileState::Error)
            }
        }),
        (Err(state), _) => Err(state.into()),
    }
}

/// The permission to read a version. It is checked again while the version is read, because the file may be
/// hidden, deleted or quarantined during a long download.
struct ReadAccess {
    app: Arc<App>,
    caller: Caller,
    request: DownloadRequest,
    next_check: Instant,
}

impl ReadAccess {
    fn new(app: &Arc<App>, caller: &Caller, request: DownloadRequest) -> Self {
        let next_check = Instant::now() + app.limits.tenants.stream_recheck_interval();
        Self { app: Arc::clone(app), caller: caller.clone(), request, next_check }
    }

    /// Checks the permission, if the last check was longer ago than the interval. While the database is
    /// unavailable, the download continues: nobody can change the permission then. Any other failure of the
    /// check ends it, because the caller could cause the failure.
    async fn check_if_due(&mut self) -> Result<(), Error> {
        if Instant::now() < self.next_check {
            return Ok(());
        }
        let checked = self.check().await;
        self.next_check = Instant::now() + self.app.limits.tenants.stream_recheck_interval();
        match checked {
            Err(Error::DatabaseUnavailable(error)) if error.is_outage() => {
                tracing::warn!(file = %self.request.file, %error, "failed to check the permission of a download");
                Ok(())
            }
            checked => checked,
        }
    }

    async fn check(&self) -> Result<(), Error> {
        let viewer = Viewer::from_caller(&self.caller);
        // Not of the caller's share, so that its other calls cannot delay the check.
        let mut tx = self.app.db.check_tx(self.caller.tenant_id(), &viewer).await?;
        let found = find_version(&mut tx, &self.caller, &self.request, BlockSlice::EMPTY).await;
        tx.finish(found).await.map(|_| ())
    }
}

/// A stream of exactly the bytes of a range. Reports an error if the bytes end early. Also verifies the
/// checksum of a whole file, and returns an error instead of the last chunk if it differs.
struct VerifiedStream {
    access: ReadAccess,
    bytes: BlockStream,
    remaining_bytes: u64,
    /// Present if the range is the whole file, and its checksum is not verified with its only block.
    hasher: Option<Crc64Hasher>,
    expected_crc64: Crc64,
    suspect: SuspectObject,
}

impl VerifiedStream {
    fn into_stream(self) -> BoxStream<'static, Result<DownloadPiece, Error>> {
        stream::unfold(Some(self), |verified| async move {
            let mut verified = verified?;
            match verified.next_piece().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(verified))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    async fn next_piece(&mut self) -> Result<Option<DownloadPiece>, Error> {
        self.access.check_if_due().await?;
        let next = self.read_piece().await;
        match &next {
            Err(StreamError::Length) => self.suspect.recheck_in_background(Suspicion::Length),
            Err(StreamError::Checksum) => self.suspect.recheck_in_background(Suspicion::Checksum),
            _ => {}
        }
        next.map_err(Error::from)
    }

    async fn read_piece(&mut self) -> Result<Option<DownloadPiece>, StreamError> {
        let Some(piece) = self.bytes.next().await? else {
            return if self.remaining_bytes == 0 { Ok(None) } else { Err(StreamError::Length) };
        };
        self.remaining_bytes =
            self.remaining_bytes.checked_sub(piece.data.len() as u64).ok_or(StreamError::Length)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&piece.data);
        }
        if self.remaining_bytes == 0 {
            let checksum = self.hasher.take().map(Crc64Hasher::finish);
            if checksum.is_some_and(|checksum| checksum != self.expected_crc64) {
                return Err(StreamError::Checksum);
            }
        }
        Ok(Some(piece))
    }
}
