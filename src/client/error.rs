//! What can go wrong, sorted by what the caller can do about it.

use std::{collections::BTreeMap, error::Error, fmt, io, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::advice;
use crate::proto::v1::ErrorReason;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server understood the call and refused it.
    #[error(transparent)]
    Rejected(#[from] Box<Rejection>),
    /// The server could not be reached, or the connection broke before its answer was complete.
    #[error(
        "the server cannot be reached ({}); check the address and the network, then try again",
        innermost(.source.as_ref())
    )]
    Transport {
        /// What the connection reported.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The source of an upload could not be read. Nothing was stored.
    #[error("the source cannot be read: {0}; nothing was stored")]
    Source(#[source] io::Error),
    /// The destination of a download could not be written.
    #[error("the download cannot be written: {0}")]
    Sink(#[source] io::Error),
    /// The bytes that arrived are not those that were sent, or not those that are stored.
    #[error("the download is damaged: {what}; throw it away and download again")]
    Corrupted {
        /// Which check failed, with its figures.
        what: String,
    },
    /// The options make no connection.
    #[error("{what}")]
    Options {
        /// Which option, and what it must look like.
        what: String,
    },
}

/// A refusal, with all that the server says about it.
#[derive(Debug, Clone)]
pub struct Rejection {
    /// The gRPC code: how to react.
    pub code: Code,
    /// The reason: why. Unspecified where the server names none, or one that this library does not know yet.
    pub reason: ErrorReason,
    /// The reason as the server wrote it, also when this library does not know it.
    pub reason_name: String,
    /// The server's message.
    pub message: String,
    /// Every field that is wrong.
    pub field_violations: Vec<FieldViolation>,
    /// After how long the server would like to see the call again; absent where it does not say.
    pub retry_after: Option<Duration>,
    /// Figures that belong to the reason, for example `persisted_size_bytes`.
    pub metadata: BTreeMap<String, String>,
    /// The id of the call in the server's log.
    pub call_id: Option<String>,
}

/// A field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// The path of the field, for example `spec.name`.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

impl ClientError {
    /// The refusal, where the server answered with one.
    pub fn rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            _ => None,
        }
    }

    /// Sorts a status: one that carries a source was made on this side and means that no answer came.
    pub(super) fn from_status(status: Status) -> Self {
        let not_ready =
            status.code() == Code::Unknown && status.message().starts_with("Service was not ready");
        if status.source().is_some() || not_ready {
            return Self::Transport { source: Box::new(status) };
        }
        Self::Rejected(Box::new(Rejection::from_status(&status)))
    }

    pub(super) fn corrupted(what: impl Into<String>) -> Self {
        Self::Corrupted { what: what.into() }
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
                .map(|one| FieldViolation { field: one.field.clone(), description: one.description.clone() })
                .collect(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            call_id: metadata.get("call_id").cloned().or_else(header),
            metadata,
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() {
            write!(f, "the server refused the call: {}", self.code.description())?;
        } else {
            f.write_str(self.message.trim_end_matches('.'))?;
        }
        for violation in &self.field_violations {
            write!(f, "; {}: {}", violation.field, violation.description.trim_end_matches('.'))?;
        }
        if let Some(advice) = advice::for_reason(self.reason) {
            write!(f, "; {advice}")?;
        }
        if let Some(wait) = self.retry_after {
            write!(f, "; try again in {:.1} s", wait.as_secs_f64())?;
        }
        match &self.call_id {
            Some(id) if !self.message.contains(id.as_str()) => write!(f, " (call id {id})"),
            _ => Ok(()),
        }
    }
}

impl Error for Rejection {}

/// The innermost thing that an error says. The layers above it only repeat "transport error".
fn innermost(error: &(dyn Error + Send + Sync + 'static)) -> String {
    let mut innermost: &dyn Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
