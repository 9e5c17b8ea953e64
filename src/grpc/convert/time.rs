//! Conversions of timestamps.

use prost_types::Timestamp as Wire;

use crate::domain::{clock::Timestamp, violations::Violations};

/// The range of a `google.protobuf.Timestamp` in seconds since 1970: 0001-01-01 to 9999-12-31.
const SECONDS_RANGE: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

pub(in crate::grpc) fn to_proto(time: Timestamp) -> Wire {
    // chrono represents a leap second as more than 999,999,999 nanoseconds, which a message must not have.
    let nanos = i32::try_from(time.timestamp_subsec_nanos().min(999_999_999)).unwrap_or_default();
    Wire { seconds: time.timestamp(), nanos }
}

/// Converts an optional time.
pub(in crate::grpc) fn from_proto(
    field: &str,
    time: Option<Wire>,
    violations: &mut Violations,
) -> Option<Timestamp> {
    let time = time?;
    let nanos = u32::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let read = nanos
        .filter(|_| SECONDS_RANGE.contains(&time.seconds))
        .and_then(|nanos| Timestamp::from_timestamp(time.seconds, nanos));
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

    proptest! {
        #[test]
        fn times_survive_a_round_trip(seconds in SECONDS_RANGE, nanos in 0..1_000_000_000i32) {
            let wire = Wire { seconds, nanos };
            let mut violations = Violations::new();
            let time = from_proto("time", Some(wire), &mut violations).unwrap();
            prop_assert_eq!(to_proto(time), wire);
        }
    }
}
