//! Where words go: results to standard output, everything else to standard error.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::{failure::Failure, human};

/// How a command speaks: to people, or with `--json` to programs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    /// Results as JSON, one document a line; failures as JSON too.
    pub json: bool,
}

impl Output {
    /// Prints one line of a result for people.
    pub(super) fn line(self, text: impl Display) -> Result<(), Failure> {
        writeln!(io::stdout().lock(), "{text}").map_err(Failure::Stdout)
    }

    /// Prints one result for programs.
    pub(super) fn json(self, result: &impl Serialize) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(result).map_err(|error| Failure::Stdout(error.into()))?;
        line.push(b'\n');
        self.raw(&line)
    }

    /// Prints a piece of a result that is too long to be held as a whole.
    pub(super) fn raw(self, bytes: &[u8]) -> Result<(), Failure> {
        io::stdout().lock().write_all(bytes).map_err(Failure::Stdout)
    }

    /// Says something that is not a result.
    pub(super) fn note(self, text: impl Display) {
        // There is nobody left to tell when standard error is closed.
        let _ = io::stderr().lock().write_all(format!("{text}\n").as_bytes());
    }

    /// Says why something failed; a reader who went away is not told.
    pub(super) fn report(self, failure: &Failure) {
        if failure.is_broken_pipe() {
            return;
        }
        if self.json {
            self.note(failure.to_json());
        } else {
            self.note(format_args!("strongroom: {}", human::printable(&failure.to_string())));
        }
    }

    /// A bar on standard error, where people watch; hidden elsewhere. Without a size it counts.
    pub(super) fn progress(self, name: &str, size_bytes: Option<u64>) -> ProgressBar {
        if self.json || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::with_draw_target(size_bytes, ProgressDrawTarget::stderr());
        let template = match size_bytes {
            Some(_) => "{msg} {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
            None => "{msg} {binary_bytes} {binary_bytes_per_sec}",
        };
        // A template that does not parse costs the looks of the bar, not the transfer.
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.with_style(style).with_message(human::printable(name))
    }

    /// A count on standard error, where people watch; hidden elsewhere.
    pub(super) fn count(self, what: &str, total: Option<u64>) -> ProgressBar {
        if self.json || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let template = if total.is_some() { "{pos} of {len} {msg} {eta}" } else { "{pos} {msg}" };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        bar.with_style(style).with_message(what.to_owned())
    }
}
