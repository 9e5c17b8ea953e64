//! Reads a range of a blob. If the checksums of its blocks are known, the range is widened to whole blocks, and the
//! bytes of a block are returned only after its checksum was compared. A block that differs is read a second time,
//! because a fault between the store and this process is more frequent than damage in the store.
//!
//! One block at a time is in memory; the memory limit counts it for each download (`config/memory.rs`).

use std::{collections::VecDeque, ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, stream};

use crate::{
    app::{App, Error},
    db::{DbError, Viewer, blob_checksums, blobs::Blob},
    domain::{
        block_checksums::{BLOCK_SIZE_BYTES, BlockChecksums, BlockSlice, Crc32c, cover_blocks},
        checksum::{Crc64, Crc64Hasher},
        ids::TenantId,
    },
    storage::{ByteStream, ObjectStorage, StorageError, StorageErrorKind},
};

/// An error in the bytes of a download.
pub(super) enum StreamError {
    /// The object has fewer or more bytes than recorded.
    Length,
    /// The bytes do not match the checksum.
    Checksum,
    /// The store failed.
    Storage(StorageError),
    /// The checksums could not be read.
    Database(DbError),
}

impl From<StorageError> for StreamError {
    fn from(error: StorageError) -> Self {
        match error.kind {
            StorageErrorKind::Damaged => Self::Length,
            _ => Self::Storage(error),
        }
    }
}

impl From<DbError> for StreamError {
    fn from(error: DbError) -> Self {
        Self::Database(error)
    }
}

impl From<StreamError> for Error {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Length | StreamError::Checksum => Self::ObjectDamaged,
            StreamError::Storage(error) => error.into(),
            StreamError::Database(error) => error.into(),
        }
    }
}

/// The maximum number of pieces of a block whose checksums are computed one by one, so that they can be sent to the
/// client. Combining more of them takes longer than to compute each twice.
const SUMMED_PIECES_MAX: usize = 4;

/// Bytes of a download.
#[derive(Debug)]
pub struct DownloadPiece {
    pub data: Bytes,
    /// The checksum of the bytes, if it was computed already.
    pub crc32c: Option<Crc32c>,
}

impl From<Bytes> for DownloadPiece {
    fn from(data: Bytes) -> Self {
        Self { data, crc32c: None }
    }
}

/// The checksums of the blocks of a blob, as far as they are known.
#[derive(Debug)]
enum KnownChecksums {
    /// None. The bytes are returned as they arrive.
    None,
    /// The blob is one block, whose checksum is that of the whole.
    Whole(Crc64),
    /// Those of consecutive blocks. Those of later blocks are read from the database when they are needed.
    Page { first: u64, checksums: BlockChecksums },
}

/// The checksum of one block.
enum BlockChecksum {
    Whole(Crc64),
    Block(Crc32c),
}

impl BlockChecksum {
    /// Returns whether the pieces of a block have this checksum.
    fn matches(&self, pieces: &mut [DownloadPiece]) -> bool {
        match self {
            Self::Whole(expected) => {
                let mut hasher = Crc64Hasher::default();
                pieces.iter().for_each(|piece| hasher.update(&piece.data));
                hasher.finish() == *expected
            }
            Self::Block(expected) if pieces.len() <= SUMMED_PIECES_MAX => {
                let combined = pieces.iter_mut().fold(Crc32c::compute([]), |checksum, piece| {
                    let of_piece = Crc32c::compute([&*piece.data]);
                    piece.crc32c = Some(of_piece);
                    checksum.combine(of_piece, piece.data.len() as u64)
                });
                combined == *expected
            }
            Self::Block(expected) => Crc32c::compute(pieces.iter().map(|piece| &*piece.data)) == *expected,
        }
    }
}

impl KnownChecksums {
    /// Returns the checksum of a block, if it is known here.
    fn get(&self, block: u64) -> Option<BlockChecksum> {
        match self {
            Self::None => None,
            Self::Whole(checksum) => Some(BlockChecksum::Whole(*checksum)),
            Self::Page { first, checksums } => {
                checksums.get(block.checked_sub(*first)?).map(BlockChecksum::Block)
            }
        }
    }
}

