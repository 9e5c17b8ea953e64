//! The sizes of the parts of a multipart upload, and how much fits into one. This is the only place that computes
//! a limit from the number of parts.
//!
//! In an equal layout, every part has the same size. In a growing layout, a number of parts have one size, and each
//! later part is one fragment larger than the part before it, up to [`GROWN_PART_SIZE_BYTES_MAX`]. A fragment is as
//! large as the first part, so a writer of any part buffers no more than that: it assembles a larger part in the
//! store from its fragments (see [`copy_part`](super::ObjectStorage::copy_part)). In this way an object of unknown
//! size can have [`OBJECT_SIZE_BYTES_MAX`] in fewer than [`PART_NUMBER_MAX`] parts.

/// The highest part number of a multipart upload, as in S3.
pub const PART_NUMBER_MAX: u32 = 10_000;

/// The maximum size of a part in bytes (5 GiB), as in S3.
pub const PART_SIZE_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024;

/// The maximum size of an object in bytes (5 TiB), as in S3.
pub const OBJECT_SIZE_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024 * 1024;

/// The maximum size of a part that grew, in bytes (2 GiB). Stores copy this much within one request timeout.
pub const GROWN_PART_SIZE_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

/// The sizes of the parts of one upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PartLayout {
    part_size_bytes: u64,
    /// The number of parts before the first larger one; `None` if no part is larger.
    equal_parts: Option<u32>,
}

impl PartLayout {
    /// All parts have this size.
    pub const fn equal(part_size_bytes: u64) -> Self {
        Self { part_size_bytes, equal_parts: None }
    }

    /// The first `equal_parts` parts have this size, and later parts consist of several fragments of this size.
    pub const fn growing(part_size_bytes: u64, equal_parts: u32) -> Self {
        Self { part_size_bytes, equal_parts: Some(equal_parts) }
    }

    /// All parts have the same size: this one, or a larger one if an object of `size_bytes` needs it.
    pub fn equal_for(size_bytes: u64, part_size_bytes: u64) -> Self {
        Self::equal(part_size_bytes.max(size_bytes.div_ceil(u64::from(PART_NUMBER_MAX))))
    }

    /// Returns the size of the first part, which is also that of a fragment.
    pub const fn part_size_bytes(self) -> u64 {
        self.part_size_bytes
    }

    /// Returns the number of parts before the first larger one, or `None` if no part is larger.
    pub const fn equal_parts(self) -> Option<u32> {
        self.equal_parts
    }

    /// Returns the number of fragments of a part.
    pub fn fragment_count(self, number: u32) -> u64 {
        match self.equal_parts {
            Some(equal_parts) => {
                (u64::from(number.saturating_sub(equal_parts)) + 1).min(self.fragment_count_max())
            }
            None => 1,
        }
    }

    /// Returns the size of a part that is not the last one.
    pub fn size_of(self, number: u32) -> u64 {
        self.fragment_count(number) * self.part_size_bytes
    }

    /// Returns the offset of the first byte of a part.
    pub fn offset_of(self, number: u32) -> u64 {
        let before = u64::from(number.saturating_sub(1));
        let grown = match self.equal_parts {
            Some(equal_parts) => before.saturating_sub(u64::from(equal_parts)),
            None => 0,
        };
        // The grown parts have 2, 3, 4 … fragments until they have the maximum.
        let growing = grown.min(self.fragment_count_max() - 1);
        let fragments =
            before - grown + growing * (growing + 3) / 2 + (grown - growing) * self.fragment_count_max();
        fragments * self.part_size_bytes
    }

    /// Returns the maximum size of an object with this layout.
    pub fn size_max_bytes(self) -> u64 {
        self.offset_of(PART_NUMBER_MAX + 1).min(OBJECT_SIZE_BYTES_MAX)
    }

    fn fragment_count_max(self) -> u64 {
        (GROWN_PART_SIZE_BYTES_MAX / self.part_size_bytes.max(1)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    /// The part sizes that can be configured.
    fn part_size_bytes() -> impl Strategy<Value = u64> {
        5 * MIB..=64 * MIB
    }

    /// The layouts that can be configured.
    fn layout() -> impl Strategy<Value = PartLayout> {
        (part_size_bytes(), proptest::option::of(1u32..=7_000)).prop_map(|(part_size_bytes, equal_parts)| {
            match equal_parts {
                Some(equal_parts) => PartLayout::growing(part_size_bytes, equal_parts),
                None => PartLayout::equal(part_size_bytes),
            }
        })
    }

    proptest! {
        #[test]
        fn object_of_any_size_needs_fewer_parts_than_the_maximum(
            part_size_bytes in part_size_bytes(),
            equal_parts in 1u32..=7_000,
        ) {
            let layout = PartLayout::growing(part_size_bytes, equal_parts);
            prop_assert_eq!(layout.size_max_bytes(), OBJECT_SIZE_BYTES_MAX);
            prop_assert!(layout.offset_of(PART_NUMBER_MAX) >= OBJECT_SIZE_BYTES_MAX, "fewer than the maximum");
        }

        #[test]
        fn each_part_follows_the_one_before(layout in layout(), number in 1..=PART_NUMBER_MAX) {
            prop_assert_eq!(layout.offset_of(number) + layout.size_of(number), layout.offset_of(number + 1));
            prop_assert!((layout.part_size_bytes()..=GROWN_PART_SIZE_BYTES_MAX).contains(&layout.size_of(number)));
            prop_assert!(layout.size_of(number) <= layout.size_of(number + 1), "no part is smaller");
        }

        #[test]
        fn equal_parts_are_large_enough_for_the_object(
            part_size_bytes in part_size_bytes(),
            size_bytes in 0..=OBJECT_SIZE_BYTES_MAX,
        ) {
            let layout = PartLayout::equal_for(size_bytes, part_size_bytes);
            prop_assert!(layout.size_max_bytes() >= size_bytes);
            prop_assert!((part_size_bytes..=PART_SIZE_BYTES_MAX).contains(&layout.part_size_bytes()));
        }
    }

    #[test]
    fn parts_grow_by_one_fragment() {
        let layout = PartLayout::growing(8 * MIB, 7_000);
        let counts =
            [1, 7_000, 7_001, 7_002, 7_255, 7_256, 10_000].map(|number| layout.fragment_count(number));
        assert_eq!(counts, [1, 1, 2, 3, 256, 256, 256]);
        assert_eq!(layout.offset_of(7_001), 7_000 * 8 * MIB);
        assert_eq!(layout.offset_of(7_003), 7_005 * 8 * MIB);
        assert_eq!(PartLayout::equal(8 * MIB).size_max_bytes(), 80_000 * MIB);
    }
}
