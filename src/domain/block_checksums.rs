//! The checksums of the blocks of a blob: one CRC-32C for each MiB of its bytes. A download verifies each block that it
//! reads before it sends any byte of it, so a range is verified without reading the whole blob.
//!
//! A blob of one block has none: its CRC-64 covers the same bytes.

use std::{fmt, ops::Range};

use crc_fast::{CrcAlgorithm, Digest};

/// The size of a block, in bytes. The last block of a blob may be shorter.
pub const BLOCK_SIZE_BYTES: u64 = 1024 * 1024;

/// Returns the range of the blocks that a range of bytes touches. An empty range touches none and is returned as it is.
pub fn cover_blocks(range: &Range<u64>, size_bytes: u64) -> Range<u64> {
    if range.is_empty() {
        return range.clone();
    }
    let start = range.start - range.start % BLOCK_SIZE_BYTES;
    let end = range.end.div_ceil(BLOCK_SIZE_BYTES).saturating_mul(BLOCK_SIZE_BYTES);
    start..end.min(size_bytes)
}

/// A CRC-32C (Castagnoli) checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crc32c(u32);

impl Crc32c {
    /// The length of a checksum, in bytes.
    pub const LENGTH_BYTES: usize = 4;

    /// Computes the checksum of the concatenation of byte sequences.
    pub fn compute<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut digest = new_digest();
        pieces.into_iter().for_each(|piece| digest.update(piece));
        Self::of_digest(&digest)
    }

    /// Creates a checksum from its 4 bytes, most significant first. Returns `None` if the length is wrong.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|bytes| Self(u32::from_be_bytes(bytes)))
    }

    /// Returns the bytes of the checksum, most significant first.
    pub const fn to_be_bytes(self) -> [u8; Self::LENGTH_BYTES] {
        self.0.to_be_bytes()
    }

    fn of_digest(digest: &Digest) -> Self {
        Self::from_wide(digest.finalize())
    }

    /// Converts the result of the library, which returns every algorithm's checksum as 64 bits.
    fn from_wide(checksum: u64) -> Self {
        Self(u32::try_from(checksum).unwrap_or_default())
    }

    /// Returns the checksum of two concatenated byte sequences: that of `self` and that of `next`, which has the given
    /// length.
    #[must_use]
    pub fn combine(self, next: Self, next_len_bytes: u64) -> Self {
        Self(multiply(power_of_x(next_len_bytes), self.0) ^ next.0)
    }

    /// Returns the number whose most significant byte is the first one of [`Self::to_be_bytes`].
    pub const fn as_u32(self) -> u32 {
        self.0
    }
}

/// The library calls the CRC-32C CRC-32/ISCSI.
fn new_digest() -> Digest {
    Digest::new(CrcAlgorithm::Crc32Iscsi)
}

/// The polynomial of the CRC-32C. Its coefficients and those of other polynomials are in reverse order of the bits: the
/// most significant bit is that of x⁰.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// The powers x^(8·2ⁿ) modulo the polynomial, for n from 0.
const POWERS: [u32; 64] = {
    let mut powers = [0; 64];
    // x⁸
    powers[0] = 1 << 23;
    let mut n = 1;
    while n < powers.len() {
        powers[n] = multiply(powers[n - 1], powers[n - 1]);
        n += 1;
    }
    powers
};

/// Multiplies two polynomials modulo that of the CRC-32C. The library combines checksums a hundred times slower, which
/// takes longer than to compute the checksum of a block.
const fn multiply(one: u32, mut other: u32) -> u32 {
    let mut product = 0;
    let mut bit = 1 << 31;
    while bit != 0 {
        if one & bit != 0 {
            product ^= other;
        }
        bit >>= 1;
        other = if other & 1 == 0 { other >> 1 } else { (other >> 1) ^ POLYNOMIAL };
    }
    product
}

/// Returns x^(8·`len_bytes`) modulo the polynomial of the CRC-32C. Multiplying a checksum by it appends zeros.
fn power_of_x(len_bytes: u64) -> u32 {
    let is_set = |n: &usize| len_bytes >> n & 1 == 1;
    (0..POWERS.len()).filter(is_set).fold(1 << 31, |power, n| multiply(power, POWERS[n]))
}

/// The checksums of consecutive blocks, each most significant byte first.
#[derive(Clone, PartialEq, Eq)]
pub struct BlockChecksums(Vec<u8>);

impl BlockChecksums {
    /// Creates the checksums from the bytes that [`Self::as_bytes`] returned. An incomplete checksum at the end is
    /// ignored.
    pub const fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of all checksums.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the number of blocks.
    pub fn block_count(&self) -> usize {
        self.0.len() / Crc32c::LENGTH_BYTES
    }

