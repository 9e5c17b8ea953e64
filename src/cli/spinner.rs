//! The progress of a command of unknown duration.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};

use super::Failure;

/// A spinner on standard error; hidden if standard error is not a terminal.
pub(super) struct Spinner(ProgressBar);

impl Spinner {
    /// Creates a spinner, which is hidden if `is_quiet`.
    pub(super) fn new(is_quiet: bool) -> Result<Self, Failure> {
        if is_quiet || !std::io::stderr().is_terminal() {
            return Ok(Self(ProgressBar::hidden()));
        }
        Ok(Self(ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {msg}")?)))
    }

    /// Shows what has been done so far.
    pub(super) fn show(&self, message: String) {
        self.0.set_message(message);
        self.0.tick();
    }

    /// Removes the spinner.
    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}
