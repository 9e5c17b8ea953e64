//! Computes size, hashes and type of a file while its bytes are received, and compares them with the spec.
//!
//! Hashing costs more than all other work per byte, so one stream would be as fast as one core can hash. A
//! chunk is therefore hashed on another thread while the next one is received, one chunk at a time, which is
//! a third faster on two cores. The number of such chunks is limited to half the number of cores, because
//! many concurrent uploads use all cores anyway and the handover has a cost.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::{super::error::check_size, persisted::PersistedParts};
use crate::{
    admission::{Holder, ShareLimits, ShareStatus, Shares},
    app::{Error, uploads::UploadError},
    domain::{
        block_checksums::{BlockCheckpoint, BlockChecksums, BlockHasher},
        caller::Caller,
        checksum::ChecksumAlgorithm,
        digest::{Digest, Hasher},
        media_type::{MediaKind, ResolvedType, resolve_type},
        policy::FileSizeLimits,
        upload_destination::{ContentRules, Destination},
        upload_spec::{CheckedSpec, ResolvedSpec},
    },
    media::sniff::{SNIFF_BYTES_MAX, sniff_media_type},
};

/// Smaller chunks are hashed faster than another thread wakes up.
const PARALLEL_BYTES_MIN: usize = 256 * 1024;

/// The maximum number of chunks hashed in the background. Each holds up to 2 MiB outside the byte budget; the
/// base of the memory limit includes them.
const PARALLEL_CHUNKS_MAX: usize = 8;

/// The state computed from the bytes received so far.
pub(in crate::app::uploads) struct ContentInspector {
    hasher: StreamHasher,
    received_bytes: u64,
    head: Vec<u8>,
    resolved_type: Option<ResolvedType>,
    declared_mime_type: String,
    /// The name of the file, whose extension determines the type of text.
    file_name: String,
    declared_bytes: Option<u64>,
    declared_sha256: Option<Digest>,
    limits: FileSizeLimits,
    /// The rules for the type, if it is checked.
    rules: Option<ContentRules>,
}

/// The size and type of the complete content.
pub(in crate::app::uploads) struct ContentSummary {
    pub(in crate::app::uploads) size_bytes: u64,
    /// The resolved content type.
    pub(in crate::app::uploads) mime_type: ResolvedType,
    /// The media kind of the content type.
    pub(in crate::app::uploads) kind: MediaKind,
}

/// The complete content.
pub(super) struct InspectedContent {
    pub(super) summary: ContentSummary,
    pub(super) sha256: Digest,
    /// The checksums of its blocks; `None` if it has at most one block, or if those of an earlier part are unknown.
    pub(super) block_checksums: Option<BlockChecksums>,
}

impl ContentInspector {
    /// Creates the inspector of a new upload, before its first byte. The type is checked if there are rules.
    pub(in crate::app::uploads) fn new(
        spec: &CheckedSpec,
        limits: FileSizeLimits,
        rules: Option<ContentRules>,
        hashing: &HashingShare,
    ) -> Self {
        let file_name = match (&rules, &spec.destination) {
            (Some(rules), _) => rules.file_name.clone(),
            (None, Destination::NewFile(file)) => file.name.clone(),
            (None, Destination::NewVersion(_)) => String::new(),
        };
        Self {
            hasher: StreamHasher::new(hashing),
            received_bytes: 0,
            head: Vec::new(),
            resolved_type: None,
            declared_mime_type: spec.declared_mime_type.clone(),
            file_name,
            declared_bytes: spec.size_bytes,
            declared_sha256: spec.sha256,
            limits,
            rules,
        }
    }

    /// Creates an inspector that continues after the persisted bytes. `sniffed` is the type detected from the
    /// first of them, if any.
    pub(in crate::app::uploads) fn resume(
        spec: &ResolvedSpec,
        limits: FileSizeLimits,
        hashing: &HashingShare,
        persisted: &PersistedParts,
        sniffed: Option<&str>,
    ) -> Result<Self, Error> {
        let received_bytes = persisted.size_bytes();
        let mut content = Self {
            hasher: StreamHasher::resume(hashing, persisted.hasher()?, persisted.block_hasher()),
            received_bytes,
            ..Self::new(&spec.checked, limits, Some(spec.rules.clone()), hashing)
        };
        if received_bytes > 0 {
            content.resolved_type = Some(content.resolve_type(sniffed)?);
        }
        Ok(content)
    }

