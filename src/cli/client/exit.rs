//! The exit codes of the commands that talk to a server. Scripts rely on them: numbers may be added, never
//! changed.

use std::process::ExitCode;

use crate::{
    client::{ClientError, Code, Rejection},
    proto::v1::ErrorReason,
};

/// The table for `--help`.
pub(crate) const HELP: &str = "Exit codes:
  0  all went well
  1  another failure, or several different ones
  2  wrong usage: arguments, server address or token are missing or make no sense
  3  not found, or not visible with this token
  4  not allowed: the token is missing, damaged or expired, or its owner may not do this
  5  no room: quota reached or file too large
  6  refused: the request is invalid, or the file is in no state for it
  7  the server is unavailable or cannot be reached; a repetition may help
  8  damaged: the bytes are not those that were sent or stored
  130  interrupted";

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All went well.
    Ok = 0,
    /// Another failure, or several different ones.
    Other = 1,
    /// Arguments, server address or token are missing or make no sense. Clap exits with the same number.
    Usage = 2,
    /// Not there, or not visible to this caller.
    NotFound = 3,
    /// The credentials are bad or do not suffice.
    NotAllowed = 4,
    /// The quota or a size limit is reached.
    NoRoom = 5,
    /// The request is invalid, or the file is in no state for it.
    Refused = 6,
    /// The server is away or overloaded.
    Unavailable = 7,
    /// Bytes are damaged.
    Corrupted = 8,
    /// Stopped with Ctrl-C; 128 plus the number of the signal, as shells have it.
    Interrupted = 130,
}

impl Exit {
    /// The exit of a command that did both: the failure, and [`Exit::Other`] for two different ones.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
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
            ClientError::Rejected(rejection) => of_rejection(rejection),
            ClientError::Transport { .. } => Self::Unavailable,
            ClientError::Corrupted { .. } => Self::Corrupted,
            ClientError::Options { .. } => Self::Usage,
            ClientError::Source(_) | ClientError::Sink(_) => Self::Other,
        }
    }
}

fn of_rejection(rejection: &Rejection) -> Exit {
    match rejection.reason {
        ErrorReason::Overloaded
        | ErrorReason::RequestInProgress
        | ErrorReason::UploadStalled
        | ErrorReason::UploadFenced => {
            return Exit::Unavailable;
        }
        ErrorReason::ChecksumMismatch => return Exit::Corrupted,
        ErrorReason::MessageTooLarge => return Exit::Refused,
        _ => {}
    }
    match rejection.code {
        Code::NotFound => Exit::NotFound,
        Code::Unauthenticated | Code::PermissionDenied => Exit::NotAllowed,
        Code::ResourceExhausted => Exit::NoRoom,
        Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Aborted
        | Code::AlreadyExists => Exit::Refused,
        Code::Unavailable | Code::DeadlineExceeded => Exit::Unavailable,
        Code::DataLoss => Exit::Corrupted,
        Code::Ok | Code::Cancelled | Code::Unknown | Code::Unimplemented | Code::Internal => Exit::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_failures_are_another_failure() {
        assert_eq!(Exit::Ok.and(Exit::NoRoom), Exit::NoRoom);
        assert_eq!(Exit::NoRoom.and(Exit::NoRoom).and(Exit::Ok), Exit::NoRoom);
        assert_eq!(Exit::NoRoom.and(Exit::NotFound), Exit::Other);
    }
}
