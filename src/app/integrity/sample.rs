//! How much of what is stored is read again, and which of it.

use std::{str::FromStr, sync::Arc};

use crate::domain::clock::IdSource;

/// How many blobs are read and hashed. All of them are looked for, whatever this says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// So many, chosen at random.
    Count(u64),
    /// So many of a hundred, rounded up, chosen at random.
    Percent(u8),
    /// All.
    Everything,
}

impl FromStr for Depth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write a number of blobs, such as 1000, or a share of them, such as 5%".to_owned();
        match text.strip_suffix('%') {
            Some(percent) => match percent.parse() {
                Ok(percent @ 0..=100) => Ok(Self::Percent(percent)),
                _ => Err(wrong()),
            },
            None => text.parse().map(Self::Count).map_err(|_| wrong()),
        }
    }
}

/// Chooses from what passes by, each with the same chance, as many as are wanted; keeps none of it in memory.
pub(super) struct Sample {
    ids: Arc<dyn IdSource>,
    left: u64,
    wanted: u64,
}

impl Sample {
    /// A choice from so many in all. Should more pass by, those are not chosen.
    pub(super) fn of(depth: Depth, total: u64, ids: Arc<dyn IdSource>) -> Self {
        let wanted = match depth {
            Depth::Count(count) => count.min(total),
            Depth::Percent(percent) => total.saturating_mul(percent.into()).div_ceil(100),
            Depth::Everything => total,
        };
        Self { ids, left: total, wanted }
    }

    /// Whether the next one is chosen.
    pub(super) fn takes_next(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        // The chance of each is what is still wanted of what is still left. The low bits of a fresh id are random.
        let dice = self.ids.uuid().as_u64_pair().1 % self.left;
        let is_taken = dice < self.wanted;
        self.left -= 1;
        self.wanted -= u64::from(is_taken);
        is_taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::SystemIds;

    fn taken(depth: Depth, total: u64) -> Vec<u64> {
        let mut sample = Sample::of(depth, total, Arc::new(SystemIds));
        (0..total + 5).filter(|_| sample.takes_next()).collect()
    }

    #[test]
    fn a_sample_has_exactly_as_many_as_are_wanted_and_differs_from_the_last_one() {
        assert_eq!(taken(Depth::Count(10), 1000).len(), 10);
        assert_eq!(taken(Depth::Count(10), 7), (0..7).collect::<Vec<_>>());
        assert_eq!(taken(Depth::Percent(1), 101).len(), 2);
        assert_eq!(taken(Depth::Percent(0), 100), [0; 0]);
        assert_eq!(taken(Depth::Everything, 50), (0..50).collect::<Vec<_>>());
        assert_ne!(taken(Depth::Count(30), 1000), taken(Depth::Count(30), 1000));
    }

    #[test]
    fn every_place_has_its_chance() {
        let mut seen = [0; 10];
        for _ in 0..2000 {
            for place in taken(Depth::Count(3), 10) {
                seen[usize::try_from(place).unwrap()] += 1;
            }
        }
        assert!(seen.iter().all(|count| (450..750).contains(count)), "{seen:?}");
    }

    #[test]
    fn a_depth_is_a_count_or_a_share() {
        assert_eq!(("12".parse(), "5%".parse()), (Ok(Depth::Count(12)), Ok(Depth::Percent(5))));
        for wrong in ["", "%", "101%", "-1", "many"] {
            assert!(wrong.parse::<Depth>().is_err(), "{wrong}");
        }
    }
}