/// Returns the maximum number of checksums that a download holds at a time.
pub(in crate::app) fn checksums_max(app: &App) -> u64 {
    app.limits.downloads.block_checksums_max as u64
}

/// The blob to read.
pub(super) struct BlobToRead {
    pub(super) app: Arc<App>,
    pub(super) tenant: TenantId,
    /// The store, with the share of the caller.
    pub(super) store: Arc<dyn ObjectStorage>,
    pub(super) blob: Blob,
    /// The checksums of the blocks in `slice`; `None` if the blob has no block checksums.
    pub(super) checksums: Option<BlockChecksums>,
    pub(super) slice: BlockSlice,
}

impl BlobToRead {
    fn known_checksums(&mut self) -> KnownChecksums {
        let whole = self.blob.hashes.filter(|_| self.blob.size_bytes <= BLOCK_SIZE_BYTES);
        match (whole, self.checksums.take()) {
            (Some(hashes), _) => KnownChecksums::Whole(hashes.crc64nvme),
            (None, Some(checksums)) => KnownChecksums::Page { first: self.slice.first, checksums },
            (None, None) => KnownChecksums::None,
        }
    }
}

/// The bytes of a range of a blob.
pub(super) struct BlockStream {
    from: BlobToRead,
    known: KnownChecksums,
    /// The bytes to return.
    range: Range<u64>,
    /// The end of the bytes to read, which may exceed `range`.
    read_end: u64,
    bytes: ByteStream,
    /// The offset in the blob of the next byte of `pending` and then of `bytes`.
    position: u64,
    /// Bytes that were read together with those of the previous block.
    pending: Bytes,
    /// Bytes to return.
    verified: VecDeque<DownloadPiece>,
}

impl BlockStream {
    /// Opens the object.
    ///
    /// # Errors
    /// Returns the errors of [`ObjectStorage::get`].
    pub(super) async fn open(mut from: BlobToRead, range: Range<u64>) -> Result<Self, StorageError> {
        let known = from.known_checksums();
        let read = match known {
            KnownChecksums::None => range.clone(),
            _ => cover_blocks(&range, from.blob.size_bytes),
        };
        let bytes = from.store.get(&from.blob.key, read.clone()).await?;
        Ok(Self {
            from,
            known,
            range,
            read_end: read.end,
            bytes,
            position: read.start,
            pending: Bytes::new(),
            verified: VecDeque::new(),
        })
    }

    /// Whether each byte is compared with the checksum of the whole blob before it is returned.
    pub(super) fn verifies_whole(&self) -> bool {
        matches!(self.known, KnownChecksums::Whole(_))
    }

    /// Returns the next bytes of the range, or `None` at its end.
    pub(super) async fn next(&mut self) -> Result<Option<DownloadPiece>, StreamError> {
        loop {
            if let Some(piece) = self.verified.pop_front() {
                return Ok(Some(piece));
            }
            if self.position == self.read_end {
                return match self.next_piece().await? {
                    None => Ok(None),
                    Some(_) => Err(StreamError::Length),
                };
            }
            match self.known {
                KnownChecksums::None => self.read_piece().await?,
                _ => self.read_block().await?,
            }
        }
    }

    /// Reads the next bytes without a checksum.
    async fn read_piece(&mut self) -> Result<(), StreamError> {
        let start = self.position;
        let piece = self.next_piece().await?.ok_or(StreamError::Length)?;
        self.position += piece.len() as u64;
        if self.position > self.read_end {
            return Err(StreamError::Length);
        }
        self.return_later(start, [piece.into()]);
        Ok(())
    }

