//! Whether this is the store's database at all. One that was cloned or restored knows every tenant and every old object, but
//! not what another one has stored since: to it, most of what is young is nobody's. A crash leaves a few objects among many
//! that have their rows. So where, from some day on, more objects lack a row than have one, nothing is removed.

use std::collections::BTreeMap;

use chrono::NaiveDate;

/// So many objects without a row prove nothing: they are what a crash leaves.
const NOBODYS_MAX: u64 = 20;

/// The objects that a round looked at, by the days of their keys.
#[derive(Debug, Default)]
pub(super) struct Days(BTreeMap<NaiveDate, Counts>);

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    owned: u64,
    nobodys: u64,
}

/// From some day on, most objects have no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Doubt {
    since: NaiveDate,
    owned: u64,
    nobodys: u64,
}

impl Days {
    pub(super) fn count(&mut self, day: NaiveDate, is_owned: bool) {
        let counts = self.0.entry(day).or_default();
        if is_owned {
            counts.owned += 1;
        } else {
            counts.nobodys += 1;
        }
    }

    /// The youngest day from which on it is in doubt whose store this is.
    pub(super) fn doubt(&self) -> Option<Doubt> {
        let mut sum = Counts::default();
        self.0.iter().rev().find_map(|(since, counts)| {
            sum.owned += counts.owned;
            sum.nobodys += counts.nobodys;
            let is_doubtful = sum.nobodys > NOBODYS_MAX && sum.nobodys > sum.owned;
            is_doubtful.then_some(Doubt { since: *since, owned: sum.owned, nobodys: sum.nobodys })
        })
    }
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "nothing was removed: of the objects since {} this database knows {} and does not know {}, so the store seems \
             to be used with another database. If it is this one's alone, because it was restored from a backup, say so: \
             strongroom sweep --trust-database",
            self.since, self.owned, self.nobodys
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(counts: &[(u64, u64)]) -> Days {
        let day = |n: usize| NaiveDate::from_ymd_opt(2026, 1, 1).unwrap() + chrono::Days::new(n as u64);
        let counted = counts.iter().enumerate();
        Days(counted.map(|(n, &(owned, nobodys))| (day(n), Counts { owned, nobodys })).collect())
    }

    #[test]
    fn what_a_crash_leaves_is_no_reason_for_doubt_and_days_of_somebody_else_are() {
        for harmless in [&[][..], &[(0, 20)], &[(21, 21)], &[(1_000, 400), (1_000, 400)], &[(0, 14), (10, 6)]]
        {
            assert_eq!(days(harmless).doubt(), None, "{harmless:?}");
        }
        for doubtful in [&[(0, 21)][..], &[(9_999, 0), (5, 11), (5, 10)], &[(9_999, 0), (0, 30), (0, 0)]] {
            assert!(days(doubtful).doubt().is_some(), "{doubtful:?}");
        }
        let text = days(&[(9_999, 0), (5, 11), (5, 10)]).doubt().unwrap().to_string();
        assert!(text.contains("since 2026-01-02 this database knows 10 and does not know 21"), "{text}");
    }
}
