//! Byte ranges of downloads.

use std::ops::Range;

use super::violations::Violations;

/// A requested byte range.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByteRangeRequest {
    /// The first byte. A negative offset counts from the end of the file.
    pub offset: i64,
    /// The maximum number of bytes; 0 means up to the end of the file.
    pub limit: u64,
}

/// The range starts after the end of the file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the read starts after the end of the file, which has {size_bytes} bytes")]
pub struct OutOfRange {
    pub size_bytes: u64,
}

impl ByteRangeRequest {
    /// Creates a request from the two fields of the RPC.
    ///
    /// # Errors
    /// Returns a violation if `limit` is negative.
    pub fn new(offset: i64, limit: i64) -> Result<Self, Violations> {
        match u64::try_from(limit) {
            Ok(limit) => Ok(Self { offset, limit }),
            Err(_) => Err(Violations::one("read_limit", "must not be negative; 0 reads to the end")),
        }
    }

    /// Computes the range within a file of this size.
    ///
    /// A negative offset that exceeds the size selects the whole file. An offset at the end selects an empty
    /// range.
    ///
    /// # Errors
    /// Returns [`OutOfRange`] if the offset is after the end of the file.
    pub fn resolve(self, size_bytes: u64) -> Result<Range<u64>, OutOfRange> {
        let start = match u64::try_from(self.offset) {
            Ok(offset) if offset > size_bytes => return Err(OutOfRange { size_bytes }),
            Ok(offset) => offset,
            Err(_) => size_bytes.saturating_sub(self.offset.unsigned_abs()),
        };
        let end = match self.limit {
            0 => size_bytes,
            limit => size_bytes.min(start.saturating_add(limit)),
        };
        Ok(start..end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resolve(offset: i64, limit: i64, size: u64) -> Result<Range<u64>, OutOfRange> {
        ByteRangeRequest::new(offset, limit).unwrap().resolve(size)
    }

    #[test]
    fn negative_offset_counts_from_the_end() {
        assert_eq!(resolve(-3, 0, 10), Ok(7..10));
        assert_eq!(resolve(-3, 2, 10), Ok(7..9));
        assert_eq!(resolve(-30, 0, 10), Ok(0..10));
    }

    #[test]
    fn offset_at_end_is_empty_and_beyond_is_rejected() {
        assert_eq!(resolve(10, 0, 10), Ok(10..10));
        assert_eq!(resolve(11, 0, 10), Err(OutOfRange { size_bytes: 10 }));
        assert_eq!(resolve(0, 0, 0), Ok(0..0));
    }

    #[test]
    fn negative_limit_is_rejected() {
        assert!(ByteRangeRequest::new(0, -1).is_err());
    }

    proptest! {
        #[test]
        fn range_is_always_within_the_file(offset: i64, limit in 0i64.., size in 0..=i64::MAX as u64) {
            if let Ok(range) = resolve(offset, limit, size) {
                prop_assert!(range.start <= range.end && range.end <= size);
                prop_assert!(limit == 0 || range.end - range.start <= limit.cast_unsigned());
            } else {
                prop_assert!(offset > 0 && offset.cast_unsigned() > size);
            }
        }
    }
}