    /// Reads the next block and compares its checksum.
    async fn read_block(&mut self) -> Result<(), StreamError> {
        let start = self.position;
        let block = start / BLOCK_SIZE_BYTES;
        let Some(checksum) = self.find_checksum(block).await? else {
            // The blob and its checksums were deleted in the meantime.
            let key = &self.from.blob.key;
            tracing::warn!(
                tenant = %self.from.tenant, %key, block,
                "block checksums were deleted during a download; sending its other bytes without them"
            );
            self.known = KnownChecksums::None;
            return Ok(());
        };
        let end = ((block + 1) * BLOCK_SIZE_BYTES).min(self.read_end);
        let mut pieces = self.read_to(end).await?;
        if !checksum.matches(&mut pieces) {
            let key = &self.from.blob.key;
            tracing::warn!(tenant = %self.from.tenant, %key, block, "read a block that differs from its checksum");
            drop(pieces);
            self.reopen_at(start).await?;
            pieces = self.read_to(end).await?;
            if !checksum.matches(&mut pieces) {
                return Err(StreamError::Checksum);
            }
        }
        self.return_later(start, pieces);
        Ok(())
    }

    /// Returns the checksum of a block, or `None` if the blob has no checksums any more. Checksums of fewer blocks than
    /// the blob has are damage of their record: nothing verifies the block then, so it is not sent. The check of the
    /// whole object that follows replaces them.
    async fn find_checksum(&mut self, block: u64) -> Result<Option<BlockChecksum>, StreamError> {
        if let Some(known) = self.known.get(block) {
            return Ok(Some(known));
        }
        let BlobToRead { app, tenant, blob, .. } = &self.from;
        let slice = BlockSlice::of_range(&(self.position..self.read_end), checksums_max(app));
        // Not counted in the caller's share, so that the caller's other calls cannot delay the download.
        let mut tx = app.db.check_tx(*tenant, &Viewer::system()).await?;
        let found = blob_checksums::get(&mut tx, blob.id, slice).await;
        let Some(checksums) = tx.finish(found).await? else { return Ok(None) };
        self.known = KnownChecksums::Page { first: slice.first, checksums };
        let checksum = self.known.get(block);
        if checksum.is_none() {
            let key = &blob.key;
            tracing::error!(%tenant, %key, block, "block checksums of a blob are incomplete; ended its download");
            return Err(StreamError::Checksum);
        }
        Ok(checksum)
    }

    /// Reads the bytes up to an offset.
    async fn read_to(&mut self, end: u64) -> Result<Vec<DownloadPiece>, StreamError> {
        let mut pieces = Vec::new();
        while self.position < end {
            let mut piece = self.next_piece().await?.ok_or(StreamError::Length)?;
            let missing = usize::try_from(end - self.position).unwrap_or(usize::MAX);
            self.pending = piece.split_off(piece.len().min(missing));
            self.position += piece.len() as u64;
            pieces.push(piece.into());
        }
        Ok(pieces)
    }

    /// Reads the object again from an offset. Closes the former read first, so that a download never holds two.
    async fn reopen_at(&mut self, offset: u64) -> Result<(), StorageError> {
        self.pending = Bytes::new();
        self.bytes = stream::empty().boxed();
        self.bytes = self.from.store.get(&self.from.blob.key, offset..self.read_end).await?;
        self.position = offset;
        Ok(())
    }

    async fn next_piece(&mut self) -> Result<Option<Bytes>, StorageError> {
        match self.pending.is_empty() {
            true => self.bytes.next().await.transpose(),
            false => Ok(Some(std::mem::take(&mut self.pending))),
        }
    }

    /// Keeps those of the bytes that are in the range. They begin at an offset.
    fn return_later(&mut self, mut offset: u64, pieces: impl IntoIterator<Item = DownloadPiece>) {
        for piece in pieces {
            let DownloadPiece { data, crc32c } = piece;
            let end = offset + data.len() as u64;
            let (from, to) = (offset.max(self.range.start), end.min(self.range.end));
            if from < to {
                // Both are inside a piece in memory, so they fit into usize.
                let at = |position: u64| usize::try_from(position - offset).unwrap_or(data.len());
                let crc32c = crc32c.filter(|_| (from, to) == (offset, end));
                self.verified.push_back(DownloadPiece { data: data.slice(at(from)..at(to)), crc32c });
            }
            offset = end;
        }
    }
}
