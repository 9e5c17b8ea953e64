//! Computes all checksums of an object in one pass over its bytes.

use super::{
    block_checksums::{BlockChecksums, BlockHasher},
    checksum::Crc64Hasher,
    digest::{Hasher, ObjectHashes},
};

/// Computes the checksums of an object from its bytes, which are added in order.
#[derive(Debug, Clone, Default)]
pub struct ObjectHasher {
    sha256: Hasher,
    crc64nvme: Crc64Hasher,
    blocks: BlockHasher,
    size_bytes: u64,
}

/// The checksums of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashedObject {
    pub hashes: ObjectHashes,
    /// The checksums of the blocks; `None` if there is at most one block.
    pub block_checksums: Option<BlockChecksums>,
    /// The number of bytes that were added.
    pub size_bytes: u64,
}

impl ObjectHasher {
    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.crc64nvme.update(bytes);
        self.blocks.update(bytes);
        self.size_bytes += bytes.len() as u64;
    }

    /// Returns the checksums of all added bytes.
    pub fn finish(self) -> HashedObject {
        HashedObject {
            hashes: ObjectHashes { sha256: self.sha256.finish(), crc64nvme: self.crc64nvme.finish() },
            block_checksums: self.blocks.finish(),
            size_bytes: self.size_bytes,
        }
    }
}
