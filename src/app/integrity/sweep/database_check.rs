//! Detects a database that does not belong to the store. A cloned or restored database has the rows of all
//! tenants and old objects, but not of objects that another database has stored since then, so most recent
//! objects have no row in it. A crash, in contrast, leaves few objects without a row. So if from some day on
//! more objects lack a row than have one, nothing is deleted.

use std::collections::BTreeMap;

use chrono::NaiveDate;

/// The number of objects without a row that a crash may leave. Up to this number proves nothing.
const UNOWNED_MAX: u64 = 20;

/// The objects that a round listed, by the day in their keys.
#[derive(Debug, Default)]
pub(super) struct ObjectsByDay(BTreeMap<NaiveDate, Counts>);

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    owned: u64,
    unowned: u64,
}

/// A day since which most objects have no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DatabaseMismatch {
    since: NaiveDate,
    owned: u64,
    unowned: u64,
}

impl ObjectsByDay {
    pub(super) fn count(&mut self, day: NaiveDate, is_owned: bool) {
        let counts = self.0.entry(day).or_default();
        if is_owned {
            counts.owned += 1;
        } else {
            counts.unowned += 1;
        }
    }

    /// Returns the latest day since which most objects have no row, if there is one.
    pub(super) fn find_mismatch(&self) -> Option<DatabaseMismatch> {
        let mut sum = Counts::default();
        self.0.iter().rev().find_map(|(since, counts)| {
            sum.owned += counts.owned;
            sum.unowned += counts.unowned;
            let is_mismatch = sum.unowned > UNOWNED_MAX && sum.unowned > sum.owned;
            is_mismatch.then_some(DatabaseMismatch { since: *since, owned: sum.owned, unowned: sum.unowned })
        })
    }
}

impl std::fmt::Display for DatabaseMismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "nothing was deleted: of the objects since {}, {} have a row in this database and {} do not, so another \
             database seems to use this store; if none does, because this one was restored from a backup, run \
             strongroom sweep --trust-database",
            self.since, self.owned, self.unowned
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(counts: &[(u64, u64)]) -> ObjectsByDay {
        let day = |n: usize| NaiveDate::from_ymd_opt(2026, 1, 1).unwrap() + chrono::Days::new(n as u64);
        let counted = counts.iter().enumerate();
        ObjectsByDay(counted.map(|(n, &(owned, unowned))| (day(n), Counts { owned, unowned })).collect())
    }

    #[test]
    fn tolerates_crash_leftovers_and_detects_other_database() {
        for harmless in [&[][..], &[(0, 20)], &[(21, 21)], &[(1_000, 400), (1_000, 400)], &[(0, 14), (10, 6)]]
        {
            assert_eq!(objects(harmless).find_mismatch(), None, "{harmless:?}");
        }
        for mismatched in [&[(0, 21)][..], &[(9_999, 0), (5, 11), (5, 10)], &[(9_999, 0), (0, 30), (0, 0)]] {
            assert!(objects(mismatched).find_mismatch().is_some(), "{mismatched:?}");
        }
        let text = objects(&[(9_999, 0), (5, 11), (5, 10)]).find_mismatch().unwrap().to_string();
        assert!(text.contains("since 2026-01-02, 10 have a row in this database and 21 do not"), "{text}");
    }
}
