//! A random sample of the stored blobs.

use std::{str::FromStr, sync::Arc};

use crate::domain::clock::IdSource;

/// The number of blobs that are read and hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// This number of blobs, chosen at random.
    Count(u64),
    /// This percentage of all blobs, rounded up, chosen at random.
    Percent(u8),
    Everything,
}

impl FromStr for Depth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || "write a number of blobs, such as 1000, or a share of them, such as 5%".to_owned();
        match text.strip_suffix('%') {
            Some(percent) => match percent.parse() {
                Ok(percent @ 0..=100) => Ok(Self::Percent(percent)),
                _ => Err(invalid()),
            },
            None => text.parse().map(Self::Count).map_err(|_| invalid()),
        }
    }
}

/// Chooses a fixed number of items from a stream, each with the same probability, without buffering them.
pub(super) struct Sample {
    ids: Arc<dyn IdSource>,
    remaining_total: u64,
    remaining_chosen: u64,
}

impl Sample {
    /// Creates a sample of a stream of `total` items. Further items are not chosen.
    pub(super) fn new(depth: Depth, total: u64, ids: Arc<dyn IdSource>) -> Self {
        let remaining_chosen = match depth {
            Depth::Count(count) => count.min(total),
            Depth::Percent(percent) => total.saturating_mul(percent.into()).div_ceil(100),
            Depth::Everything => total,
        };
        Self { ids, remaining_total: total, remaining_chosen }
    }

    /// Returns whether the next item is chosen.
    pub(super) fn choose_next(&mut self) -> bool {
        if self.remaining_total == 0 {
            return false;
        }
        // The probability is the number of items still to choose, divided by the number of remaining items.
        // The low bits of a new id are random.
        let random = self.ids.uuid().as_u64_pair().1 % self.remaining_total;
        let is_chosen = random < self.remaining_chosen;
        self.remaining_total -= 1;
        self.remaining_chosen -= u64::from(is_chosen);
        is_chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::SystemIds;

    fn chosen(depth: Depth, total: u64) -> Vec<u64> {
        let mut sample = Sample::new(depth, total, Arc::new(SystemIds));
        (0..total + 5).filter(|_| sample.choose_next()).collect()
    }

    #[test]
    fn sample_has_requested_size_and_varies() {
        assert_eq!(chosen(Depth::Count(10), 1000).len(), 10);
        assert_eq!(chosen(Depth::Count(10), 7), (0..7).collect::<Vec<_>>());
        assert_eq!(chosen(Depth::Percent(1), 101).len(), 2);
        assert_eq!(chosen(Depth::Percent(0), 100), [0; 0]);
        assert_eq!(chosen(Depth::Everything, 50), (0..50).collect::<Vec<_>>());
        assert_ne!(chosen(Depth::Count(30), 1000), chosen(Depth::Count(30), 1000));
    }

    #[test]
    fn chooses_all_positions_with_equal_probability() {
        let mut seen = [0; 10];
        for _ in 0..2000 {
            for place in chosen(Depth::Count(3), 10) {
                seen[usize::try_from(place).unwrap()] += 1;
            }
        }
        assert!(seen.iter().all(|count| (450..750).contains(count)), "{seen:?}");
    }

    #[test]
    fn parses_depth_as_count_or_percentage() {
        assert_eq!(("12".parse(), "5%".parse()), (Ok(Depth::Count(12)), Ok(Depth::Percent(5))));
        for invalid in ["", "%", "101%", "-1", "many"] {
            assert!(invalid.parse::<Depth>().is_err(), "{invalid}");
        }
    }
}
