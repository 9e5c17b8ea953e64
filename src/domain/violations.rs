//! Collects everything that is wrong with a request, so that its sender hears all of it at once.

use std::fmt;

/// One thing wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The path of the field as the caller wrote it, for example `spec.name`.
    pub field: String,
    /// What is wrong and what would be right, in a sentence without a full stop.
    pub description: String,
}

/// Everything wrong with one request. Never empty once it is an error: see [`Violations::into_result`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Violations(Vec<Violation>);

/// More than this many are cut, so that error details stay below 4 KiB.
pub const VIOLATIONS_REPORTED_MAX: usize = 20;

impl Violations {
    /// Nothing wrong yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A single violation.
    pub fn one(field: impl Into<String>, description: impl Into<String>) -> Self {
        let mut violations = Self::new();
        violations.add(field, description);
        violations
    }

    /// The same, said of another field: the one that the caller wrote.
    #[must_use]
    pub fn about(mut self, field: &str) -> Self {
        for violation in &mut self.0 {
            field.clone_into(&mut violation.field);
        }
        self
    }

    /// Notes one more.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        if self.0.len() < VIOLATIONS_REPORTED_MAX {
            self.0.push(Violation { field: field.into(), description: description.into() });
        }
    }

    /// Notes that one of a batch is refused. These are never cut: a batch is limited, and described in a word each they stay
    /// short enough.
    pub fn add_of_batch(&mut self, field: &str, place: usize, description: &str) {
        self.0.push(Violation { field: format!("{field}[{place}]"), description: description.to_owned() });
    }

    /// Unwraps a checked value, or notes what was wrong with it.
    pub fn take<T, E: fmt::Display>(&mut self, field: &str, checked: Result<T, E>) -> Option<T> {
        checked.map_err(|error| self.add(field, error.to_string())).ok()
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is wrong.
    pub fn iter(&self) -> impl Iterator<Item = &Violation> {
        self.0.iter()
    }

    /// The error, when there is anything wrong.
    pub fn into_result(self) -> Result<(), Self> {
        if self.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, violation) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", violation.field, violation.description)?;
        }
        Ok(())
    }
}
