//! The parts of an upload that are already in the store, and bytes that are sent again.

use bytes::Bytes;

use crate::{
    app::{Error, uploads::UploadError},
    db::upload_parts::StoredPart,
    domain::{
        block_checksums::{BLOCK_SIZE_BYTES, BlockChecksums, BlockHasher},
        checksum::{Crc64, Crc64Hasher},
        digest::Hasher,
    },
    storage::PartReceipt,
};

/// The usable parts: those from the first one up to the first gap.
#[derive(Debug, Default)]
pub(in crate::app::uploads) struct PersistedParts {
    parts: Vec<StoredPart>,
    blocks: PersistedBlocks,
}

/// The checksums of the whole blocks in the parts.
#[derive(Debug, Default)]
enum PersistedBlocks {
    /// They were not read: the caller does not complete the upload.
    #[default]
    Unread,
    Read(BlockChecksums),
    /// The previous version recorded a part without them.
    Unknown,
}

impl PersistedParts {
    /// Selects the usable parts from all recorded parts, ordered by number.
    pub(in crate::app::uploads) fn from_rows(mut parts: Vec<StoredPart>) -> Self {
        let gapless = parts.iter().zip(1..).take_while(|(part, number)| part.number == *number).count();
        parts.truncate(gapless);
        Self { parts, blocks: PersistedBlocks::Unread }
    }

    /// Adds the checksums of the whole blocks of these parts, for a caller that completes the upload. `None` means that
    /// a part has none.
    #[must_use]
    pub(in crate::app::uploads) fn with_block_checksums(self, checksums: Option<BlockChecksums>) -> Self {
        let count = self.size_bytes() / BLOCK_SIZE_BYTES;
        let complete = checksums.filter(|checksums| checksums.block_count() as u64 == count);
        Self { blocks: complete.map_or(PersistedBlocks::Unknown, PersistedBlocks::Read), ..self }
    }

    /// Returns the total size of the parts.
    pub(super) fn size_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.size_bytes).sum()
    }

    /// Returns whether the last part is shorter than the part size. Then the upload has all of its bytes, and
    /// no part can follow.
    pub(super) fn is_closed(&self, part_size_bytes: u64) -> bool {
        self.parts.last().is_some_and(|last| last.size_bytes < part_size_bytes)
    }

    pub(in crate::app::uploads) fn next_number(&self) -> u32 {
        self.parts.last().map_or(1, |part| part.number + 1)
    }

    /// Returns a hasher in the state after the bytes of the parts.
    pub(super) fn hasher(&self) -> Result<Hasher, Error> {
        match self.parts.last() {
            None => Ok(Hasher::default()),
            Some(last) => Hasher::from_state(&last.sha256_state)
                .ok_or_else(|| Error::internal("invalid digest state of upload")),
        }
    }

    /// Returns a hasher of blocks in the state after the bytes of the parts, or `None` if that is unknown.
    pub(super) fn block_hasher(&self) -> Option<BlockHasher> {
        let Some(last) = self.parts.last() else { return Some(BlockHasher::default()) };
        let whole = match &self.blocks {
            PersistedBlocks::Unread => Vec::new(),
            PersistedBlocks::Read(checksums) => checksums.as_bytes().to_vec(),
            PersistedBlocks::Unknown => return None,
        };
        Some(BlockHasher::resume(whole, last.partial_block?, self.size_bytes()))
    }

    /// Returns the receipts that complete the object, with the checksums of the parts.
    pub(super) fn receipts(&self) -> impl Iterator<Item = (PartReceipt, Crc64)> + '_ {
        self.parts.iter().map(|part| {
            let StoredPart { number, size_bytes, etag, crc64nvme, .. } = part;
            (PartReceipt { number: *number, size_bytes: *size_bytes, etag: etag.clone() }, *crc64nvme)
        })
    }

    /// Returns the parts to compare if a stream begins at this offset: the end of the stored bytes, or the
    /// start of any part. Returns `None` for other offsets.
    pub(super) fn resent_parts_from(&self, offset: u64) -> Option<ResentParts> {
        let mut begin = 0;
        for (index, part) in self.parts.iter().enumerate() {
            if begin == offset {
                return Some(ResentParts::new(
                    self.parts[index..]
                        .iter()
                        .map(|part| ResentPart { size_bytes: part.size_bytes, crc64nvme: part.crc64nvme }),
                ));
            }
            begin += part.size_bytes;
        }
        (begin == offset).then(|| ResentParts::new([]))
    }
}

