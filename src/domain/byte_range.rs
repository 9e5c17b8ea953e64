//! Which bytes a download asks for.

use std::ops::Range;

use super::violations::Violations;

/// What a caller asks for: an offset (negative counts from the end) and a limit (0 means to the end).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByteRangeRequest {
    /// The first byte; negative counts from the end.
    pub offset: i64,
    /// How many bytes at most; 0 means to the end.
    pub limit: u64,
}

/// The read would begin beyond the end of the file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the read begins beyond the end of the file, which has {size_bytes} bytes")]
pub struct OutOfRange {
    /// The size of the file.
    pub size_bytes: u64,
}

impl ByteRangeRequest {
    /// Reads the two fields of the contract.
    pub fn new(offset: i64, limit: i64) -> Result<Self, Violations> {
        match u64::try_from(limit) {
            Ok(limit) => Ok(Self { offset, limit }),
            Err(_) => Err(Violations::one("read_limit", "must not be negative; 0 reads to the end")),
        }
    }

    /// The bytes of a file of this size. A suffix longer than the file is the whole file; an offset at the end is an
    /// empty range; an offset beyond it is an error.
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
    fn a_negative_offset_reads_the_end_of_the_file() {
        assert_eq!(resolve(-3, 0, 10), Ok(7..10));
        assert_eq!(resolve(-3, 2, 10), Ok(7..9));
        assert_eq!(resolve(-30, 0, 10), Ok(0..10));
    }

    #[test]
    fn the_end_itself_is_an_empty_range_and_one_further_is_refused() {
        assert_eq!(resolve(10, 0, 10), Ok(10..10));
        assert_eq!(resolve(11, 0, 10), Err(OutOfRange { size_bytes: 10 }));
        assert_eq!(resolve(0, 0, 0), Ok(0..0));
    }

    #[test]
    fn a_negative_limit_is_a_violation() {
        assert!(ByteRangeRequest::new(0, -1).is_err());
    }

    proptest! {
        #[test]
        fn a_range_never_leaves_the_file(offset: i64, limit in 0i64.., size in 0..=i64::MAX as u64) {
            if let Ok(range) = resolve(offset, limit, size) {
                prop_assert!(range.start <= range.end && range.end <= size);
                prop_assert!(limit == 0 || range.end - range.start <= limit.cast_unsigned());
            } else {
                prop_assert!(offset > 0 && offset.cast_unsigned() > size);
            }
        }
    }
}