    /// Resolves the type from the bytes received so far, so that a disallowed type is rejected before it is
    /// stored.
    pub(super) fn ensure_type_resolved(&mut self) -> Result<(), Error> {
        if self.resolved_type.is_none() {
            self.resolved_type = Some(self.resolve_type(self.sniffed_type().as_deref())?);
        }
        self.check_size()
    }

    /// Returns the type detected from the first bytes.
    pub(super) fn sniffed_type(&self) -> Option<String> {
        sniff_media_type(&self.head)
    }

    /// Returns the state of the hashes after the bytes received so far.
    pub(super) async fn save_hashes(&mut self) -> Result<HashState, Error> {
        self.hasher.save_state().await
    }

    /// Returns the declared size, if any.
    pub(super) fn declared_bytes(&self) -> Option<u64> {
        self.declared_bytes
    }

    pub(super) fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Adds the next bytes.
    ///
    /// # Errors
    /// Returns `SizeMismatch` if they exceed the declared size, `FileTooLarge` if they exceed the limit of
    /// the media kind, and `Invalid` if the category does not allow the type.
    pub(super) async fn update(&mut self, data: &Bytes) -> Result<(), Error> {
        let received = self.received_bytes + data.len() as u64;
        if let Some(declared) = self.declared_bytes.filter(|declared| received > *declared) {
            return Err(UploadError::SizeMismatch { declared, received }.into());
        }
        if self.resolved_type.is_none() {
            let missing = SNIFF_BYTES_MAX - self.head.len();
            self.head.extend_from_slice(&data[..data.len().min(missing)]);
            if self.head.len() == SNIFF_BYTES_MAX {
                self.resolved_type = Some(self.resolve_type(self.sniffed_type().as_deref())?);
            }
        }
        self.received_bytes = received;
        self.check_size()?;
        self.hasher.update(data).await
    }

    /// Compares the received bytes with the spec and with the finish message.
    pub(super) async fn check_declared(
        &mut self,
        size_bytes: u64,
        sha256: Option<Digest>,
    ) -> Result<(), Error> {
        let received = self.received_bytes;
        for declared in [Some(size_bytes), self.declared_bytes].into_iter().flatten() {
            if declared != received {
                return Err(UploadError::SizeMismatch { declared, received }.into());
            }
        }
        if sha256.is_none() && self.declared_sha256.is_none() {
            return Ok(());
        }
        let computed = self.hasher.digest().await?;
        match [sha256, self.declared_sha256].into_iter().flatten().all(|declared| declared == computed) {
            true => Ok(()),
            false => Err(UploadError::ChecksumMismatch { algorithm: ChecksumAlgorithm::Sha256 }.into()),
        }
    }

    /// Completes the hashes and returns them with the summary.
    pub(super) async fn finish(mut self) -> Result<InspectedContent, Error> {
        self.ensure_type_resolved()?;
        let mime_type =
            self.resolved_type.take().ok_or_else(|| Error::internal("content type was not resolved"))?;
        let kind = MediaKind::from_mime_type(&mime_type.mime_type);
        let hashes = self.hasher.finish().await?;
        Ok(InspectedContent {
            summary: ContentSummary { size_bytes: self.received_bytes, mime_type, kind },
            sha256: hashes.sha256.finish(),
            block_checksums: hashes.blocks.and_then(BlockHasher::finish),
        })
    }

    /// Resolves the content type and checks that the category allows it.
    fn resolve_type(&self, sniffed: Option<&str>) -> Result<ResolvedType, Error> {
        let resolved = resolve_type(&self.declared_mime_type, sniffed, &self.file_name);
        if let Some(rules) = &self.rules {
            rules.check_type(&resolved.mime_type, sniffed)?;
        }
        Ok(resolved)
    }

