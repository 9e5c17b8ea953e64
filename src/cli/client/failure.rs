//! The errors of client commands, as text and as JSON.

use std::io;

use serde_json::{Value, json};

use super::exit::Exit;
use crate::client::ClientError;

/// The error of a client command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The call failed. The client library's message already says what to do.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The arguments are invalid.
    #[error("{0}")]
    Usage(String),
    /// An operation on a local file failed.
    #[error("failed to {action}: {source}")]
    LocalIo {
        /// The operation with the path, such as `read report.pdf`.
        action: String,
        source: io::Error,
    },
    /// Standard output is closed or full.
    #[error("failed to write to standard output: {0}")]
    Stdout(#[source] io::Error),
    /// One of several items failed.
    #[error("{subject}: {failure}")]
    WithSubject {
        /// The path or id of the item.
        subject: String,
        failure: Box<Failure>,
    },
    /// The checked uploads do not fit. The reasons have already been printed.
    #[error("the uploads do not fit the quota")]
    UploadsDoNotFit,
    /// The checked event is above its limit. The level has already been printed.
    #[error("the event is above the limit of {limit}; retry later")]
    EventNotAllowed { limit: i64 },
    /// At least one of several items failed. Each error has already been reported.
    #[error("{failed} of {total} items failed")]
    Several {
        failed: usize,
        total: usize,
        /// The combined exit code of the errors.
        exit: Exit,
    },
}

impl Failure {
    /// Wraps an I/O error. `action` completes the sentence "failed to …".
    pub(crate) fn local_io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::LocalIo { action, source }
    }

    /// Adds the path or id of the item that failed, unless the error already names it.
    #[must_use]
    pub(crate) fn with_subject(self, subject: &str) -> Self {
        match self {
            Self::Client(_) => Self::WithSubject { subject: subject.to_owned(), failure: Box::new(self) },
            other => other,
        }
    }

    /// Returns the exit code for this error.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => Exit::from(error),
            Self::Usage(_) => Exit::Usage,
            Self::LocalIo { .. } | Self::Stdout(_) => Exit::Other,
            Self::WithSubject { failure, .. } => failure.exit(),
            Self::UploadsDoNotFit | Self::EventNotAllowed { .. } => Exit::LimitReached,
            Self::Several { exit, .. } => *exit,
        }
    }

    /// Whether the reader of standard output closed it, as `head` does. The command then ends successfully.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        match self {
            Self::Stdout(error) | Self::Client(ClientError::Sink(error)) => {
                error.kind() == io::ErrorKind::BrokenPipe
            }
            Self::WithSubject { failure, .. } => failure.is_broken_pipe(),
            _ => false,
        }
    }

    /// Whether the server could not be reached, broke the connection, or did not respond like this service.
    pub(crate) fn may_be_of_another_server(&self) -> bool {
        match self {
            Self::Client(ClientError::Transport { .. }) => true,
            // Every error of the service has a reason.
            Self::Client(ClientError::Rejected(rejection)) => rejection.reason_name.is_empty(),
            Self::WithSubject { failure, .. } => failure.may_be_of_another_server(),
            _ => false,
        }
    }

    /// Returns the error as JSON, with all details that the server sent.
    pub(crate) fn to_json(&self) -> Value {
        if let Self::WithSubject { subject, failure } = self {
            let mut json = failure.to_json();
            json["subject"] = json!(subject);
            return json;
        }
        let mut error = json!({ "exit_code": self.exit() as u8, "message": self.to_string() });
        if let Self::Client(ClientError::Rejected(rejection)) = self {
            let violations = rejection.field_violations.iter();
            error["code"] = json!(format!("{:?}", rejection.code));
            error["reason"] = json!(rejection.reason_name);
            error["message"] = json!(rejection.message);
            error["field_violations"] = violations
                .map(|violation| json!({ "field": violation.field, "description": violation.description }))
                .collect();
            error["retry_after_seconds"] = json!(rejection.retry_after.map(|wait| wait.as_secs_f64()));
            error["metadata"] = json!(rejection.metadata);
            error["call_id"] = json!(rejection.call_id);
        }
        json!({ "error": error })
    }
}

/// Checks that there is at least one file id. `advice` names the command that lists them.
pub(super) fn check_ids(ids: &[String], advice: &str) -> Result<(), Failure> {
    if ids.iter().all(String::is_empty) {
        return Err(Failure::Usage(format!("no file id; {advice}")));
    }
    Ok(())
}

/// Runs `action` for each item, and continues with the next item after an error.
///
/// # Errors
/// Passes each error to `report` at once and finally returns [`Failure::Several`]. With a single item, its
/// error is returned instead.
pub(super) async fn run_for_each<T, F>(
    items: Vec<T>,
    mut action: F,
    mut report: impl FnMut(&Failure),
) -> Result<(), Failure>
where
    F: AsyncFnMut(T) -> Result<(), Failure>,
{
    let total = items.len();
    let (mut failed, mut exit) = (0, Exit::Ok);
    for item in items {
        match action(item).await {
            Ok(()) => {}
            // If nothing reads the output any more, the remaining items are pointless.
            Err(failure) if total == 1 || failure.is_broken_pipe() => return Err(failure),
            Err(failure) => {
                report(&failure);
                failed += 1;
                exit = exit.combine(failure.exit());
            }
        }
    }
    if failed > 0 { Err(Failure::Several { failed, total, exit }) } else { Ok(()) }
}
