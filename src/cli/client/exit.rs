//! The exit codes of the client commands. Scripts rely on them: codes may be added, but never changed.

use std::process::ExitCode;

use crate::{
    client::{ClientError, Code, Rejection},
    proto::v1::ErrorReason,
};

/// The exit codes as shown by `--help`.
pub(crate) const HELP: &str = "Exit codes:
  0    success
  1    any other error, or several different errors
  2    usage error: an argument, the server address or the token is missing or invalid
  3    not found, or not visible with this token
  4    not allowed: the token is invalid or expired, or the caller lacks the permission
  5    limit reached: the quota is exhausted, or the file is too large
  6    rejected: the request is invalid, or the state of the file does not allow it
  7    unavailable: the server is overloaded or unreachable; retry later
  8    corrupted: the received or stored bytes failed verification
  130  interrupted";

/// The result of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    /// Any other error, or several different errors.
    Other = 1,
    /// An argument, the server address or the token is missing or invalid. Clap exits with the same code.
    Usage = 2,
    /// The file does not exist, or is not visible to the caller.
    NotFound = 3,
    /// The credentials are invalid or insufficient.
    NotAllowed = 4,
    /// The quota is exhausted, or the file exceeds a size limit.
    LimitReached = 5,
    /// The request is invalid, or the state of the file does not allow it.
    Rejected = 6,
    /// The server is unreachable or overloaded.
    Unavailable = 7,
    /// The bytes failed verification.
    Corrupted = 8,
    /// The command was interrupted with Ctrl-C: 128 plus the signal number, as shells report it.
    Interrupted = 130,
}

impl Exit {
    /// Combines two results: the failure if only one failed, or if both failed with the same code, and
    /// [`Exit::Other`] for different errors.
    #[must_use]
    pub fn combine(self, other: Self) -> Self {
        match (self, other) {
            (Self::Ok, one) | (one, Self::Ok) => one,
            (one, same) if one == same => one,
            _ => Self::Other,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<&ClientError> for Exit {
    fn from(error: &ClientError) -> Self {
        match error {
            ClientError::Rejected(rejection) => exit_for_rejection(rejection),
            ClientError::Transport { .. } => Self::Unavailable,
            ClientError::Corrupted { .. } => Self::Corrupted,
            ClientError::Options { .. } => Self::Usage,
            ClientError::Source(_) | ClientError::Sink(_) => Self::Other,
        }
    }
}

fn exit_for_rejection(rejection: &Rejection) -> Exit {
    match rejection.reason {
        ErrorReason::Overloaded
        | ErrorReason::TenantCreationsExhausted
        | ErrorReason::RateLimited
        | ErrorReason::RequestInProgress
        | ErrorReason::UploadStalled
        | ErrorReason::UploadPartsLost
        | ErrorReason::UploadFenced => {
            return Exit::Unavailable;
        }
        ErrorReason::ChecksumMismatch => return Exit::Corrupted,
        ErrorReason::MessageTooLarge => return Exit::Rejected,
        _ => {}
    }
    match rejection.code {
        Code::NotFound => Exit::NotFound,
        Code::Unauthenticated | Code::PermissionDenied => Exit::NotAllowed,
        Code::ResourceExhausted => Exit::LimitReached,
        Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Aborted
        | Code::AlreadyExists => Exit::Rejected,
        Code::Unavailable | Code::DeadlineExceeded => Exit::Unavailable,
        Code::DataLoss => Exit::Corrupted,
        Code::Ok | Code::Cancelled | Code::Unknown | Code::Unimplemented | Code::Internal => Exit::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_errors_combine_to_other() {
        assert_eq!(Exit::Ok.combine(Exit::LimitReached), Exit::LimitReached);
        assert_eq!(Exit::LimitReached.combine(Exit::LimitReached).combine(Exit::Ok), Exit::LimitReached);
        assert_eq!(Exit::LimitReached.combine(Exit::NotFound), Exit::Other);
    }
}
