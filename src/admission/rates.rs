//! Limits the number of events per second, separately for each key.
//!
//! Each key has a bucket of tokens that is filled at the rate, and that holds the tokens of some seconds. The
//! buckets are in the memory of this process: with several processes, each allows the whole rate. See `shared_rates`
//! for buckets that they share.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The number of keys at which the full buckets, which are the same as none, are removed.
const KEYS_MAX: usize = 65_536;

/// The level of a bucket after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLevel {
    /// The tokens of a full bucket.
    pub limit: u64,
    /// The tokens that are left.
    pub remaining: u64,
    /// The time after which the bucket is full, if nothing is taken.
    pub full_after: Duration,
}

/// An empty bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmptyBucket {
    pub level: RateLevel,
    /// The time after which there will be a token.
    pub retry_after: Duration,
}

/// Limits the number of events per second and key.
#[derive(Debug)]
pub struct RateLimiter<K> {
    /// The time in which a token is added; `None` without a limit.
    interval: Option<Duration>,
    /// The time in which an empty bucket is filled.
    burst: Duration,
    /// For each key, the time at which its bucket will be full.
    full_at: Mutex<HashMap<K, Instant>>,
}

impl<K: Eq + Hash> RateLimiter<K> {
    /// Creates a limiter. A rate of 0 is no limit.
    pub fn new(per_second_max: u32, burst_seconds: u64) -> Self {
        let interval = (per_second_max > 0).then(|| Duration::from_secs(1) / per_second_max);
        Self { interval, burst: Duration::from_secs(burst_seconds), full_at: Mutex::default() }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// Returns the time after which there will be one.
    pub fn take(&self, key: K) -> Result<(), Duration> {
        self.take_with_level(key).map(|_| ()).map_err(|empty| empty.retry_after)
    }

    /// Takes a token, and returns the level of the bucket, or `None` without a limit.
    ///
    /// # Errors
    /// Returns the empty bucket.
    pub fn take_with_level(&self, key: K) -> Result<Option<RateLevel>, EmptyBucket> {
        let Some(interval) = self.interval else { return Ok(None) };
        let now = Instant::now();
        let mut full_at = self.buckets();
        if full_at.len() >= KEYS_MAX && !full_at.contains_key(&key) {
            full_at.retain(|_, full| *full > now);
            if full_at.len() >= KEYS_MAX {
                // Too many keys to distinguish. Every bucket starts full again.
                full_at.clear();
            }
        }
        let bucket = full_at.entry(key).or_insert(now);
        let full = (*bucket).max(now) + interval;
        let burst = self.burst.max(interval);
        let full_after = full - now;
        let level = RateLevel {
            limit: tokens_in(burst, interval),
            remaining: tokens_in(burst.saturating_sub(full_after), interval),
            full_after,
        };
        if full_after > burst {
            return Err(EmptyBucket { level, retry_after: full_after - burst });
        }
        *bucket = full;
        Ok(Some(level))
    }

    fn buckets(&self) -> MutexGuard<'_, HashMap<K, Instant>> {
        // The map is consistent after every statement, so a poisoned lock is safe to use.
        self.full_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the tokens that are added in a time.
fn tokens_in(time: Duration, interval: Duration) -> u64 {
    let tokens = time.as_nanos().checked_div(interval.as_nanos());
    tokens.and_then(|tokens| u64::try_from(tokens).ok()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn burst_is_allowed_and_then_the_rate() {
        let limiter = RateLimiter::new(10, 2);
        for _ in 0..20 {
            limiter.take("mallory").unwrap();
        }
        assert_eq!(limiter.take("mallory"), Err(Duration::from_millis(100)));
        limiter.take("alice").unwrap();
        tokio::time::advance(Duration::from_millis(100)).await;
        limiter.take("mallory").unwrap();
        assert!(limiter.take("mallory").is_err());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!((0..30).filter(|_| limiter.take("mallory").is_ok()).count(), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn level_counts_the_tokens_that_are_left() {
        let limiter = RateLimiter::new(10, 2);
        for taken in 1..=20 {
            let level = limiter.take_with_level(1).unwrap().unwrap();
            assert_eq!((level.limit, level.remaining), (20, 20 - taken));
            assert_eq!(level.full_after, Duration::from_millis(100 * taken));
        }
        let empty = limiter.take_with_level(1).unwrap_err();
        assert_eq!((empty.level.remaining, empty.retry_after), (0, Duration::from_millis(100)));
        assert_eq!(RateLimiter::new(0, 1).take_with_level(1), Ok(None));
    }

    #[tokio::test(start_paused = true)]
    async fn rate_of_zero_is_no_limit() {
        let limiter = RateLimiter::new(0, 1);
        assert!((0..1_000).all(|_| limiter.take(1).is_ok()));
        assert!(limiter.buckets().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn number_of_buckets_is_limited() {
        let limiter = RateLimiter::new(1, 1);
        for key in 0..KEYS_MAX * 2 {
            limiter.take(key).unwrap();
        }
        assert!(limiter.buckets().len() <= KEYS_MAX);
    }
}
