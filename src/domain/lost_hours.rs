//! The lost hours of a restore: the time from the last state that a database knew to the adoption of its store.
//!
//! Objects of this time have no row in the restored database, although they were files. Only an operator can
//! decide about them.

use serde::Serialize;
use uuid::Uuid;

use super::clock::Timestamp;

/// The difference between the clocks of a store and of the database that is tolerated.
const CLOCK_MARGIN: chrono::Duration = chrono::Duration::minutes(5);

/// The lost hours of one store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LostHours {
    #[serde(skip)]
    pub id: Uuid,
    /// The provider whose store was adopted.
    #[serde(skip)]
    pub provider: String,
    /// The time of the last owner marker that the database knew.
    pub start_time: Timestamp,
    /// The time of the adoption.
    pub end_time: Timestamp,
    /// The time of the decision, or `None` before it.
    pub decide_time: Option<Timestamp>,
}

impl LostHours {
    /// Returns whether an object with this time, by the clock of its store, may be from the lost hours.
    pub fn contains(&self, time: Timestamp) -> bool {
        let is_after_start =
            self.start_time.checked_sub_signed(CLOCK_MARGIN).is_none_or(|start| time >= start);
        is_after_start && time <= self.end_time + CLOCK_MARGIN
    }

    /// Returns whether an operator has not decided about the objects yet.
    pub fn is_undecided(&self) -> bool {
        self.decide_time.is_none()
    }
}

/// The advice to decide about the objects, as a part of a sentence.
impl std::fmt::Display for LostHours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const FORMAT: &str = "%Y-%m-%dT%H:%M:%SZ";
        write!(
            f,
            "objects from {} to {} may be files that the restore lost, and are kept until you decide about them: list \
             them with `strongroom restore-check`, then run it with --readopt, --quarantine-objects or --discard",
            self.start_time.format(FORMAT),
            self.end_time.format(FORMAT)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(seconds, 0).unwrap()
    }

    fn lost_hours(start: i64, end: i64) -> LostHours {
        LostHours {
            id: Uuid::nil(),
            provider: "local".to_owned(),
            start_time: time(start),
            end_time: time(end),
            decide_time: None,
        }
    }

    #[test]
    fn lost_hours_tolerate_differences_between_clocks() {
        let margin = CLOCK_MARGIN.num_seconds();
        for (at, is_inside) in [
            (1_000 - margin - 1, false),
            (1_000 - margin, true),
            (1_500, true),
            (2_000 + margin, true),
            (2_000 + margin + 1, false),
        ] {
            assert_eq!(lost_hours(1_000, 2_000).contains(time(at)), is_inside, "{at}");
        }
    }

    #[test]
    fn lost_hours_without_a_start_contain_all_earlier_objects() {
        let all = LostHours { start_time: Timestamp::MIN_UTC, ..lost_hours(0, 2_000) };
        assert!(all.contains(Timestamp::UNIX_EPOCH) && all.contains(time(2_000)));
    }
}
