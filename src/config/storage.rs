//! `[storage]`: where the bytes are kept.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;

use super::{validation::Violations, values::none_if_empty};

/// The store of bytes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageConfig {
    /// Which store.
    pub adapter: StorageAdapter,
    /// The directory of the local adapter.
    #[serde(deserialize_with = "none_if_empty")]
    pub root: Option<PathBuf>,
    /// Put before every key; may be empty.
    pub key_prefix: String,
    /// Operations at the same time.
    pub concurrency_max: usize,
    /// Tries of one operation in all.
    pub retry_attempts_max: u32,
    /// The first pause between two tries, in milliseconds.
    pub retry_backoff_base_milliseconds: u64,
    /// The longest pause, in milliseconds.
    pub retry_backoff_max_milliseconds: u64,
}

/// The kinds of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StorageAdapter {
    /// A directory of this machine.
    Local,
    /// This process; gone when it ends.
    Memory,
    /// Nowhere: most bytes are discarded. For the load command.
    Discard,
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

    pub(super) fn check(&self, violations: &mut Violations) {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        let odd_segment = |segment: &str| matches!(segment, "" | "." | "..");
        let prefix = self.key_prefix.strip_suffix('/').unwrap_or(&self.key_prefix);
        let odd =
            !prefix.chars().all(allowed) || prefix.split('/').any(odd_segment) || self.key_prefix == "/";
        if !self.key_prefix.is_empty() && odd {
            let message = "may hold names of letters, digits, \".\", \"_\" and \"-\" with \"/\" between them";
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

    pub(super) fn check_for_serve(&self, violations: &mut Violations) {
        if self.adapter == StorageAdapter::Local && self.root.is_none() {
            violations.refuse(
                "storage.root",
                "is required with the adapter \"local\": the directory to keep bytes in",
            );
        }
    }
}
