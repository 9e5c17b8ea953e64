//! Errors that only visitors of shares have.

use std::time::Duration;

/// An error that only a visitor of a share has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VisitorError {
    /// The share has a password, and the request has none.
    #[error("share has a password; repeat the request with it")]
    PasswordRequired,
    /// The password is wrong.
    #[error("password of the share is wrong")]
    PasswordWrong,
    /// There were too many failed attempts.
    #[error("too many failed attempts; retry in {} s", retry_after.as_secs().max(1))]
    AttemptsExhausted {
        /// The time until attempts are counted from 0 again.
        retry_after: Duration,
    },
    /// The grant has served as many bytes or requests as it may.
    #[error(
        "grant has served twice the size of the file, which has {size_bytes} bytes, or {use_count_max} requests; \
         resolve the share again"
    )]
    GrantSpent { size_bytes: u64, use_count_max: i32 },
}

impl VisitorError {
    /// Returns the delay before a retry, or `None` if a retry does not help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::AttemptsExhausted { retry_after } => Some(*retry_after),
            Self::PasswordRequired | Self::PasswordWrong | Self::GrantSpent { .. } => None,
        }
    }
}
