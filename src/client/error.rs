//! The errors of the client library, grouped by what the caller can do.

use std::{collections::BTreeMap, error::Error, fmt, io, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::advice;
use crate::proto::v1::ErrorReason;

/// The error of a call.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server received the call and rejected it.
    #[error(transparent)]
    Rejected(#[from] Box<Rejection>),
    /// The server is unreachable, or the connection broke before the response was complete.
    #[error(
        "server is unreachable: {}; check the address and the network, then try again",
        describe_root_cause(.source.as_ref())
    )]
    Transport {
        /// The error of the connection.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The source of an upload could not be read. No file was stored.
    #[error("failed to read the source: {0}; no file was stored")]
    Source(#[source] io::Error),
    /// The destination of a download could not be written.
    #[error("failed to write the download: {0}{advice}", advice = advise_sink(.0))]
    Sink(#[source] io::Error),
    /// The received bytes differ from those that the server sent or stored.
    #[error("download is damaged: {problem}; discard it, then download again")]
    Corrupted {
        /// The failed check, with the expected and the actual value.
        problem: String,
    },
    /// An option of the connection is invalid.
    #[error("{problem}")]
    Options {
        /// The option, its value and the allowed values.
        problem: String,
    },
}

/// A status that the server returned, with its details.
#[derive(Debug, Clone)]
pub struct Rejection {
    /// The gRPC code, which determines how to react.
    pub code: Code,
    /// The reason. `Unspecified` if the server sent none, or one that this library does not define.
    pub reason: ErrorReason,
    /// The name of the reason as the server sent it, for example `FILE_TOO_LARGE`. Also set if this library
    /// does not define the reason.
    pub reason_name: String,
    /// The human-readable message of the server.
    pub message: String,
    /// All invalid fields of the request.
    pub field_violations: Vec<FieldViolation>,
    /// How long to wait before a retry. Absent if the server does not state it.
    pub retry_after: Option<Duration>,
    /// Values that belong to the reason, for example `persisted_size_bytes`.
    pub metadata: BTreeMap<String, String>,
    /// The id of the call in the server's log.
    pub call_id: Option<String>,
}

/// An invalid field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// The path of the field, for example `spec.name`.
    pub field: String,
    /// The rule that the value violates.
    pub description: String,
}

impl ClientError {
    /// Returns the server's rejection, or `None` if the error has another cause.
    pub fn rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            _ => None,
        }
    }

    /// Converts a status. One with a source was created by the transport on this side: no response arrived.
    pub(super) fn from_status(status: Status) -> Self {
        let is_not_ready =
            status.code() == Code::Unknown && status.message().starts_with("Service was not ready");
        if status.source().is_some() || is_not_ready {
            return Self::Transport { source: Box::new(status) };
        }
        Self::Rejected(Box::new(Rejection::from_status(&status)))
    }

    pub(super) fn corrupted(problem: impl Into<String>) -> Self {
        Self::Corrupted { problem: problem.into() }
    }
}

impl Rejection {
    fn from_status(status: &Status) -> Self {
        let details = status.get_error_details();
        let (reason_name, metadata): (String, BTreeMap<String, String>) = match details.error_info() {
            Some(info) => (info.reason.clone(), info.metadata.clone().into_iter().collect()),
            None => Default::default(),
        };
        let header = || Some(status.metadata().get("call-id")?.to_str().ok()?.to_owned());
        let violations = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
        Self {
            code: status.code(),
            reason: ErrorReason::from_str_name(&format!("ERROR_REASON_{reason_name}")).unwrap_or_default(),
            reason_name,
            message: status.message().to_owned(),
            field_violations: violations
                .iter()
                .map(|violation| FieldViolation {
                    field: violation.field.clone(),
                    description: violation.description.clone(),
                })
                .collect(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            call_id: metadata.get("call_id").cloned().or_else(header),
            metadata,
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = match self.message.is_empty() {
            true => format!("server rejected the call: {}", self.code.description()),
            false => self.message.trim_end_matches('.').to_owned(),
        };
        if let Some(wait) = self.retry_after {
            // The delay is more precise than these words of the server.
            let fact = text.strip_suffix("; retry in a moment").unwrap_or(&text);
            text = format!("{fact}; try again in {:.1} s", wait.as_secs_f64());
        }
        // The message of the server may contain the violations and the advice already.
        for violation in &self.field_violations {
            let description = violation.description.trim_end_matches('.');
            let statement = format!("{}: {description}", violation.field);
            if !text.contains(&statement) && self.message != violation.description {
                text = format!("{text}; {statement}");
            }
        }
        if let Some(advice) = advice::find_advice(self.reason).filter(|advice| !text.contains(advice)) {
            text = format!("{text}; {advice}");
        }
        match &self.call_id {
            Some(id) if !self.message.contains(id.as_str()) => write!(f, "{text} (call id {id})"),
            _ => f.write_str(&text),
        }
    }
}

impl Error for Rejection {}

/// Returns what to do if the disk of this machine is full.
fn advise_sink(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free space on this machine, or write to another disk"
        }
        _ => "",
    }
}

/// Returns the message of the innermost source of an error. The layers above it only say "transport error".
fn describe_root_cause(error: &(dyn Error + Send + Sync + 'static)) -> String {
    let mut innermost: &dyn Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejection(reason: ErrorReason, message: &str, violations: &[(&str, &str)]) -> Rejection {
        let field_violations = violations
            .iter()
            .map(|(field, description)| FieldViolation {
                field: (*field).to_owned(),
                description: (*description).to_owned(),
            })
            .collect();
        Rejection {
            code: Code::InvalidArgument,
            reason,
            reason_name: String::new(),
            message: message.to_owned(),
            field_violations,
            retry_after: None,
            metadata: BTreeMap::new(),
            call_id: None,
        }
    }

    #[test]
    fn message_says_nothing_twice() {
        let message = "invalid request: spec.name: must be set; spec.title: must be set";
        let violations = [("spec.name", "must be set"), ("spec.title", "must be set")];
        let invalid = rejection(ErrorReason::InvalidField, message, &violations);
        assert_eq!(invalid.to_string(), message);
        // The server shortens long messages, but not their violations.
        let short =
            rejection(ErrorReason::InvalidField, "invalid request: spec.name: must be set…", &violations);
        assert_eq!(short.to_string(), "invalid request: spec.name: must be set…; spec.title: must be set");

        let message = "page token is damaged; list again from the start";
        let token = rejection(ErrorReason::PageTokenInvalid, message, &[("page_token", message)]);
        assert_eq!(token.to_string(), message);

        let deleted = rejection(ErrorReason::FileDeleted, "file is in the trash; undelete it first", &[]);
        assert_eq!(deleted.to_string(), "file is in the trash; undelete it first");

        let mut overloaded =
            rejection(ErrorReason::Overloaded, "too many uploads at once; retry in a moment", &[]);
        overloaded.retry_after = Some(Duration::from_secs(1));
        assert_eq!(overloaded.to_string(), "too many uploads at once; try again in 1.0 s");
    }
}
