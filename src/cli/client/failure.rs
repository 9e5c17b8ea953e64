//! Why a command stopped, and how it says so.

use std::io;

use serde_json::{Value, json};

use super::exit::Exit;
use crate::client::ClientError;

/// Why a command stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The library's error says what to do already.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The command cannot be run as it was asked.
    #[error("{0}")]
    Usage(String),
    /// A file of this machine stands in the way.
    #[error("{doing}: {source}")]
    Local {
        /// The act, with the path: `read report.pdf`.
        doing: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// Standard output is closed or full.
    #[error("write to standard output: {0}")]
    Stdout(#[source] io::Error),
    /// One of several things failed; the message begins with which.
    #[error("{subject}: {failure}")]
    About {
        /// Which one: a path or an id.
        subject: String,
        /// Why.
        failure: Box<Failure>,
    },
    /// Some of several things failed, and each has been reported.
    #[error("{failed} of {total} failed")]
    Some {
        /// How many failed.
        failed: usize,
        /// How many there were.
        total: usize,
        /// What the failures have in common.
        exit: Exit,
    },
}

impl Failure {
    /// Wraps an error of the file system.
    pub(crate) fn local(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Local { doing, source }
    }

    /// Says which of several things failed, where the failure does not name it already.
    #[must_use]
    pub(crate) fn about(self, subject: &str) -> Self {
        match self {
            Self::Client(_) => Self::About { subject: subject.to_owned(), failure: Box::new(self) },
            named => named,
        }
    }

    /// The code to exit with.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => Exit::from(error),
            Self::Usage(_) => Exit::Usage,
            Self::Local { .. } | Self::Stdout(_) => Exit::Other,
            Self::About { failure, .. } => failure.exit(),
            Self::Some { exit, .. } => *exit,
        }
    }

    /// Whether the reader of our output went away, as `head` does when it has enough. That is no failure.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        match self {
            Self::Stdout(error) | Self::Client(ClientError::Sink(error)) => {
                error.kind() == io::ErrorKind::BrokenPipe
            }
            Self::About { failure, .. } => failure.is_broken_pipe(),
            _ => false,
        }
    }

    /// The failure for programs, with everything that the server said.
    pub(crate) fn to_json(&self) -> Value {
        if let Self::About { subject, failure } = self {
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
            error["field_violations"] =
                violations.map(|one| json!({ "field": one.field, "description": one.description })).collect();
            error["retry_after_seconds"] = json!(rejection.retry_after.map(|wait| wait.as_secs_f64()));
            error["metadata"] = json!(rejection.metadata);
            error["call_id"] = json!(rejection.call_id);
        }
        json!({ "error": error })
    }
}

/// Runs one act after the other and goes on after a failure, so that one bad file does not hold up the rest.
/// Each failure goes to `report` at once; a single act's failure comes back as it is.
pub(super) async fn each<T, F>(
    items: Vec<T>,
    mut act: F,
    mut report: impl FnMut(&Failure),
) -> Result<(), Failure>
where
    F: AsyncFnMut(T) -> Result<(), Failure>,
{
    let total = items.len();
    let (mut failed, mut exit) = (0, Exit::Ok);
    for item in items {
        match act(item).await {
            Ok(()) => {}
            // Without a reader there is nobody left to work for.
            Err(failure) if total == 1 || failure.is_broken_pipe() => return Err(failure),
            Err(failure) => {
                report(&failure);
                failed += 1;
                exit = exit.and(failure.exit());
            }
        }
    }
    if failed > 0 { Err(Failure::Some { failed, total, exit }) } else { Ok(()) }
}
