//! `[storage]`: where the bytes are kept.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

use super::{provider::ProviderConfig, validation::Violations};
use crate::domain::object_key::{OBJECT_KEY_PREFIX_LENGTH_BYTES_MAX, check_prefix};

/// The stores of bytes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageConfig {
    /// The name of the provider that new bytes go to.
    pub provider: String,
    /// All providers, by name. Each is read for itself.
    #[serde(skip)]
    pub providers: BTreeMap<String, ProviderConfig>,
    /// Put before every key; may be empty.
    pub key_prefix: String,
    /// Operations at the same time, on each provider.
    pub concurrency_max: usize,
    /// Tries of one operation in all.
    pub retry_attempts_max: u32,
    /// The first pause between two tries, in milliseconds.
    pub retry_backoff_base_milliseconds: u64,
    /// The longest pause, in milliseconds.
    pub retry_backoff_max_milliseconds: u64,
}

impl StorageConfig {
    /// The first pause between two tries.
    pub fn retry_backoff_base(&self) -> Duration {
        Duration::from_millis(self.retry_backoff_base_milliseconds)
    }

    /// The longest pause between two tries.
    pub fn retry_backoff_max(&self) -> Duration {
        Duration::from_millis(self.retry_backoff_max_milliseconds)
    }

    /// Makes `provider` the one that new bytes go to, beside those that are there.
    pub fn write_to(&mut self, name: &str, provider: ProviderConfig) {
        self.providers.insert(name.to_owned(), provider);
        name.clone_into(&mut self.provider);
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        self.check_providers(violations);
        if check_prefix(&self.key_prefix).is_err() {
            let message = format!(
                "must be empty, or up to {OBJECT_KEY_PREFIX_LENGTH_BYTES_MAX} of a-z, 0-9, \".\", \"_\" and \"-\" with \"/\" \
                 between names, not at an end; no name may be \".\" or \"..\""
            );
            violations.refuse("storage.key_prefix", message);
        }
        violations.range("storage.concurrency_max", self.concurrency_max, 1..=4_096);
        violations.range("storage.retry_attempts_max", self.retry_attempts_max, 1..=10);
        let (base, max) = (self.retry_backoff_base_milliseconds, self.retry_backoff_max_milliseconds);
        violations.range("storage.retry_backoff_base_milliseconds", base, 1..=60_000);
        violations.range("storage.retry_backoff_max_milliseconds", max, 1..=60_000);
        if max < base {
            let message = "must be at least `retry_backoff_base_milliseconds`";
            violations.refuse("storage.retry_backoff_max_milliseconds", message);
        }
    }

    fn check_providers(&self, violations: &mut Violations) {
        if !self.providers.contains_key(&self.provider) {
            let known: Vec<&str> = self.providers.keys().map(String::as_str).collect();
            let message = format!(
                "must name one of `storage.providers`, which are {}; not `{}`",
                known.join(", "),
                self.provider
            );
            violations.refuse("storage.provider", message);
        }
        for (name, provider) in &self.providers {
            let key = format!("storage.providers.{name}");
            if !is_name(name) {
                let message = "must be named with up to 40 lower-case letters, digits, \"_\" and \"-\", a letter first, \
                               without \"__\"";
                violations.refuse(key.clone(), message);
            }
            provider.check(&key, violations);
            // The provider of the defaults may be left alone; whoever adds another one means it.
            if let ProviderConfig::Local(local) = provider
                && name != "local"
            {
                local.check_root(&key, violations);
            }
            // Told once, at the later of the two.
            let mut before = self.providers.iter().take_while(|(other, _)| *other != name);
            if let Some((other, _)) = before.find(|(_, other)| provider.is_same_place(other)) {
                let message = format!(
                    "is the same place as `storage.providers.{other}`: keep one name of it, the one that rows have"
                );
                violations.refuse(key, message);
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

/// What can be written in a variable's name and in a row alike.
pub(super) fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    name.len() <= 40
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(allowed)
        && !name.contains("__")
}
