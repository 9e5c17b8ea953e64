//! Downloads a file or a range of its bytes.
//!
//! The disclosure is durable in the audit log and the access log before the first byte is sent.
//!
//! Each block of a file is compared with its CRC-32C before any of its bytes is sent (`block_stream`), also for a
//! range. Whole files are also checked against the CRC-64 that was computed during the upload. The CRC-64 misses one in
//! 2⁶⁴ accidental corruptions, and a deliberate change in the store that keeps the CRC-64. The SHA-256
//! detects such a change: the header contains it for the client to compare, and `fsck --deep` computes it
//! over the stored bytes. Computing the SHA-256 here took more than half of the time of a download.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use futures::stream::BoxStream;

use super::{
    block_stream::{DownloadPiece, checksums_max},
    count_downloads::CountedFile,
    load_tags_and_attachments,
    verified_stream::{OpenedRange, RangeToRead, ReadPermission},
};
use crate::{
    admission::{CallerKey, Holder},
    app::{
        App, Error, Resource,
        access::{Disposition, disposition},
        audit::{self, Disclosure},
        credits::pay_download::pay_download,
    },
    db::{
        TenantTx, Viewer,
        audit_entries::AuditAction,
        blob_checksums, files,
        versions::{self, ReadableVersion},
    },
    domain::{
        access_log::{AccessAction, AccessEntry, ClientOrigin},
        block_checksums::BlockSlice,
        byte_range::ByteRangeRequest,
        caller::Caller,
        digest::Digest,
        file::{File, FileState, StateReason, WrongState},
        ids::FileId,
        violations::Violations,
    },
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
    /// The client, for the access log.
    pub client: ClientOrigin,
}

/// An open download.
pub struct Download {
    pub file: File,
    /// The range of the bytes that `bytes` returns.
    pub range: Range<u64>,
    /// The size of the whole version.
    pub total_bytes: u64,
    /// What the caller may do with the bytes.
    pub disposition: Disposition,
    /// The SHA-256 of the whole version.
    pub sha256: Digest,
    /// Exactly the bytes of the range, or an error.
    pub bytes: BoxStream<'static, Result<DownloadPiece, Error>>,
}

/// Opens a download.
///
/// # Errors
/// Returns `Invalid`, `NotFound`, `ReadOutOfRange`, `FileDeleted`, `FileNotAvailable`, `EtagMismatch`,
/// `ObjectMissing`, `ObjectDamaged` or `CreditsExhausted`.
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
    let FoundVersion { file, disposition, version: ReadableVersion { stored: version, checksums }, slice } =
        tx.finish(found).await?;
    if !request.if_etag.is_empty() && !file.has_same_content(&request.if_etag) {
        return Err(Error::EtagMismatch);
    }
    let hashes = version.blob.hashes.ok_or_else(|| Error::internal("available version without hashes"))?;
    let (number, total_bytes) = (version.version, version.blob.size_bytes);
    let range =
        request.range.resolve(total_bytes).map_err(|_| Error::ReadOutOfRange { size_bytes: total_bytes })?;

    // Open the object first, so that unreadable bytes are not recorded as disclosed.
    let opened = OpenedRange::open(
        app,
        RangeToRead {
            tenant: caller.tenant_id(),
            holder: Holder::of_caller(caller),
            version: ReadableVersion { stored: version, checksums },
            slice,
            range: range.clone(),
        },
    )
    .await?;
    // If the disclosure then fails, the payment is valid for the retry.
    pay_download(app, caller, file.id, number).await?;
    let mut entry = audit::new_entry(caller, AuditAction::FileDownload).for_version(file.id, number);
    entry.details = serde_json::json!({ "offset": range.start, "length": range.end - range.start });
    let access = AccessEntry {
        file: file.id,
        version: Some(number),
        share: None,
        actor: Some(caller.actor.clone()),
        client: request.client.clone(),
        action: match disposition {
            Disposition::Inline => AccessAction::View,
            Disposition::Attachment => AccessAction::Download,
        },
        denial_reason: None,
    };
    app.disclosures
        .submit(caller.tenant_id(), CallerKey::of_actor(&caller.actor), Disclosure { entry, access })
        .await
        .map_err(Error::internal)??;
    let counted = CountedFile { tenant: caller.tenant_id(), file: file.id };
    app.download_counts.record_access(counted, app.clock.now(), range.start == 0);

    let request = DownloadRequest { version: number, ..request };
    let permission = CallerPermission { app: Arc::clone(app), caller: caller.clone(), request };
    let bytes = opened.into_stream(Box::new(permission), app.limits.tenants.stream_recheck_interval());
    Ok(Download { file, range, total_bytes, disposition, sha256: hashes.sha256, bytes })
}

