//! Limits the number of events per second, separately for each key.
//!
//! Each key has a bucket of tokens that is filled at the rate, and that holds the tokens of some seconds. An event can
//! take a token from several buckets, or from none of them. The buckets are in the memory of this process: with several
//! processes, each allows the whole rate. See `shared_rates` for buckets that they share.

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
    /// Its place among the buckets of the event.
    pub index: usize,
    pub level: RateLevel,
    /// The time after which there will be a token.
    pub retry_after: Duration,
}

/// A bucket from which an event takes a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket<K> {
    pub key: K,
    /// The tokens that are added each second. At least 1. It may differ from that of the previous event.
    pub per_second_max: u32,
}

/// Buckets of tokens, each with its own rate.
#[derive(Debug)]
pub struct RateBuckets<K> {
    /// The time in which an empty bucket is filled.
    burst: Duration,
    /// For each key, the time at which its bucket will be full.
    full_at: Mutex<HashMap<K, Instant>>,
}

impl<K: Clone + Eq + Hash> RateBuckets<K> {
    /// Creates full buckets.
    pub fn new(burst: Duration) -> Self {
        Self { burst, full_at: Mutex::default() }
    }

    /// Takes a token from each of these buckets, or from none if one is empty. Returns the level of the bucket with the
    /// fewest tokens, or `None` if there are no buckets.
    ///
    /// # Errors
    /// Returns the first empty bucket.
    pub fn take(&self, buckets: &[Bucket<K>]) -> Result<Option<RateLevel>, EmptyBucket> {
        let now = Instant::now();
        let mut full_at = self.full_times();
        let mut least: Option<RateLevel> = None;
        for (index, bucket) in buckets.iter().enumerate() {
            let (interval, full) = (bucket.interval(), full_at.get(&bucket.key).copied());
            let burst = self.burst.max(interval);
            let full_after =
                full.map_or(Duration::ZERO, |full| full.saturating_duration_since(now)) + interval;
            let level = RateLevel {
                limit: tokens_in(burst, interval),
                remaining: tokens_in(burst.saturating_sub(full_after), interval),
                full_after,
            };
            if full_after > burst {
                return Err(EmptyBucket { index, level, retry_after: full_after - burst });
            }
            least = least.into_iter().chain([level]).min_by_key(|level| level.remaining);
        }
        make_room(&mut full_at, buckets, now);
        for bucket in buckets {
            let full = full_at.entry(bucket.key.clone()).or_insert(now);
            *full = (*full).max(now) + bucket.interval();
        }
        Ok(least)
    }

    fn full_times(&self) -> MutexGuard<'_, HashMap<K, Instant>> {
        // The map is consistent after every statement, so a poisoned lock is safe to use.
        self.full_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> Bucket<K> {
    /// Returns the time in which a token is added.
    fn interval(&self) -> Duration {
        Duration::from_secs(1) / self.per_second_max.max(1)
    }
}

/// Removes full buckets, if these buckets are new and there are too many.
fn make_room<K: Eq + Hash>(full_at: &mut HashMap<K, Instant>, buckets: &[Bucket<K>], now: Instant) {
    let has_room = |full_at: &HashMap<K, Instant>| full_at.len() + buckets.len() <= KEYS_MAX;
    if has_room(full_at) || buckets.iter().all(|bucket| full_at.contains_key(&bucket.key)) {
        return;
    }
    full_at.retain(|_, full| *full > now);
    if !has_room(full_at) {
        // Too many keys to distinguish. Every bucket starts full again.
        full_at.clear();
    }
}

/// Limits the number of events per second and key, with the same rate for all keys.
#[derive(Debug)]
pub struct RateLimiter<K> {
    /// 0 without a limit.
    per_second_max: u32,
    buckets: RateBuckets<K>,
}

impl<K: Clone + Eq + Hash> RateLimiter<K> {
    /// Creates a limiter. A rate of 0 is no limit.
    pub fn new(per_second_max: u32, burst_seconds: u64) -> Self {
        Self { per_second_max, buckets: RateBuckets::new(Duration::from_secs(burst_seconds)) }
    }

    /// Returns the number of events per second that are allowed, or 0 without a limit.
    pub fn per_second_max(&self) -> u32 {
        self.per_second_max
    }

    /// Takes a token.
    ///
    /// # Errors
    /// Returns the time after which there will be one.
    pub fn take(&self, key: K) -> Result<(), Duration> {
        if self.per_second_max == 0 {
            return Ok(());
        }
        let bucket = Bucket { key, per_second_max: self.per_second_max };
        self.buckets.take(&[bucket]).map(|_| ()).map_err(|empty| empty.retry_after)
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

    fn buckets<const N: usize>(rates: [(&'static str, u32); N]) -> [Bucket<&'static str>; N] {
        rates.map(|(key, per_second_max)| Bucket { key, per_second_max })
    }

    #[tokio::test(start_paused = true)]
    async fn level_counts_the_tokens_that_are_left() {
        let rates = RateBuckets::new(Duration::from_secs(2));
        let both = buckets([("large", 100), ("small", 10)]);
        for taken in 1..=20 {
            let level = rates.take(&both).unwrap().unwrap();
            assert_eq!((level.limit, level.remaining), (20, 20 - taken));
            assert_eq!(level.full_after, Duration::from_millis(100 * taken));
        }
        let empty = rates.take(&both).unwrap_err();
        assert_eq!((empty.index, empty.level.remaining), (1, 0));
        assert_eq!(empty.retry_after, Duration::from_millis(100));
        assert_eq!(rates.take(&[]), Ok(None));
    }

    #[tokio::test(start_paused = true)]
    async fn refused_event_takes_no_token() {
        let rates = RateBuckets::new(Duration::from_secs(1));
        rates.take(&buckets([("uploads", 1)])).unwrap();
        for _ in 0..5 {
            let empty = rates.take(&buckets([("caller", 3), ("uploads", 1), ("tenant", 3)])).unwrap_err();
            assert_eq!(empty.index, 1);
        }
        for key in ["caller", "tenant"] {
            assert_eq!((0..5).filter(|_| rates.take(&buckets([(key, 3)])).is_ok()).count(), 3, "{key}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rate_of_a_bucket_can_change() {
        let rates = RateBuckets::new(Duration::from_secs(1));
        let count = |per_second_max| {
            (0..50).filter(|_| rates.take(&buckets([("uploads", per_second_max)])).is_ok()).count()
        };
        assert_eq!(count(5), 5);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(count(2), 2);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(count(20), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn rate_of_zero_is_no_limit() {
        let limiter = RateLimiter::new(0, 1);
        assert!((0..1_000).all(|_| limiter.take(1).is_ok()));
        assert!(limiter.buckets.full_times().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn number_of_buckets_is_limited() {
        let limiter = RateLimiter::new(1, 1);
        for key in 0..KEYS_MAX * 2 {
            limiter.take(key).unwrap();
        }
        assert!(limiter.buckets.full_times().len() <= KEYS_MAX);
    }
}