    /// Returns the checksum of a block, if it is one of these.
    pub fn get(&self, index: u64) -> Option<Crc32c> {
        let start = usize::try_from(index).ok()?.checked_mul(Crc32c::LENGTH_BYTES)?;
        Crc32c::from_slice(self.0.get(start..start.checked_add(Crc32c::LENGTH_BYTES)?)?)
    }
}

/// Formats the checksums as hexadecimal digits.
impl fmt::Display for BlockChecksums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for BlockChecksums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockChecksums({} blocks)", self.block_count())
    }
}

/// Consecutive blocks of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSlice {
    /// The first block, from 0.
    pub first: u64,
    pub count: u64,
}

impl BlockSlice {
    /// The slice without any block.
    pub const EMPTY: Self = Self { first: 0, count: 0 };

    /// Returns the first blocks that a range of bytes touches, at most `count_max`.
    pub fn of_range(range: &Range<u64>, count_max: u64) -> Self {
        if range.is_empty() {
            return Self::EMPTY;
        }
        let first = range.start / BLOCK_SIZE_BYTES;
        let count = range.end.div_ceil(BLOCK_SIZE_BYTES) - first;
        Self { first, count: count.min(count_max) }
    }
}

/// Where a [`BlockHasher`] can be resumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockCheckpoint {
    /// The checksums of the whole blocks since the previous checkpoint.
    pub whole: BlockChecksums,
    /// The checksum of the bytes after the last whole block.
    pub partial: Crc32c,
}

/// Computes the checksums of the blocks of a blob from its bytes, which are added in order and in pieces of any size.
#[derive(Debug, Clone)]
pub struct BlockHasher {
    /// The checksums of the whole blocks.
    whole: Vec<u8>,
    /// The length of those that earlier checkpoints contain.
    recorded_len: usize,
    /// The checksum of the bytes of the current block that were added before this hasher was resumed.
    resumed: Option<Crc32c>,
    /// Computes the checksum of the other bytes of the current block.
    digest: Digest,
    /// The number of bytes in the current block.
    partial_bytes: u64,
}

impl Default for BlockHasher {
    fn default() -> Self {
        Self { whole: Vec::new(), recorded_len: 0, resumed: None, digest: new_digest(), partial_bytes: 0 }
    }
}

impl BlockHasher {
    /// Continues after `size_bytes` bytes. `whole` contains the checksums of the whole blocks of all checkpoints, and
    /// `partial` is that of the last one. Without `whole` the result contains only the blocks that end later.
    pub fn resume(whole: Vec<u8>, partial: Crc32c, size_bytes: u64) -> Self {
        Self {
            recorded_len: whole.len(),
            whole,
            resumed: Some(partial),
            partial_bytes: size_bytes % BLOCK_SIZE_BYTES,
            ..Self::default()
        }
    }

