//! A seeded random number generator (`SplitMix64`), with the same numbers on every machine.

pub(super) struct Rng(u64);

/// Hashes a seed to a uniformly distributed number.
pub(super) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    pub(super) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// Returns a number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next_u64() % end as u64) as usize
    }

    /// Returns true with a probability in percent.
    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// Returns a random item, or `None` if there is none.
    pub(super) fn pick<T: Clone>(&mut self, items: &[T]) -> Option<T> {
        (!items.is_empty()).then(|| items[self.below(items.len())].clone())
    }

    /// Returns a name with a probability proportional to its weight.
    pub(super) fn pick_weighted(&mut self, items: &[(usize, &'static str)]) -> &'static str {
        let mut left = self.below(items.iter().map(|(weight, _)| weight).sum());
        for (weight, name) in items {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return name,
            }
        }
        unreachable!("the number is below the sum of the weights")
    }

    pub(super) fn uuid(&mut self) -> String {
        uuid::Uuid::from_u64_pair(self.next_u64(), self.next_u64()).to_string()
    }
}
