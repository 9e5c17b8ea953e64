//! A random sample of the stored blobs.

use std::{str::FromStr, sync::Arc};

use crate::domain::clock::IdSource;

/// The size of a random sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleSize {
    /// This number of blobs.
    Count(u64),
    /// This percentage of all blobs, rounded up.
    Percent(u8),
    Everything,
}

impl FromStr for SampleSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid =
            || "must be a number of blobs, such as 1000, or a percentage of all blobs, such as 5%".to_owned();
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
    remaining_items: u64,
    remaining_choices: u64,
}

impl Sample {
    /// Creates a sample of a stream of `total` items. Further items are not chosen.
    pub(super) fn new(depth: SampleSize, total: u64, ids: Arc<dyn IdSource>) -> Self {
        let remaining_choices = match depth {
            SampleSize::Count(count) => count.min(total),
            SampleSize::Percent(percent) => total.saturating_mul(percent.into()).div_ceil(100),
            SampleSize::Everything => total,
        };
        Self { ids, remaining_items: total, remaining_choices }
    }

    /// Returns whether the next item is chosen.
    pub(super) fn choose_next(&mut self) -> bool {
        if self.remaining_items == 0 {
            return false;
        }
        // The probability is the number of items still to choose, divided by the number of remaining items.
        // The low bits of a new id are random.
        let random = self.ids.uuid().as_u64_pair().1 % self.remaining_items;
        let is_chosen = random < self.remaining_choices;
        self.remaining_items -= 1;
        self.remaining_choices -= u64::from(is_chosen);
        is_chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::SystemIds;

    fn chosen(depth: SampleSize, total: u64) -> Vec<u64> {
        let mut sample = Sample::new(depth, total, Arc::new(SystemIds));
        (0..total + 5).filter(|_| sample.choose_next()).collect()
    }

    #[test]
    fn sample_has_requested_size_and_varies() {
        assert_eq!(chosen(SampleSize::Count(10), 1000).len(), 10);
        assert_eq!(chosen(SampleSize::Count(10), 7), (0..7).collect::<Vec<_>>());
        assert_eq!(chosen(SampleSize::Percent(1), 101).len(), 2);
        assert_eq!(chosen(SampleSize::Percent(0), 100), [0; 0]);
        assert_eq!(chosen(SampleSize::Everything, 50), (0..50).collect::<Vec<_>>());
        assert_ne!(chosen(SampleSize::Count(30), 1000), chosen(SampleSize::Count(30), 1000));
    }

    #[test]
    fn chooses_all_positions_with_equal_probability() {
        let mut seen = [0; 10];
        for _ in 0..2000 {
            for item in chosen(SampleSize::Count(3), 10) {
                seen[usize::try_from(item).unwrap()] += 1;
            }
        }
        assert!(seen.iter().all(|count| (450..750).contains(count)), "{seen:?}");
    }

    #[test]
    fn parses_depth_as_count_or_percentage() {
        assert_eq!(("12".parse(), "5%".parse()), (Ok(SampleSize::Count(12)), Ok(SampleSize::Percent(5))));
        for invalid in ["", "%", "101%", "-1", "many"] {
            assert!(invalid.parse::<SampleSize>().is_err(), "{invalid}");
        }
    }
}
