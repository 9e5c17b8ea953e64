//! Rate limits that all processes share through Redis.
//!
//! A call takes its tokens with one script, in one round trip. While Redis is unreachable, or responds too late, the
//! caller of this module limits by itself: no call ever waits longer than the timeout, and after a failure none waits
//! until a connection exists again.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, RedisError, Script, ScriptInvocation, aio::MultiplexedConnection,
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::Instant;

use super::{rates::RateLevel, subject_rates::TENANT_SUBJECTS_MAX};
use crate::{
    domain::{
        digest::Digest,
        ids::TenantId,
        subject_rate::{RateDecision, SubjectEvent},
    },
    telemetry::Metrics,
};

/// The time limit for connecting. Calls do not wait for it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The time after which the set of a tenant's subjects expires: the longest window.
const SUBJECTS_EXPIRE_MILLISECONDS: u64 = 86_400_000;
/// The pause between two attempts to connect.
const CONNECT_PAUSE: Duration = Duration::from_secs(1);

/// How to reach Redis.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// The URL, which may contain a password.
    pub url: SecretString,
    /// The time in which it must respond.
    pub timeout: Duration,
}

/// The address of a server is not a URL of Redis.
#[derive(Debug, thiserror::Error)]
#[error("`limits.redis_url` is no URL of a Redis server")]
pub struct RedisUrlError(#[source] RedisError);

/// A bucket of tokens in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedBucket {
    /// The key. It contains ids of this service and hashes, never text of callers.
    pub key: String,
    /// The tokens that are added each second. At least 1.
    pub per_second_max: u32,
    /// The time in which an empty bucket is filled.
    pub burst: Duration,
}

/// The result of taking tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedTake {
    /// A token was taken from each bucket. The level is that of the bucket with the fewest tokens.
    Taken(RateLevel),
    /// The bucket with this index is empty. Nothing was taken.
    Empty { index: usize, level: RateLevel, retry_after: Duration },
}

/// The result of checking an event of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedCheck {
    Decided(RateDecision),
    /// The subject is new, and the tenant has too many.
    TooManySubjects,
}

/// The state of the connection. A clone of a connection sends over the same socket.
enum Link {
    Up(MultiplexedConnection),
    Connecting,
    /// Nobody connects before this time.
    DownUntil(Instant),
}

/// Buckets in Redis. Clones share the connection.
#[derive(Clone)]
pub struct SharedRates {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    timeout: Duration,
    take_tokens: Script,
    check_subject: Script,
    link: Mutex<Link>,
    metrics: Metrics,
}

impl std::fmt::Debug for SharedRates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedRates").finish_non_exhaustive()
    }
}

