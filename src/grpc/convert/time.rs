//! Moments.

use prost_types::Timestamp as Wire;

use crate::domain::{clock::Timestamp, violations::Violations};

/// The years that a `google.protobuf.Timestamp` may have, in seconds since 1970: 0001-01-01 to 9999-12-31.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// A moment on the wire.
pub(in crate::grpc) fn to_wire(time: Timestamp) -> Wire {
    // Leap seconds have nanoseconds beyond a second in chrono; on the wire they may not.
    let nanos = i32::try_from(time.timestamp_subsec_nanos().min(999_999_999)).unwrap_or_default();
    Wire { seconds: time.timestamp(), nanos }
}

/// A moment from the wire, where there is one.
pub(in crate::grpc) fn from_wire(
    field: &str,
    time: Option<Wire>,
    wrong: &mut Violations,
) -> Option<Timestamp> {
    let time = time?;
    let nanos = u32::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let read = nanos
        .filter(|_| SECONDS.contains(&time.seconds))
        .and_then(|nanos| Timestamp::from_timestamp(time.seconds, nanos));
    wrong
        .ok_or_add(field, read.ok_or("must be a time of the years 1 to 9999, with nanos from 0 to 999999999"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_that_are_none_are_violations() {
        for (seconds, nanos) in [(253_402_300_800, 0), (-62_135_596_801, 0), (0, -1), (0, 1_000_000_000)] {
            let mut wrong = Violations::new();
            assert_eq!(from_wire("time", Some(Wire { seconds, nanos }), &mut wrong), None);
            assert_eq!(wrong.iter().count(), 1, "{seconds} {nanos}");
        }
    }

    proptest! {
        #[test]
        fn times_come_back_as_they_went(seconds in SECONDS, nanos in 0..1_000_000_000i32) {
            let wire = Wire { seconds, nanos };
            let mut wrong = Violations::new();
            let time = from_wire("time", Some(wire), &mut wrong).unwrap();
            prop_assert_eq!(to_wire(time), wire);
        }
    }
}