/// A part to compare.
#[derive(Debug, Clone, Copy)]
struct ResentPart {
    size_bytes: u64,
    crc64nvme: Crc64,
}

/// Bytes that are already in the store and sent again. Each part is compared by its checksum, because a
/// client that sends different bytes means a different file.
#[derive(Debug, Default)]
pub(super) struct ResentParts {
    /// The remaining parts, the next one last.
    parts: Vec<ResentPart>,
    hasher: Crc64Hasher,
    seen_bytes: u64,
}

impl ResentParts {
    fn new(parts: impl IntoIterator<Item = ResentPart>) -> Self {
        let mut parts: Vec<_> = parts.into_iter().collect();
        parts.reverse();
        Self { parts, ..Self::default() }
    }

    /// Whether the stream is in the middle of a part, which is then not compared yet.
    pub(super) fn is_inside_part(&self) -> bool {
        self.seen_bytes > 0
    }

    /// Removes bytes that are already in the store from the front of `data`, and compares them.
    pub(super) fn compare(&mut self, data: &mut Bytes) -> Result<(), Error> {
        while let Some(ResentPart { size_bytes, crc64nvme }) = self.parts.last().copied() {
            if data.is_empty() {
                return Ok(());
            }
            let missing = usize::try_from(size_bytes - self.seen_bytes).unwrap_or(usize::MAX);
            let piece = data.split_to(missing.min(data.len()));
            self.hasher.update(&piece);
            self.seen_bytes += piece.len() as u64;
            if self.seen_bytes == size_bytes {
                if std::mem::take(&mut self.hasher).finish() != crc64nvme {
                    return Err(UploadError::ResentBytesDiffer.into());
                }
                self.parts.pop();
                self.seen_bytes = 0;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: usize = 4;

    fn parts(bytes: &[u8]) -> Vec<StoredPart> {
        let part = |(number, bytes): (u32, &[u8])| StoredPart {
            number,
            size_bytes: bytes.len() as u64,
            etag: String::new(),
            crc64nvme: Crc64::compute(bytes),
            sha256_state: Hasher::default().state(),
            partial_block: None,
        };
        (1..).zip(bytes.chunks(PART)).map(part).collect()
    }

    #[test]
    fn counts_parts_up_to_first_gap() {
        let all = parts(b"0123456789");
        for (missing, persisted) in [(0, 0), (1, 4), (2, 8), (3, 10)] {
            let mut some = all.clone();
            if missing < some.len() {
                some.remove(missing);
            }
            assert_eq!(PersistedParts::from_rows(some).size_bytes(), persisted);
        }
        assert_eq!(PersistedParts::from_rows(all).next_number(), 4);
    }

    #[test]
    fn compares_resent_bytes_and_keeps_the_rest() {
        let persisted = PersistedParts::from_rows(parts(b"01234567"));
        for begin in [0, 4, 8] {
            let mut resent = persisted.resent_parts_from(begin).unwrap();
            let mut new_bytes = Vec::new();
            for piece in b"01234567new"[usize::try_from(begin).unwrap()..].chunks(3) {
                let mut data = Bytes::copy_from_slice(piece);
                resent.compare(&mut data).unwrap();
                new_bytes.extend_from_slice(&data);
            }
            assert_eq!(new_bytes, b"new");
        }
    }

    #[test]
    fn rejects_different_bytes_and_offsets_inside_parts() {
        let persisted = PersistedParts::from_rows(parts(b"01234567"));
        let mut resent = persisted.resent_parts_from(4).unwrap();
        assert!(matches!(
            resent.compare(&mut Bytes::from_static(b"4x67")),
            Err(Error::Upload(UploadError::ResentBytesDiffer))
        ));
        for inside in [1, 3, 5, 9] {
            assert!(persisted.resent_parts_from(inside).is_none());
        }
    }
}
