//! Collects violations of all sections, so that they are reported together.

use std::{fmt::Display, ops::RangeInclusive};

use super::error::{ConfigError, Origin, Problem};

/// The violations found so far.
#[derive(Debug, Default)]
pub(super) struct Violations {
    found: Vec<(String, String)>,
}

impl Violations {
    /// Adds a violation. The message follows the key in a sentence and must not contain a secret.
    pub(super) fn add(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.found.push((key.into(), message.into()));
    }

    /// Adds a violation if `value` is outside `range`.
    pub(super) fn check_range<T>(&mut self, key: &str, value: T, range: RangeInclusive<T>)
    where
        T: PartialOrd + Display,
    {
        if !range.contains(&value) {
            self.add(key, format!("must be {} to {}, not {value}", range.start(), range.end()));
        }
    }

    /// Adds a violation if `text` is empty.
    pub(super) fn check_not_empty(&mut self, key: &str, text: &str) {
        if text.is_empty() {
            self.add(key, "must not be empty");
        }
    }

    /// Returns an error if there are violations. `origin` returns the source that set a key.
    pub(super) fn into_result(self, origin: impl Fn(&str) -> Option<Origin>) -> Result<(), ConfigError> {
        if self.found.is_empty() {
            return Ok(());
        }
        let problem = |(key, message): (String, String)| Problem { origin: origin(&key), key, message };
        Err(ConfigError::Invalid(self.found.into_iter().map(problem).collect()))
    }
}
