//! `[limits]`: where the processes of an installation share their rate limits.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::Url;

use super::{validation::Violations, values::empty_secret_as_none};

/// Where rate limits are shared.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedLimitsConfig {
    /// URL of the Redis server, which may contain a password; `None` if each process limits by itself.
    #[serde(deserialize_with = "empty_secret_as_none")]
    pub redis_url: Option<SecretString>,
    /// Time in which Redis must respond, in milliseconds.
    pub redis_timeout_milliseconds: u64,
}

impl SharedLimitsConfig {
    /// Returns the time in which Redis must respond.
    pub fn redis_timeout(&self) -> Duration {
        Duration::from_millis(self.redis_timeout_milliseconds)
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        let is_url = |url: &SecretString| {
            let url = Url::parse(url.expose_secret());
            url.is_ok_and(|url| matches!(url.scheme(), "redis" | "rediss" | "redis+unix"))
        };
        if self.redis_url.as_ref().is_some_and(|url| !is_url(url)) {
            violations.add("limits.redis_url", "must be a redis, rediss (TLS) or redis+unix URL");
        }
        violations.check_range(
            "limits.redis_timeout_milliseconds",
            self.redis_timeout_milliseconds,
            1..=1_000,
        );
    }
}
