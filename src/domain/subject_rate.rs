//! A limit that another service counts with this one: a number of events of a subject within a time.
//!
//! It is a bucket of tokens that holds the limit, and that is filled within the window.

use std::time::Duration;

/// An event of a subject, and the limit that it is checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubjectEvent {
    /// The tokens of a full bucket. At least 1.
    pub limit: u32,
    /// The time in which an empty bucket is filled. At least a second.
    pub window: Duration,
    /// The tokens to take. At least 1.
    pub cost: u32,
    /// Whether nothing is taken.
    pub is_peek: bool,
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateDecision {
    pub is_allowed: bool,
    pub limit: u32,
    /// The tokens that are left.
    pub remaining: u64,
    /// The time after which the bucket is full, if nothing is taken.
    pub full_after: Duration,
    /// The time after which the event would be allowed. `None` if it is allowed.
    pub retry_after: Option<Duration>,
}

impl SubjectEvent {
    /// Returns the time in which one token is added.
    pub fn interval_micros(&self) -> u64 {
        let window = u64::try_from(self.window.as_micros()).unwrap_or(u64::MAX);
        (window / u64::from(self.limit.max(1))).max(1)
    }

    /// Returns the time in which an empty bucket is filled: the window, rounded down to whole tokens.
    pub fn window_micros(&self) -> u64 {
        self.interval_micros() * u64::from(self.limit.max(1))
    }

    /// Decides about the event from the time after which the bucket was full before it.
    pub fn decide(&self, full_after_micros: u64) -> RateDecision {
        let after = full_after_micros.saturating_add(self.interval_micros() * u64::from(self.cost));
        let lacking = after.saturating_sub(self.window_micros());
        let is_allowed = lacking == 0;
        let left = if is_allowed && !self.is_peek { after } else { full_after_micros };
        RateDecision {
            is_allowed,
            limit: self.limit,
            remaining: self.window_micros().saturating_sub(left) / self.interval_micros(),
            full_after: Duration::from_micros(left),
            retry_after: (!is_allowed).then(|| Duration::from_micros(lacking)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(cost: u32, is_peek: bool) -> SubjectEvent {
        SubjectEvent { limit: 10, window: Duration::from_secs(100), cost, is_peek }
    }

    #[test]
    fn event_is_allowed_while_tokens_are_left() {
        let first = event(3, false).decide(0);
        assert_eq!((first.is_allowed, first.remaining, first.full_after.as_secs()), (true, 7, 30));
        let last = event(7, false).decide(30_000_000);
        assert_eq!((last.is_allowed, last.remaining), (true, 0));
        let refused = event(1, false).decide(100_000_000);
        assert_eq!((refused.is_allowed, refused.remaining), (false, 0));
        assert_eq!(refused.retry_after, Some(Duration::from_secs(10)));
    }

    #[test]
    fn peek_takes_nothing() {
        let peeked = event(1, true).decide(30_000_000);
        assert_eq!((peeked.is_allowed, peeked.remaining, peeked.full_after.as_secs()), (true, 7, 30));
    }

    #[test]
    fn window_is_rounded_down_to_whole_tokens() {
        let thirds = SubjectEvent { limit: 3, window: Duration::from_secs(1), cost: 3, is_peek: false };
        assert_eq!((thirds.interval_micros(), thirds.window_micros()), (333_333, 999_999));
        assert!(thirds.decide(0).is_allowed);
    }
}