    /// Adds the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let missing = usize::try_from(BLOCK_SIZE_BYTES - self.partial_bytes).unwrap_or(usize::MAX);
            let (piece, rest) = bytes.split_at(bytes.len().min(missing));
            self.digest.update(piece);
            self.partial_bytes += piece.len() as u64;
            if self.partial_bytes == BLOCK_SIZE_BYTES {
                self.end_block();
            }
            bytes = rest;
        }
    }

    /// Returns a checkpoint after the added bytes.
    pub fn checkpoint(&mut self) -> BlockCheckpoint {
        let whole = BlockChecksums(self.whole[self.recorded_len..].to_vec());
        self.recorded_len = self.whole.len();
        BlockCheckpoint { whole, partial: self.partial_checksum() }
    }

    /// Returns the checksums of all blocks; `None` if there is at most one block.
    pub fn finish(mut self) -> Option<BlockChecksums> {
        if self.partial_bytes > 0 {
            self.end_block();
        }
        (self.whole.len() > Crc32c::LENGTH_BYTES).then_some(BlockChecksums(self.whole))
    }

    fn end_block(&mut self) {
        self.whole.extend_from_slice(&self.partial_checksum().to_be_bytes());
        self.resumed = None;
        self.digest = new_digest();
        self.partial_bytes = 0;
    }

    /// Returns the checksum of the bytes of the current block.
    fn partial_checksum(&self) -> Crc32c {
        let added = Crc32c::of_digest(&self.digest);
        self.resumed.map_or(added, |resumed| resumed.combine(added, self.digest.get_amount()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK: usize = 1 << 20;

    fn pattern(size: usize) -> Vec<u8> {
        // A block is no multiple of the period, so blocks differ.
        let period: Vec<u8> = (0..=250).collect();
        let mut bytes = period.repeat(size / period.len() + 1);
        bytes.truncate(size);
        bytes
    }

    /// Computes the checksums without a hasher that keeps a state.
    fn compute_naively(bytes: &[u8]) -> Option<BlockChecksums> {
        let blocks = bytes.chunks(BLOCK).map(|block| Crc32c::compute([block]).to_be_bytes());
        let all = blocks.collect::<Vec<_>>().concat();
        (bytes.len() > BLOCK).then_some(BlockChecksums(all))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn splits_and_resumed_parts_do_not_matter(
            size in prop_oneof![0..3 * BLOCK, Just(BLOCK), Just(BLOCK + 1), Just(2 * BLOCK)],
            cuts in proptest::collection::vec((0..3 * BLOCK, any::<bool>()), 0..12),
        ) {
            let bytes = pattern(size);
            let mut cuts: Vec<_> = cuts.into_iter().map(|(cut, resumes)| (cut.min(size), resumes)).collect();
            cuts.sort_unstable();
            let (mut hasher, mut recorded, mut start) = (BlockHasher::default(), Vec::new(), 0);
            for (cut, resumes) in cuts {
                hasher.update(&bytes[start..cut]);
                start = cut;
                if resumes {
                    // Another process continues from the records of the parts.
                    let BlockCheckpoint { whole, partial } = hasher.checkpoint();
                    recorded.extend_from_slice(whole.as_bytes());
                    prop_assert_eq!(recorded.len(), cut / BLOCK * Crc32c::LENGTH_BYTES);
                    hasher = BlockHasher::resume(recorded.clone(), partial, cut as u64);
                }
            }
            hasher.update(&bytes[start..]);
            prop_assert_eq!(hasher.finish(), compute_naively(&bytes));
        }

        #[test]
        fn covering_blocks_add_less_than_one_block_at_each_end(
            size in 0..10 * BLOCK_SIZE_BYTES,
            start in 0..10 * BLOCK_SIZE_BYTES,
            length in 0..10 * BLOCK_SIZE_BYTES,
        ) {
            let start = start.min(size);
            let range = start..size.min(start + length);
            let covered = cover_blocks(&range, size);
            prop_assert!(covered.start <= range.start && range.start - covered.start < BLOCK_SIZE_BYTES);
            prop_assert!(covered.end >= range.end && covered.end - range.end < BLOCK_SIZE_BYTES);
            if !range.is_empty() {
                prop_assert_eq!(covered.start % BLOCK_SIZE_BYTES, 0);
                prop_assert!(covered.end.is_multiple_of(BLOCK_SIZE_BYTES) || covered.end == size);
                let slice = BlockSlice::of_range(&range, 100);
                prop_assert_eq!(slice, BlockSlice::of_range(&covered, 100));
                prop_assert_eq!(slice.count, (covered.end - covered.start).div_ceil(BLOCK_SIZE_BYTES));
            }
        }
    }

    #[test]
    fn checksum_matches_the_catalog_value() {
        assert_eq!(Crc32c::compute([&b"1234"[..], b"56789"]).to_be_bytes(), 0xE306_9283_u32.to_be_bytes());
    }

    #[test]
    fn combined_checksum_is_that_of_the_concatenation() {
        let bytes = pattern(BLOCK + 77);
        for cut in [0, 1, 7, 4_096, BLOCK, bytes.len()] {
            let (first, next) = bytes.split_at(cut);
            let combined = Crc32c::compute([first]).combine(Crc32c::compute([next]), next.len() as u64);
            assert_eq!(combined, Crc32c::compute([&bytes[..]]), "{cut}");
        }
    }

    #[test]
    fn blocks_are_found_by_their_number() {
        let checksums = compute_naively(&pattern(2 * BLOCK + 1)).unwrap();
        assert_eq!(checksums.block_count(), 3);
        assert_eq!(checksums.get(2), Some(Crc32c::compute([&pattern(2 * BLOCK + 1)[2 * BLOCK..]])));
        assert_eq!((checksums.get(3), checksums.get(u64::MAX)), (None, None));
    }

    #[test]
    fn slice_of_open_range_is_bounded() {
        let slice = BlockSlice::of_range(&(3 * BLOCK_SIZE_BYTES..u64::MAX), 100);
        assert_eq!(slice, BlockSlice { first: 3, count: 100 });
        assert_eq!(BlockSlice::of_range(&(5..5), 100), BlockSlice::EMPTY);
    }
}
