//! Questions before commands that change the ownership or the life of data.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use super::Failure;

/// The exit code of a command that was not confirmed.
pub(super) const NOT_CONFIRMED: u8 = 4;

/// Asks a question on the terminal. Returns whether the response is yes. Without a terminal, returns an error that
/// asks for `--yes` to do `action`.
pub(super) fn is_confirmed(question: &str, action: &str) -> Result<bool, Failure> {
    let mut out = std::io::stderr().lock();
    write!(out, "{question}")?;
    if !std::io::stdin().is_terminal() {
        writeln!(out)?;
        return Err(format!("standard input is not a terminal; add --yes to {action}").into());
    }
    out.flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
