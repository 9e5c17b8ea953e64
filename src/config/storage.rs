//! `[storage]`: object storage.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

use super::{DownloadsConfig, provider::ProviderConfig, validation::Violations, values::empty_as_none};
use crate::domain::object_key::{OBJECT_KEY_PREFIX_LENGTH_BYTES_MAX, check_prefix};

/// The most downloads that can be configured.
const DOWNLOADS_MAX: usize = 65_536;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageConfig {
    /// The name of the provider for new objects.
    pub provider: String,
    /// The name of the provider for verified copies of all blobs. `None` if there are no copies.
    #[serde(deserialize_with = "empty_as_none")]
    pub replica_provider: Option<String>,
    /// All providers by name. Each is deserialized separately.
    #[serde(skip)]
    pub providers: BTreeMap<String, ProviderConfig>,
    /// The prefix of every key; may be empty.
    pub key_prefix: String,
    /// Maximum number of concurrent operations on each provider.
    pub concurrency_max: usize,
    /// Maximum number of open downloads from each provider.
    pub downloads_max: usize,
    /// Maximum number of attempts of an operation, including the first.
    pub retry_attempts_max: u32,
    /// Pause before the first retry, in milliseconds.
    pub retry_backoff_base_milliseconds: u64,
    /// Maximum pause between two attempts, in milliseconds.
    pub retry_backoff_max_milliseconds: u64,
    /// Whether objects are deleted.
    pub deletes_enabled: bool,
    /// Time for which a check of the owner of a store is valid, in seconds.
    pub owner_check_seconds: u64,
    /// Interval between the markers that the owner writes, in seconds.
    pub owner_beat_seconds: u64,
    /// Time without a marker of another database after which deletions continue, in seconds.
    pub owner_confirm_seconds: u64,
}

/// The limits of `app::owner`.
#[derive(Debug, Clone, Copy)]
pub struct OwnerLimits {
    /// Whether objects are deleted.
    pub deletes_enabled: bool,
    /// Time for which a check is valid.
    pub check_interval: Duration,
    /// Interval between markers.
    pub beat_interval: chrono::Duration,
    /// Time without a marker of another database after which deletions continue.
    pub confirm_period: chrono::Duration,
}

impl StorageConfig {
    /// Returns the pause before the first retry.
    pub fn retry_backoff_base(&self) -> Duration {
        Duration::from_millis(self.retry_backoff_base_milliseconds)
    }

    /// Returns the maximum pause between two attempts.
    pub fn retry_backoff_max(&self) -> Duration {
        Duration::from_millis(self.retry_backoff_max_milliseconds)
    }

    /// Returns the limits of the checks that a store belongs to the database.
    pub fn owner_limits(&self) -> OwnerLimits {
        let seconds =
            |seconds: u64| chrono::Duration::seconds(i64::try_from(seconds).unwrap_or(i64::MAX / 1_000));
        OwnerLimits {
            deletes_enabled: self.deletes_enabled,
            check_interval: Duration::from_secs(self.owner_check_seconds),
            beat_interval: seconds(self.owner_beat_seconds),
            confirm_period: seconds(self.owner_confirm_seconds),
        }
    }

    /// Returns the maximum number of open downloads, which depends on that of clients if it is not set.
    pub(super) fn downloads_max_beside(&self, downloads: &DownloadsConfig) -> usize {
        match self.downloads_max {
            0 => downloads.streams_max.saturating_mul(2).clamp(512, DOWNLOADS_MAX),
            downloads_max => downloads_max,
        }
    }

    /// Adds a provider and makes it the provider for new objects.
    pub fn set_primary_provider(&mut self, name: &str, provider: ProviderConfig) {
        self.providers.insert(name.to_owned(), provider);
        name.clone_into(&mut self.provider);
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        self.check_providers(violations);
        self.check_replica_provider(violations);
        if check_prefix(&self.key_prefix).is_err() {
            let message = format!(
                "must be empty, or up to {OBJECT_KEY_PREFIX_LENGTH_BYTES_MAX} of a-z, 0-9, \".\", \"_\" and \"-\" \
                 with \"/\" between segments, not at an end, and without the segments \".\" and \"..\"; not `{}`",
                self.key_prefix
            );
            violations.add("storage.key_prefix", message);
        }
        violations.check_range("storage.concurrency_max", self.concurrency_max, 1..=4_096);
        violations.check_range("storage.downloads_max", self.downloads_max, 0..=DOWNLOADS_MAX);
        violations.check_range("storage.retry_attempts_max", self.retry_attempts_max, 1..=10);
        let (base, max) = (self.retry_backoff_base_milliseconds, self.retry_backoff_max_milliseconds);
        violations.check_range("storage.retry_backoff_base_milliseconds", base, 1..=60_000);
        violations.check_range("storage.retry_backoff_max_milliseconds", max, 1..=60_000);
        if max < base {
            let message = format!("must be at least `retry_backoff_base_milliseconds` ({base}), not {max}");
            violations.add("storage.retry_backoff_max_milliseconds", message);
        }
        self.check_owner(violations);
    }

