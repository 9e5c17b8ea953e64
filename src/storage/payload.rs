//! The bytes of a write, as the list of chunks in which they were received. The chunks are never copied.

use std::{
    fmt,
    ops::Range,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;

use super::PIECE_SIZE_BYTES_MAX;
use crate::domain::checksum::{Crc64, Crc64Hasher};

/// The body of an object or of a part. Cloning it, for a retry, clones a pointer.
#[derive(Clone, Default)]
pub struct Payload {
    chunks: Arc<[Bytes]>,
    len_bytes: u64,
    crc64nvme: Arc<OnceLock<Crc64>>,
}

impl Payload {
    /// Returns the total size of all chunks in bytes.
    pub const fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Returns whether the payload has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len_bytes == 0
    }

    /// Returns the CRC-64/NVME checksum. It is computed on first use, once for all clones.
    pub fn crc64nvme(&self) -> Crc64 {
        *self.crc64nvme.get_or_init(|| {
            let mut hasher = Crc64Hasher::default();
            self.chunks.iter().for_each(|chunk| hasher.update(chunk));
            hasher.finish()
        })
    }

    /// Returns the chunks in order. No chunk is empty.
    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// Returns the bytes of `range`, clipped to the payload, in pieces of at most [`PIECE_SIZE_BYTES_MAX`]
    /// without copying.
    pub(super) fn pieces(&self, range: &Range<u64>) -> Vec<Bytes> {
        let mut pieces = Vec::new();
        let mut chunk_start = 0u64;
        for chunk in self.chunks.iter() {
            let chunk_end = chunk_start + chunk.len() as u64;
            let (from, to) = (range.start.max(chunk_start), range.end.min(chunk_end));
            if from < to {
                // Both positions are inside a chunk in memory, so they fit into usize.
                let at = |position: u64| usize::try_from(position - chunk_start).unwrap_or(chunk.len());
                let mut rest = chunk.slice(at(from)..at(to));
                while !rest.is_empty() {
                    pieces.push(rest.split_to(rest.len().min(PIECE_SIZE_BYTES_MAX)));
                }
            }
            chunk_start = chunk_end;
        }
        pieces
    }
}

impl FromIterator<Bytes> for Payload {
    fn from_iter<I: IntoIterator<Item = Bytes>>(chunks: I) -> Self {
        let chunks: Arc<[Bytes]> = chunks.into_iter().filter(|chunk| !chunk.is_empty()).collect();
        let len_bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        Self { chunks, len_bytes, crc64nvme: Arc::default() }
    }
}

impl From<Bytes> for Payload {
    fn from(chunk: Bytes) -> Self {
        std::iter::once(chunk).collect()
    }
}

impl From<Vec<Bytes>> for Payload {
    fn from(chunks: Vec<Bytes>) -> Self {
        chunks.into_iter().collect()
    }
}

/// Prints sizes only, because file content must not appear in logs.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes in {} chunks)", self.len_bytes, self.chunks.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_are_the_bytes_of_the_range(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..6),
            start in 0usize..50,
            len in 0usize..50,
        ) {
            let whole: Vec<u8> = chunks.concat();
            let payload: Payload = chunks.into_iter().map(Bytes::from).collect();
            prop_assert_eq!(payload.len_bytes(), whole.len() as u64);
            let expected: Vec<u8> =
                whole.iter().copied().skip(start).take(len).collect();
            prop_assert_eq!(payload.pieces(&(start as u64..(start + len) as u64)).concat(), expected);
        }
    }

    #[test]
    fn splits_a_large_chunk_into_pieces() {
        let payload = Payload::from(Bytes::from(vec![7; 2 * PIECE_SIZE_BYTES_MAX + 1]));
        let sizes: Vec<_> = payload.pieces(&(0..payload.len_bytes())).iter().map(Bytes::len).collect();
        assert_eq!(sizes, [PIECE_SIZE_BYTES_MAX, PIECE_SIZE_BYTES_MAX, 1]);
    }
}
