//! Collects all field violations of a request, so that they are reported together.

use std::fmt;

/// A violation of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The path of the field in the request, for example `spec.name`.
    pub field: String,
    /// The violated rule, such as `must be set`: lower case, no full stop.
    pub description: String,
}

/// The violations of a request. `into_result` never returns an empty error; see [`Violations::into_result`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Violations(Vec<Violation>);

/// The maximum number of violations that are reported, so that error details stay below 4 KiB.
pub const VIOLATIONS_REPORTED_MAX: usize = 20;

impl Violations {
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a collection with one violation.
    pub fn one(field: impl Into<String>, description: impl Into<String>) -> Self {
        let mut violations = Self::new();
        violations.add(field, description);
        violations
    }

    /// Replaces the field of all violations, for a request whose field has another name.
    #[must_use]
    pub fn with_field(mut self, field: &str) -> Self {
        for violation in &mut self.0 {
            field.clone_into(&mut violation.field);
        }
        self
    }

    /// Adds a violation. Ignores it after [`VIOLATIONS_REPORTED_MAX`] violations.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        if self.0.len() < VIOLATIONS_REPORTED_MAX {
            self.0.push(Violation { field: field.into(), description: description.into() });
        }
    }

    /// Adds a violation for an item of a batch. These are not limited in number, because the size of a batch
    /// is limited and their descriptions are short.
    pub fn add_item(&mut self, field: &str, index: usize, description: &str) {
        self.0.push(Violation { field: format!("{field}[{index}]"), description: description.to_owned() });
    }

    /// Returns the value of a result, or adds its error as a violation.
    pub fn ok_or_add<T, E: fmt::Display>(&mut self, field: &str, checked: Result<T, E>) -> Option<T> {
        checked.map_err(|error| self.add(field, error.to_string())).ok()
    }

    /// Returns whether there are no violations.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Iterates over the violations.
    pub fn iter(&self) -> impl Iterator<Item = &Violation> {
        self.0.iter()
    }

    /// Converts the collection to an error, unless it is empty.
    ///
    /// # Errors
    /// Returns the violations, if there are any.
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