    fn check_size(&self) -> Result<(), Error> {
        let kind = self.resolved_type.as_ref().map(|resolved| MediaKind::from_mime_type(&resolved.mime_type));
        check_size(self.received_bytes, kind, &self.limits)
    }
}

/// Limits the number of chunks hashed in the background, and shares them fairly. A caller without a share
/// hashes its chunks by itself, before it receives the next one.
#[derive(Debug, Clone)]
pub(in crate::app) struct HashingLimiter(Arc<Shares>);

/// The share of a caller in the chunks hashed in the background.
#[derive(Debug, Clone)]
pub(in crate::app::uploads) struct HashingShare {
    chunks: Arc<Shares>,
    holder: Holder,
}

impl HashingLimiter {
    pub(in crate::app) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Shares::new(ShareLimits::slots((cores / 2).min(PARALLEL_CHUNKS_MAX))))
    }

    /// Returns the share of a caller.
    pub(in crate::app::uploads) fn share_of(&self, caller: &Caller) -> HashingShare {
        HashingShare { chunks: Arc::clone(&self.0), holder: Holder::of_caller(caller) }
    }

    /// Returns the use of the chunks.
    pub(in crate::app) fn status(&self) -> ShareStatus {
        self.0.status()
    }
}

/// The hashes of the bytes received so far. Both are computed while the bytes are in the cache.
struct Hashes {
    sha256: Hasher,
    /// `None` if the state after an earlier part is unknown.
    blocks: Option<BlockHasher>,
}

impl Hashes {
    fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(blocks) = &mut self.blocks {
            blocks.update(bytes);
        }
    }
}

/// The state of the hashes after some bytes.
pub(super) struct HashState {
    pub(super) sha256: Vec<u8>,
    /// `None` if the state after an earlier part is unknown.
    pub(super) blocks: Option<BlockCheckpoint>,
}

/// Computes the hashes of the bytes received so far.
struct StreamHasher {
    hashing: HashingShare,
    state: State,
}

enum State {
    Idle(Box<Hashes>),
    Running(JoinHandle<Box<Hashes>>),
    /// Hashing was cancelled in the middle of a chunk. Every later call returns an error.
    Lost,
}

impl StreamHasher {
    fn new(hashing: &HashingShare) -> Self {
        Self::resume(hashing, Hasher::default(), Some(BlockHasher::default()))
    }

    /// Continues after bytes that were hashed before.
    fn resume(hashing: &HashingShare, sha256: Hasher, blocks: Option<BlockHasher>) -> Self {
        Self { hashing: hashing.clone(), state: State::Idle(Box::new(Hashes { sha256, blocks })) }
    }

    /// Returns the state needed to continue after the bytes received so far.
    async fn save_state(&mut self) -> Result<HashState, Error> {
        let mut hashes = self.hashes().await?;
        let blocks = hashes.blocks.as_mut().map(BlockHasher::checkpoint);
        let state = HashState { sha256: hashes.sha256.state(), blocks };
        self.state = State::Idle(hashes);
        Ok(state)
    }

    /// Adds the next bytes once the previous chunk is hashed.
    async fn update(&mut self, data: &Bytes) -> Result<(), Error> {
        let mut hashes = self.hashes().await?;
        let permit = match data.len() >= PARALLEL_BYTES_MIN {
            true => self.hashing.chunks.try_acquire(self.hashing.holder, 1).ok(),
            false => None,
        };
        self.state = match permit {
            Some(permit) => {
                let data = data.clone();
                State::Running(tokio::task::spawn_blocking(move || {
                    hashes.update(&data);
                    drop(permit);
                    hashes
                }))
            }
            None => {
                hashes.update(data);
                State::Idle(hashes)
            }
        };
        Ok(())
    }

    /// Returns the digest of the bytes received so far.
    async fn digest(&mut self) -> Result<Digest, Error> {
        let hashes = self.hashes().await?;
        let digest = hashes.sha256.clone().finish();
        self.state = State::Idle(hashes);
        Ok(digest)
    }

    /// Returns the hashes of all bytes.
    async fn finish(mut self) -> Result<Hashes, Error> {
        Ok(*self.hashes().await?)
    }

