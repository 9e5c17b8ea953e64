//! Points in time, and injected sources of time and ids, so that tests can control both.
//!
//! Times have microseconds, the precision of the database. [`parse_time`] and [`SystemClock`] truncate before a
//! time is used, so that a response shows the time that is stored.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use chrono::{DateTime, Duration, SubsecRound as _, Utc};
use uuid::Uuid;

/// A point in time, in UTC.
pub type Timestamp = DateTime<Utc>;

/// The range of a `google.protobuf.Timestamp` in seconds since 1970: 0001-01-01 to 9999-12-31.
pub const SECONDS_RANGE: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// The latest time: the last microsecond of the year 9999.
pub const TIMESTAMP_MAX: Timestamp = match DateTime::from_timestamp_micros(253_402_300_799_999_999) {
    Some(time) => time,
    None => DateTime::<Utc>::MAX_UTC,
};

/// Returns the time with these seconds since 1970 and nanoseconds, truncated to microseconds.
///
/// Returns `None` outside the years 1 to 9999, and if there are not 0 to 999,999,999 nanoseconds.
pub fn parse_time(seconds: i64, nanos: i32) -> Option<Timestamp> {
    const NANOS_PER_MICRO: u32 = 1_000;
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    SECONDS_RANGE.contains(&seconds).then_some(())?;
    Timestamp::from_timestamp(seconds, nanos - nanos % NANOS_PER_MICRO)
}

/// The clock that decisions of this process use. In a server or worker it follows the database's clock, which decides
/// in SQL (`app.now()`): see [`SyncedClock`].
pub trait Clock: Send + Sync + 'static {
    /// Returns the current time.
    fn now(&self) -> Timestamp;
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place where the ambient clock is read")]
    fn now(&self) -> Timestamp {
        Utc::now().trunc_subsecs(6)
    }
}

/// The database's clock: the clock of this process plus the difference that was last measured. So all processes and the
/// database agree, although the clocks of their machines do not. Before the first measurement there is no difference.
#[derive(Debug)]
pub struct SyncedClock<C = SystemClock> {
    local: C,
    offset_microseconds: AtomicI64,
}

/// A measurement of the database's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockOffset {
    /// The time of the database minus the time of this process.
    pub offset: Duration,
    /// The maximum error: half the time that the measurement took.
    pub error_max: Duration,
}

impl<C: Clock> SyncedClock<C> {
    /// Creates the clock without a difference.
    pub fn new(local: C) -> Arc<Self> {
        Arc::new(Self { local, offset_microseconds: AtomicI64::new(0) })
    }

    /// Returns the clock of this process.
    pub fn local(&self) -> &C {
        &self.local
    }

    /// Follows the database's clock from now on. Keeps the former difference if it is as good as the new one, so that
    /// the time does not jump with each measurement.
    pub fn follow(&self, measured: ClockOffset) {
        let former = Duration::microseconds(self.offset_microseconds.load(Ordering::Relaxed));
        let change = measured.offset.checked_sub(&former);
        if change.is_none_or(|change| change.abs() > measured.error_max) {
            let microseconds = measured.offset.num_microseconds().unwrap_or_default();
            self.offset_microseconds.store(microseconds, Ordering::Relaxed);
        }
    }
}

impl<C: Clock> Clock for SyncedClock<C> {
    fn now(&self) -> Timestamp {
        let offset = Duration::microseconds(self.offset_microseconds.load(Ordering::Relaxed));
        let local = self.local.now();
        local.checked_add_signed(offset).unwrap_or(local)
    }
}

/// A source of ids and other random values.
pub trait IdSource: Send + Sync + 'static {
    /// Returns a new UUIDv7. Ids are ordered by creation time. They are not secrets and must not be used as
    /// such.
    fn uuid(&self) -> Uuid;
}

/// The operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemIds;

impl IdSource for SystemIds {
    #[allow(clippy::disallowed_methods, reason = "the one place where ids are generated")]
    fn uuid(&self) -> Uuid {
        Uuid::now_v7()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct FixedClock(Timestamp);

    impl Clock for FixedClock {
        fn now(&self) -> Timestamp {
            self.0
        }
    }

    #[test]
    fn synced_clock_follows_measurements_beyond_their_error() {
        let start = Timestamp::from_timestamp(1_000, 0).unwrap();
        let clock = SyncedClock::new(FixedClock(start));
        assert_eq!(clock.now(), start);
        let measured = |seconds, error_max| ClockOffset {
            offset: Duration::seconds(seconds),
            error_max: Duration::seconds(error_max),
        };
        clock.follow(measured(-60, 1));
        assert_eq!(clock.now(), start - Duration::seconds(60));
        clock.follow(measured(-57, 5));
        assert_eq!(clock.now(), start - Duration::seconds(60), "the new measurement is not better");
        clock.follow(measured(-57, 2));
        assert_eq!(clock.now(), start - Duration::seconds(57));
        clock.follow(measured(i64::MAX / 1_000, 0));
        assert_eq!(clock.now(), start, "an impossible time is not used");
    }
}
