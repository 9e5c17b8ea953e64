//! Conversions of timestamps.

use prost_types::Timestamp as Wire;

use crate::domain::{
    clock::{SECONDS_RANGE, TIMESTAMP_MAX, Timestamp, parse_time},
    violations::Violations,
};

/// Converts a time. Earlier releases stored some times after the year 9999, which messages cannot contain; they
/// become the latest time.
pub(in crate::grpc) fn to_proto(time: Timestamp) -> Wire {
    let time = if SECONDS_RANGE.contains(&time.timestamp()) { time } else { TIMESTAMP_MAX };
    // chrono represents a leap second as more than 999,999,999 nanoseconds, which a message must not have.
    let nanos = i32::try_from(time.timestamp_subsec_nanos().min(999_999_999)).unwrap_or_default();
    Wire { seconds: time.timestamp(), nanos }
}

/// Converts an optional time. Truncates it to microseconds.
pub(in crate::grpc) fn from_proto(
    field: &str,
    time: Option<Wire>,
    violations: &mut Violations,
) -> Option<Timestamp> {
    let time = time?;
    let read = parse_time(time.seconds, time.nanos);
    violations.ok_or_add(field, read.ok_or("must be in the years 1 to 9999, with nanos from 0 to 999999999"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rejects_times_outside_the_range() {
        for (seconds, nanos) in [(253_402_300_800, 0), (-62_135_596_801, 0), (0, -1), (0, 1_000_000_000)] {
            let mut violations = Violations::new();
            assert_eq!(from_proto("time", Some(Wire { seconds, nanos }), &mut violations), None);
            assert_eq!(violations.iter().count(), 1, "{seconds} {nanos}");
        }
    }

    #[test]
    fn stored_times_after_year_9999_become_the_latest_time() {
        let latest = Wire { seconds: 253_402_300_799, nanos: 999_999_000 };
        let year_10000 = Timestamp::from_timestamp(253_402_300_800, 0).unwrap();
        assert_eq!(to_proto(year_10000), latest);
        let last = Some(Wire { nanos: 999_999_999, ..latest });
        let mut violations = Violations::new();
        assert_eq!(from_proto("time", last, &mut violations).map(to_proto), Some(latest));
    }

    proptest! {
        #[test]
        fn times_are_truncated_to_microseconds(seconds in SECONDS_RANGE, nanos in 0..1_000_000_000i32) {
            let mut violations = Violations::new();
            let time = from_proto("time", Some(Wire { seconds, nanos }), &mut violations).unwrap();
            prop_assert_eq!(to_proto(time), Wire { seconds, nanos: nanos / 1_000 * 1_000 });
            prop_assert_eq!(Timestamp::from_timestamp_micros(time.timestamp_micros()), Some(time));
        }
    }
}