impl SharedRates {
    /// Creates the buckets. The first call connects, so that a process starts without Redis too.
    ///
    /// # Errors
    /// Returns an error if the URL cannot be parsed.
    pub fn new(options: &RedisOptions, metrics: Metrics) -> Result<Self, RedisUrlError> {
        let client = Client::open(options.url.expose_secret()).map_err(RedisUrlError)?;
        let inner = Inner {
            client,
            timeout: options.timeout,
            take_tokens: Script::new(include_str!("shared_rates/take_tokens.lua")),
            check_subject: Script::new(include_str!("shared_rates/check_subject.lua")),
            link: Mutex::new(Link::DownUntil(Instant::now())),
            metrics,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Takes a token from each bucket, or from none if one is empty. Returns `None` if Redis did not respond in time;
    /// the tokens may have been taken.
    pub async fn take(&self, buckets: &[SharedBucket]) -> Option<SharedTake> {
        let mut call = self.inner.take_tokens.prepare_invoke();
        for bucket in buckets {
            call.key(bucket.key.as_str()).arg(interval_micros(bucket)).arg(burst_micros(bucket));
        }
        self.run(&call).await.and_then(|reply| read_reply(buckets, &reply))
    }

    /// Checks an event of a subject, and takes its tokens if it is allowed. Returns `None` if Redis did not respond in
    /// time; the tokens may have been taken.
    pub async fn check(
        &self,
        tenant: TenantId,
        subject: Digest,
        event: &SubjectEvent,
    ) -> Option<SharedCheck> {
        let set = format!("strongroom:rate:{{{tenant}}}:subjects");
        let mut call = self.inner.check_subject.prepare_invoke();
        call.key(format!("{set}:{subject}")).key(set).arg(event.interval_micros()).arg(event.window_micros());
        call.arg(event.cost).arg(u8::from(event.is_peek)).arg(TENANT_SUBJECTS_MAX);
        call.arg(subject.to_string()).arg(SUBJECTS_EXPIRE_MILLISECONDS);
        match self.run(&call).await?.as_slice() {
            [0, full_after] => Some(SharedCheck::Decided(event.decide(u64::try_from(*full_after).ok()?))),
            [1, _] => Some(SharedCheck::TooManySubjects),
            _ => None,
        }
    }

    /// Runs a script. Returns `None`, and counts that, if Redis is unavailable.
    async fn run(&self, call: &ScriptInvocation<'_>) -> Option<Vec<i64>> {
        let reply = match self.connection() {
            Some(mut connection) => {
                let reply = call.invoke_async::<Vec<i64>>(&mut connection).await;
                reply.inspect_err(|error| self.disconnect(error)).ok()
            }
            None => None,
        };
        if reply.is_none() {
            self.inner.metrics.count_rate_limit_fallback();
        }
        reply
    }

    /// Returns the connection. If there is none, starts to connect and returns `None`.
    fn connection(&self) -> Option<MultiplexedConnection> {
        let mut link = self.link();
        match &*link {
            Link::Up(connection) => return Some(connection.clone()),
            Link::DownUntil(time) if *time <= Instant::now() => {}
            Link::Connecting | Link::DownUntil(_) => return None,
        }
        *link = Link::Connecting;
        let this = self.clone();
        tokio::spawn(async move { this.connect().await });
        None
    }

    async fn connect(&self) {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(self.inner.timeout));
        let connecting = self.inner.client.get_multiplexed_async_connection_with_config(&config);
        match connecting.await {
            Ok(connection) => {
                tracing::info!("connected to Redis; rate limits are shared");
                *self.link() = Link::Up(connection);
                self.inner.metrics.set_rate_limits_shared(true);
            }
            Err(error) => self.disconnect(&error),
        }
    }

    fn disconnect(&self, error: &RedisError) {
        let mut link = self.link();
        if matches!(*link, Link::DownUntil(time) if time > Instant::now()) {
            // Another call has reported it.
            return;
        }
        *link = Link::DownUntil(Instant::now() + CONNECT_PAUSE);
        drop(link);
        // The text of an error can contain the address, but no password.
        tracing::warn!(%error, "Redis is unavailable; each process limits rates by itself");
        self.inner.metrics.set_rate_limits_shared(false);
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        // A link is replaced as a whole, so a poisoned lock is safe to use.
        self.inner.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn interval_micros(bucket: &SharedBucket) -> u64 {
    (1_000_000 / u64::from(bucket.per_second_max.max(1))).max(1)
}

/// Returns the time of a full bucket, which holds at least one token.
fn burst_micros(bucket: &SharedBucket) -> u64 {
    u64::try_from(bucket.burst.as_micros()).unwrap_or(u64::MAX).max(interval_micros(bucket))
}

/// Reads the reply of the script: the number of the empty bucket, and the time until each bucket is full.
fn read_reply(buckets: &[SharedBucket], reply: &[i64]) -> Option<SharedTake> {
    let (empty, times) = reply.split_first()?;
    let level = |index: usize| {
        let (bucket, time) = (buckets.get(index)?, u64::try_from(*times.get(index)?).ok()?);
        let limit = burst_micros(bucket) / interval_micros(bucket);
        let remaining = burst_micros(bucket).saturating_sub(time) / interval_micros(bucket);
        Some((RateLevel { limit, remaining, full_after: Duration::from_micros(time) }, time))
    };
    match usize::try_from(*empty).ok()?.checked_sub(1) {
        Some(index) => {
            let (level, time) = level(index)?;
            let retry_after = Duration::from_micros(time.saturating_sub(burst_micros(buckets.get(index)?)));
            Some(SharedTake::Empty { index, level, retry_after })
        }
        None => {
            let levels = (0..buckets.len()).filter_map(level).map(|(level, _)| level);
            levels.min_by_key(|level| level.remaining).map(SharedTake::Taken)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(per_second_max: u32, burst_seconds: u64) -> SharedBucket {
        SharedBucket { key: String::new(), per_second_max, burst: Duration::from_secs(burst_seconds) }
    }

    #[test]
    fn reply_is_the_level_of_the_emptiest_bucket() {
        let buckets = [bucket(10, 2), bucket(100, 1)];
        let taken = SharedTake::Taken(RateLevel {
            limit: 20,
            remaining: 5,
            full_after: Duration::from_millis(1_500),
        });
        assert_eq!(read_reply(&buckets, &[0, 1_500_000, 10_000]), Some(taken));
        let empty = SharedTake::Empty {
            index: 1,
            level: RateLevel { limit: 100, remaining: 0, full_after: Duration::from_millis(1_010) },
            retry_after: Duration::from_millis(10),
        };
        assert_eq!(read_reply(&buckets, &[2, 100_000, 1_010_000]), Some(empty));
    }

    #[test]
    fn malformed_replies_are_no_result() {
        let buckets = [bucket(10, 2)];
        for reply in [&[][..], &[0], &[2, 5], &[-1, 5], &[1, -5]] {
            assert_eq!(read_reply(&buckets, reply), None, "{reply:?}");
        }
    }

    #[test]
    fn bucket_holds_at_least_one_token() {
        let slow = SharedBucket { burst: Duration::ZERO, ..bucket(2, 0) };
        assert_eq!((interval_micros(&slow), burst_micros(&slow)), (500_000, 500_000));
        assert_eq!(interval_micros(&bucket(u32::MAX, 1)), 1);
    }
}
