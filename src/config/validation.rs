//! Collects what the sections refuse, so that an operator sees all of it at once.

use std::{fmt::Display, ops::RangeInclusive};

use super::error::{ConfigError, Origin, Problem};

/// The violations found so far.
#[derive(Debug, Default)]
pub(super) struct Violations {
    found: Vec<(String, String)>,
}

impl Violations {
    /// Notes a violation of `key`. The message goes on after the key and never holds a secret.
    pub(super) fn refuse(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.found.push((key.into(), message.into()));
    }

    /// Notes a violation when `value` lies outside `range`.
    pub(super) fn range<T>(&mut self, key: &str, value: T, range: RangeInclusive<T>)
    where
        T: PartialOrd + Display,
    {
        if !range.contains(&value) {
            self.refuse(key, format!("must be {} to {}, not {value}", range.start(), range.end()));
        }
    }

    /// Notes a violation when `text` is empty.
    pub(super) fn not_empty(&mut self, key: &str, text: &str) {
        if text.is_empty() {
            self.refuse(key, "must not be empty");
        }
    }

    /// Ends the check; `origin` says which source set a key.
    pub(super) fn into_result(self, origin: impl Fn(&str) -> Option<Origin>) -> Result<(), ConfigError> {
        if self.found.is_empty() {
            return Ok(());
        }
        let problem = |(key, message): (String, String)| Problem { origin: origin(&key), key, message };
        Err(ConfigError::Refused(self.found.into_iter().map(problem).collect()))
    }
}
