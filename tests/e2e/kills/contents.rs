//! Deterministic randomness, and the bytes of files that are derived from a label.

use std::sync::OnceLock;

use bytes::Bytes;
use strongroom::domain::digest::Digest;

/// The smallest part that can be configured, in bytes.
pub(super) const PART: usize = 5 << 20;
/// The size of the pseudo-random block that all contents repeat, in bytes. A prime number, so that no part of a file
/// equals another.
const BLOCK: usize = 1_048_573;

/// A deterministic random number generator (xorshift64).
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    /// Creates a generator. Streams with the same seed are independent.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self((seed ^ stream.wrapping_mul(0x9E37_79B9_7F4A_7C15)) | 1);
        // The first values of similar seeds are similar.
        for _ in 0..16 {
            random.next();
        }
        random
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Returns a number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }
}

/// The content of one version.
#[derive(Debug, Clone)]
pub(super) struct Content {
    label: String,
    pub(super) size: usize,
    pub(super) digest: Digest,
}

impl Content {
    /// Computes the digest of the content with this label and size.
    pub(super) fn new(label: String, size: usize) -> Self {
        let digest = Digest::compute(&bytes_for(&label, size));
        Self { label, size, digest }
    }

    pub(super) fn bytes(&self) -> Bytes {
        bytes_for(&self.label, self.size)
    }

    pub(super) fn size_bytes(&self) -> i64 {
        i64::try_from(self.size).unwrap()
    }
}

/// Returns the label, followed by the block from a position that depends on the label.
fn bytes_for(label: &str, size: usize) -> Bytes {
    static REPEATED: OnceLock<Vec<u8>> = OnceLock::new();
    let block = REPEATED.get_or_init(|| {
        let mut random = Random::new(0x5EED, 0);
        let mut block = Vec::with_capacity(BLOCK + 8);
        while block.len() < BLOCK {
            block.extend_from_slice(&random.next().to_le_bytes());
        }
        block.truncate(BLOCK);
        block
    });
    let digest = Digest::compute(label.as_bytes());
    let start = usize::from(digest.as_bytes()[0]) << 12;
    let mut bytes = Vec::with_capacity(size + BLOCK);
    bytes.extend_from_slice(label.as_bytes());
    bytes.extend_from_slice(&digest.as_bytes()[..]);
    bytes.extend_from_slice(&block[start..]);
    while bytes.len() < size {
        bytes.extend_from_slice(block);
    }
    bytes.truncate(size);
    Bytes::from(bytes)
}
