//! Points in time, and injected sources of time and ids, so that tests can control both.
//!
//! Times have microseconds, the precision of the database. [`parse_time`] and [`SystemClock`] truncate before a
//! time is used, so that a response shows the time that is stored.

use chrono::{DateTime, SubsecRound as _, Utc};
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

/// The clock of this process. Expiry is decided by the database's clock instead (`app.now()`).
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
