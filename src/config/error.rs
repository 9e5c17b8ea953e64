//! Configuration errors. All problems are reported at once, each with its key and the source that set it.

use std::{fmt, io, path::PathBuf};

/// The error of loading a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("failed to read configuration {}: {source}", path.display())]
    Read {
        path: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
    /// The file is not valid TOML. The line is not quoted, because it may contain a secret.
    #[error("failed to parse configuration {}, line {line}: {message}", path.display())]
    Parse {
        path: PathBuf,
        /// The line number, starting at 1.
        line: usize,
        /// The message of the parser.
        message: String,
    },
    /// Keys or values are invalid. Contains all problems.
    #[error("invalid configuration:{}", format_problems(.0))]
    Invalid(Vec<Problem>),
}

impl ConfigError {
    /// Returns the invalid keys and values; empty if a source could not be read.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Invalid(problems) => problems,
            Self::Read { .. } | Self::Parse { .. } => &[],
        }
    }
}

/// A problem with one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key's path, such as `uploads.part_size_bytes`.
    pub key: String,
    /// The problem, worded to follow the key in a sentence.
    pub message: String,
    /// The source that set the key. `None` for a default, and for a field that was set in code.
    pub origin: Option<Origin>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.message)?;
        match &self.origin {
            Some(origin) => write!(f, " ({origin})"),
            None => Ok(()),
        }
    }
}

/// The source that set a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    File(PathBuf),
    /// An environment variable, with its original spelling.
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "in {}", path.display()),
            Self::Variable(name) => write!(f, "from {name}"),
        }
    }
}

fn format_problems(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}
