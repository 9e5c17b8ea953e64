//! The rate at which the tokens of an issuer create tenants, in this process.

use std::time::Duration;

use crate::domain::clock::Timestamp;

const MINUTE: Duration = Duration::from_secs(60);

/// Allows a burst of as many creations as the limit per minute. After that, creations are allowed one at a time, at
/// the rate of the limit.
#[derive(Debug)]
pub(super) struct CreationRate {
    /// The time at which a full burst is available again. Each creation moves it by one minute divided by the limit.
    settled_time: Timestamp,
}

impl Default for CreationRate {
    fn default() -> Self {
        Self { settled_time: Timestamp::MIN_UTC }
    }
}

impl CreationRate {
    /// Checks that a tenant may be created now.
    ///
    /// # Errors
    /// Returns the time to wait if not.
    pub(super) fn check(&self, now: Timestamp, per_minute_max: u32) -> Result<(), Duration> {
        let debt = self.debt(now) + MINUTE / per_minute_max.max(1);
        match debt.checked_sub(MINUTE) {
            None | Some(Duration::ZERO) => Ok(()),
            Some(excess) => Err(excess),
        }
    }

    /// Counts a tenant that is created now.
    pub(super) fn record(&mut self, now: Timestamp, per_minute_max: u32) {
        self.settled_time = now + self.debt(now) + MINUTE / per_minute_max.max(1);
    }

    /// Takes back the count of a tenant.
    pub(super) fn refund(&mut self, per_minute_max: u32) {
        self.settled_time = self
            .settled_time
            .checked_sub_signed(chrono::Duration::milliseconds(i64::from(60_000 / per_minute_max.max(1))))
            .unwrap_or(Timestamp::MIN_UTC);
    }

    /// Returns the time until a full burst is available. At most a minute, also after the clock was set back.
    fn debt(&self, now: Timestamp) -> Duration {
        (self.settled_time - now).to_std().unwrap_or_default().min(MINUTE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_is_followed_by_one_creation_per_share() {
        let (mut rate, start) = (CreationRate::default(), Timestamp::UNIX_EPOCH);
        for _ in 0..6 {
            assert_eq!(rate.check(start, 6), Ok(()));
            rate.record(start, 6);
        }
        assert_eq!(rate.check(start, 6), Err(Duration::from_secs(10)));
        let later = start + Duration::from_secs(4);
        assert_eq!(rate.check(later, 6), Err(Duration::from_secs(6)));
        let later = start + Duration::from_secs(10);
        assert_eq!(rate.check(later, 6), Ok(()));
        rate.record(later, 6);
        assert_eq!(rate.check(later, 6), Err(Duration::from_secs(10)));
        assert_eq!(rate.check(later + MINUTE, 6), Ok(()));
    }

    #[test]
    fn refunded_creation_is_available_again() {
        let (mut rate, start) = (CreationRate::default(), Timestamp::UNIX_EPOCH);
        rate.refund(6);
        for _ in 0..6 {
            rate.record(start, 6);
        }
        rate.refund(6);
        assert_eq!(rate.check(start, 6), Ok(()));
        rate.record(start, 6);
        assert_eq!(rate.check(start, 6), Err(Duration::from_secs(10)));
    }

    #[test]
    fn clock_that_was_set_back_blocks_for_at_most_a_share() {
        let (mut rate, start) = (CreationRate::default(), Timestamp::UNIX_EPOCH);
        rate.record(start + MINUTE * 1_000, 6);
        assert_eq!(rate.check(start, 6), Err(Duration::from_secs(10)));
    }
}