/// The permission of a caller to read a version.
struct CallerPermission {
    app: Arc<App>,
    caller: Caller,
    request: DownloadRequest,
}

#[async_trait]
impl ReadPermission for CallerPermission {
    async fn check(&self) -> Result<(), Error> {
        let viewer = Viewer::from_caller(&self.caller);
        // Not of the caller's share, so that its other calls cannot delay the check.
        let mut tx = self.app.db.check_tx(self.caller.tenant_id(), &viewer).await?;
        let found = find_version(&mut tx, &self.caller, &self.request, BlockSlice::EMPTY).await;
        tx.finish(found).await.map(|_| ())
    }

    fn file(&self) -> FileId {
        self.request.file
    }
}

/// A version to download.
struct FoundVersion {
    file: File,
    disposition: Disposition,
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
    let mut slice = first_slice(&request.range, checksums_max);
    let (VisibleVersion { mut file, disposition }, mut version) =
        find_version(tx, caller, request, slice).await?;
    complete_slice(tx, &request.range, checksums_max, &mut version, &mut slice).await?;
    load_tags_and_attachments(tx, std::slice::from_mut(&mut file)).await?;
    Ok(FoundVersion { file, disposition, version, slice })
}

/// A file, and what the caller may do with its bytes.
struct VisibleVersion {
    file: File,
    disposition: Disposition,
}

/// Returns the first blocks of a range. Their checksums are read together with the version, if the range does not depend
/// on its size.
pub(in crate::app) fn first_slice(range: &ByteRangeRequest, checksums_max: u64) -> BlockSlice {
    let end = |start: u64| if range.limit == 0 { u64::MAX } else { start.saturating_add(range.limit) };
    let start = u64::try_from(range.offset).ok();
    start.map_or(BlockSlice::EMPTY, |start| BlockSlice::of_range(&(start..end(start)), checksums_max))
}

/// Reads the checksums of the first blocks of a range that depends on the size of the version.
pub(in crate::app) async fn complete_slice(
    tx: &mut TenantTx,
    range: &ByteRangeRequest,
    checksums_max: u64,
    version: &mut ReadableVersion,
    slice: &mut BlockSlice,
) -> Result<(), Error> {
    let ReadableVersion { stored, checksums } = version;
    if range.offset < 0
        && checksums.is_some()
        && let Ok(range) = range.resolve(stored.blob.size_bytes)
    {
        *slice = BlockSlice::of_range(&range, checksums_max);
        *checksums = blob_checksums::get(tx, stored.blob.id, *slice).await?;
    }
    Ok(())
}

/// Returns the version of a file and the checksums of some blocks, if the caller may read it now.
async fn find_version(
    tx: &mut TenantTx,
    caller: &Caller,
    request: &DownloadRequest,
    slice: BlockSlice,
) -> Result<(VisibleVersion, ReadableVersion), Error> {
    let found = files::get(tx, request.file).await?.ok_or(Error::NotFound(Resource::File))?;
    let disposition = disposition(caller, &found)?;
    let file = found.file;
    let number = if request.version == 0 { file.version } else { request.version };
    let version = versions::get_readable(tx, file.id, number, slice).await?;
    let version = version.ok_or(Error::NotFound(Resource::Version))?;
    let stored = &version.stored;
    // Trash and archive are states of the file; the content state is that of the requested version.
    match (File { content_state: stored.content_state, ..file.clone() }.check_readable(), stored.state_reason)
    {
        (Ok(()), _) => Ok((VisibleVersion { file, disposition }, version)),
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