    async fn hashes(&mut self) -> Result<Box<Hashes>, Error> {
        match std::mem::replace(&mut self.state, State::Lost) {
            State::Idle(hashes) => Ok(hashes),
            State::Running(hashing) => hashing.await.map_err(Error::internal),
            State::Lost => Err(Error::internal("digest of upload was lost")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admission::Slot,
        domain::{
            caller::{Actor, Origin, Role, Tenant, TenantKind, TenantState},
            ids::TenantId,
            policy::Policy,
            rate_limits::RequestLimits,
        },
    };

    fn hashing(chunks: usize) -> HashingShare {
        HashingShare { chunks: Shares::new(ShareLimits::slots(chunks)), holder: Holder::PLATFORM }
    }

    #[tokio::test]
    async fn background_hashing_yields_the_same_digest() {
        let chunk: Vec<u8> = (0..PARALLEL_BYTES_MIN).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let chunk = Bytes::from(chunk);
        let pieces = [chunk.clone(), chunk.slice(..100), chunk.clone(), chunk.slice(7..)];
        for permits in [0, 1] {
            let mut hasher = StreamHasher::new(&hashing(permits));
            for piece in &pieces {
                hasher.update(piece).await.unwrap();
            }
            let hashes = hasher.finish().await.unwrap();
            assert_eq!(hashes.sha256.finish(), Digest::compute(&pieces.concat()));
        }
    }

    #[tokio::test]
    async fn hashes_large_chunk_in_background_if_core_is_free() {
        let hashing = hashing(1);
        let permit = hashing.chunks.try_acquire(Holder::PLATFORM, 1).unwrap();
        let mut hasher = StreamHasher::new(&hashing);
        let chunk = Bytes::from(vec![7; PARALLEL_BYTES_MIN]);
        hasher.update(&chunk).await.unwrap();
        assert!(matches!(hasher.state, State::Idle(_)));
        drop(permit);
        hasher.update(&chunk[..PARALLEL_BYTES_MIN - 1].to_vec().into()).await.unwrap();
        assert!(matches!(hasher.state, State::Idle(_)), "not worth it");
        hasher.update(&chunk).await.unwrap();
        assert!(matches!(hasher.state, State::Running(_)));
        hasher.finish().await.unwrap();
        assert_eq!(hashing.chunks.status().in_use, 0, "the core is free again");
    }

    /// Takes a chunk for a caller, if its share allows it.
    fn take(limiter: &HashingLimiter, tenant: u128, name: &str) -> Option<Slot> {
        let tenant = Tenant {
            id: TenantId::from_uuid(uuid::Uuid::from_u128(tenant)),
            kind: TenantKind::Organization,
            state: TenantState::Active,
            is_read_only: false,
            rate_limits: RequestLimits::default(),
            policy: Policy::preset("general").unwrap(),
        };
        let share = limiter.share_of(&Caller {
            first_call: None,
            tenant: Arc::new(tenant),
            actor: Actor::user(name),
            role: Role::Member,
            groups: Vec::new(),
            scopes: Vec::new(),
            origin: Origin::default(),
        });
        share.chunks.try_acquire(share.holder, 1).ok()
    }

    #[test]
    fn flood_of_one_caller_leaves_cores_to_others() {
        let limiter = HashingLimiter(Shares::new(ShareLimits::slots(8)));
        let flood: Vec<_> = std::iter::from_fn(|| take(&limiter, 1, "flood")).collect();
        assert!(!flood.is_empty());
        let colleague = take(&limiter, 1, "alice");
        assert!(colleague.is_some() && take(&limiter, 2, "zoe").is_some());
    }

    #[test]
    fn flood_of_one_tenant_leaves_cores_to_others() {
        let limiter = HashingLimiter(Shares::new(ShareLimits::slots(8)));
        let mut flood = Vec::new();
        for number in 0..16 {
            flood.extend(std::iter::from_fn(|| take(&limiter, 1, &number.to_string())));
        }
        assert!(!flood.is_empty());
        assert!(take(&limiter, 2, "zoe").is_some());
    }
}