    fn check_owner(&self, violations: &mut Violations) {
        let (beat, confirm) = (self.owner_beat_seconds, self.owner_confirm_seconds);
        violations.check_range("storage.owner_check_seconds", self.owner_check_seconds, 0..=300);
        violations.check_range("storage.owner_beat_seconds", beat, 5..=3_600);
        violations.check_range("storage.owner_confirm_seconds", confirm, 15..=86_400);
        if confirm < beat.saturating_mul(3) {
            let message =
                format!("must be at least three times `owner_beat_seconds` ({beat}), not {confirm}");
            violations.add("storage.owner_confirm_seconds", message);
        }
    }

    /// Checks that copies are stored elsewhere. Two providers with the same location are refused in any case.
    fn check_replica_provider(&self, violations: &mut Violations) {
        const KEY: &str = "storage.replica_provider";
        let Some(replica) = &self.replica_provider else { return };
        if *replica == self.provider {
            let message = format!(
                "must be another provider than `storage.provider`, which stores the originals; both are `{replica}`"
            );
            violations.add(KEY, message);
        }
        match self.providers.get(replica) {
            Some(ProviderConfig::Discard) => {
                let message = format!(
                    "must be a provider that keeps objects; `{replica}` has the adapter \"discard\", which keeps none"
                );
                violations.add(KEY, message);
            }
            Some(_) => {}
            None => {
                let known: Vec<&str> = self.providers.keys().map(String::as_str).collect();
                let message =
                    format!("must be one of `storage.providers` ({}), not `{replica}`", known.join(", "));
                violations.add(KEY, message);
            }
        }
    }

    fn check_providers(&self, violations: &mut Violations) {
        if !self.providers.contains_key(&self.provider) {
            let known: Vec<&str> = self.providers.keys().map(String::as_str).collect();
            let message =
                format!("must be one of `storage.providers` ({}), not `{}`", known.join(", "), self.provider);
            violations.add("storage.provider", message);
        }
        for (name, provider) in &self.providers {
            let key = format!("storage.providers.{name}");
            if !is_valid_name(name) {
                let message = "must have a name of up to 40 lower-case letters, digits, \"_\" and \"-\" that \
                               starts with a letter and does not contain \"__\"";
                violations.add(key.clone(), message);
            }
            provider.check(&key, violations);
            // The default provider may be unused. A provider that the operator added must be complete.
            if let ProviderConfig::Local(local) = provider
                && name != "local"
            {
                local.check_root(&key, violations);
            }
            // Report each pair once, for the second of the two.
            let mut before = self.providers.iter().take_while(|(other, _)| *other != name);
            if let Some((other, _)) = before.find(|(_, other)| provider.is_same_location(other)) {
                let message = format!(
                    "is the same location as `storage.providers.{other}`: keep only the name that stored objects \
                     record"
                );
                violations.add(key, message);
            }
        }
    }

    pub(super) fn check_for_serve(&self, violations: &mut Violations) {
        if let Some(ProviderConfig::Local(local)) = self.providers.get(&self.provider)
            && self.provider == "local"
        {
            local.check_root(&format!("storage.providers.{}", self.provider), violations);
        }
    }
}

/// Returns whether a name is valid both in an environment variable and in a database row.
pub(super) fn is_valid_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    name.len() <= 40
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(allowed)
        && !name.contains("__")
}

#[cfg(test)]
mod tests {
    use super::{ProviderConfig, StorageConfig, Violations};
    use crate::config::Config;

    #[test]
    fn owner_is_confirmed_after_three_markers_at_the_earliest() {
        let check = |change: fn(&mut StorageConfig)| {
            let mut storage = Config::defaults().unwrap().storage;
            change(&mut storage);
            let mut violations = Violations::default();
            storage.check_owner(&mut violations);
            violations.into_result(|_| None).is_ok()
        };
        assert!(check(|_| {}));
        assert!(!check(|storage| storage.owner_beat_seconds = 61));
        assert!(!check(|storage| storage.owner_confirm_seconds = 179));
        assert!(!check(|storage| storage.owner_check_seconds = 301));
        assert!(check(|storage| (storage.owner_beat_seconds, storage.owner_confirm_seconds) = (5, 15)));
    }

    #[test]
    fn copies_are_stored_with_another_known_provider() {
        let problem = |replica: &str| {
            let mut storage = Config::defaults().unwrap().storage;
            storage.set_primary_provider("first", ProviderConfig::Memory);
            storage.providers.insert("second".to_owned(), ProviderConfig::Memory);
            storage.providers.insert("nowhere".to_owned(), ProviderConfig::Discard);
            storage.replica_provider = Some(replica.to_owned());
            let mut violations = Violations::default();
            storage.check_replica_provider(&mut violations);
            violations.into_result(|_| None).err().map(|error| error.to_string())
        };
        assert_eq!(problem("second"), None);
        assert!(problem("first").unwrap().contains("another provider than"));
        assert!(problem("third").unwrap().contains("must be one of"));
        assert!(problem("nowhere").unwrap().contains("must be a provider that keeps objects"));
    }

    #[test]
    fn open_downloads_suffice_for_those_of_clients() {
        let Config { mut storage, mut downloads, .. } = Config::defaults().unwrap();
        assert_eq!(storage.downloads_max, 512);
        storage.downloads_max = 0;
        for (streams_max, downloads_max) in [(10, 512), (1_000, 2_000), (65_536, 65_536)] {
            downloads.streams_max = streams_max;
            assert_eq!(storage.downloads_max_beside(&downloads), downloads_max);
        }
        storage.downloads_max = 300;
        assert_eq!(storage.downloads_max_beside(&downloads), 300);
    }
}
