//! Output of client commands: results go to standard output, everything else to standard error.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use super::{failure::Failure, human};

/// The output format of a command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    /// Print results and errors as JSON, one document per line.
    pub json: bool,
}

impl Output {
    /// Prints a line of a result in text form.
    pub(super) fn line(self, text: impl Display) -> Result<(), Failure> {
        writeln!(io::stdout().lock(), "{text}").map_err(Failure::Stdout)
    }

    /// Prints a result as one line of JSON.
    pub(super) fn json(self, result: &impl Serialize) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(result).map_err(|error| Failure::Stdout(error.into()))?;
        line.push(b'\n');
        self.raw(&line)
    }

    /// Prints a part of a result that is too large for memory.
    pub(super) fn raw(self, bytes: &[u8]) -> Result<(), Failure> {
        io::stdout().lock().write_all(bytes).map_err(Failure::Stdout)
    }

    /// Prints a line to standard error.
    pub(super) fn note(self, text: impl Display) {
        // If standard error is closed, there is nowhere left to report to.
        let _ = io::stderr().lock().write_all(format!("{text}\n").as_bytes());
    }

    /// Prints advice about an error that was reported.
    pub(super) fn hint(self, advice: &str) {
        if self.json {
            self.note(json!({ "hint": advice }));
        } else {
            self.note(format_args!("hint: {}", human::printable(advice)));
        }
    }

    /// Prints an error to standard error. A closed standard output is not reported.
    pub(super) fn report(self, failure: &Failure) {
        if failure.is_broken_pipe() {
            return;
        }
        if self.json {
            self.note(failure.to_json());
        } else {
            self.note(format_args!("error: {}", human::printable(&failure.to_string())));
        }
    }

    /// Creates a progress bar on standard error; hidden if that is not a terminal. Without a size, it only
    /// counts bytes.
    pub(super) fn progress(self, name: &str, size_bytes: Option<u64>) -> ProgressBar {
        if self.json || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::with_draw_target(size_bytes, ProgressDrawTarget::stderr());
        let template = match size_bytes {
            Some(_) => "{msg} {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
            None => "{msg} {binary_bytes} {binary_bytes_per_sec}",
        };
        // An invalid template must not fail the transfer.
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.with_style(style).with_message(human::printable(name))
    }

    /// Creates an item counter on standard error; hidden if that is not a terminal.
    pub(super) fn counter(self, label: &str, total: Option<u64>) -> ProgressBar {
        if self.json || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let template = if total.is_some() { "{pos} of {len} {msg} {eta}" } else { "{pos} {msg}" };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        bar.with_style(style).with_message(label.to_owned())
    }
}
