//! Builds a status with its standard details.

use std::{collections::HashMap, time::Duration};

use tonic::Status;
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use super::{
    DETAILS_BYTES_MAX, DOMAIN,
    reasons::{code, reason_name},
};
use crate::{
    app::{Error, uploads::UploadError},
    domain::violations::Violations,
    proto::v1::ErrorReason,
};

/// The longest message, in characters. A message is sent percent-encoded, and again inside the details.
const MESSAGE_CHARACTERS_MAX: usize = 300;

/// The lengths to which descriptions of violations are shortened, in characters, until the details are small
/// enough.
const DESCRIPTION_CHARACTERS: [usize; 4] = [200, 120, 80, 40];

/// The trailer from which the retries of gRPC libraries take their delay, which do not read a `RetryInfo` (gRFC A6).
pub(super) const RETRY_PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Builds a status.
pub(super) struct StatusBuilder {
    reason: ErrorReason,
    message: String,
    metadata: HashMap<String, String>,
    details: ErrorDetails,
    violations: Vec<FieldViolation>,
}

impl StatusBuilder {
    pub(super) fn new(reason: ErrorReason, message: String, call_id: &str) -> Self {
        Self {
            reason,
            message: shorten(message, MESSAGE_CHARACTERS_MAX),
            metadata: HashMap::from([("call_id".to_owned(), call_id.to_owned())]),
            details: ErrorDetails::new(),
            violations: Vec::new(),
        }
    }

    /// Adds metadata to the `ErrorInfo`.
    pub(super) fn metadata(mut self, entries: Vec<(&'static str, String)>) -> Self {
        let short = |value| shorten(value, MESSAGE_CHARACTERS_MAX);
        self.metadata.extend(entries.into_iter().map(|(key, value)| (key.to_owned(), short(value))));
        self
    }

    /// Adds a `RetryInfo`, and its delay as a trailer for the retries of gRPC libraries.
    pub(super) fn retry_after(mut self, delay: Duration) -> Self {
        self.details.set_retry_info(Some(delay));
        self
    }

    /// Adds the detail of `google.rpc` that belongs to this kind of error.
    pub(super) fn details_of(mut self, error: &Error) -> Self {
        match error {
            Error::Invalid(violations) | Error::Batch { violations, .. } => {
                self.violations = field_violations(violations);
            }
            Error::PageTokenInvalid => {
                self.violations = vec![FieldViolation::new("page_token", self.message.clone())];
            }
            Error::UserQuota(_) => {
                self.details.add_quota_failure_violation("user", self.message.clone());
            }
            Error::QuotaBytes(_) | Error::QuotaFiles { .. } | Error::FileTooLarge { .. } => {
                self.details.add_quota_failure_violation("tenant", self.message.clone());
            }
            Error::TenantCreationsExhausted { .. } => {
                self.details.add_quota_failure_violation("issuer", self.message.clone());
            }
            Error::TooManyVersions { .. } | Error::TooManyGrants { .. } | Error::TooManyShares { .. } => {
                self.details.add_quota_failure_violation("file", self.message.clone());
            }
            Error::Upload(UploadError::TooManyOpen { scope, .. }) => {
                self.details.add_quota_failure_violation(scope.as_str(), self.message.clone());
            }
            // No name: the responses for another tenant's file and for a random id must not differ.
            Error::NotFound(resource) => {
                self.details.set_resource_info(resource.to_string(), "", "", "");
            }
            error => {
                if let Some(subject) = precondition_subject(error) {
                    let (reason, message) = (reason_name(self.reason), self.message.clone());
                    self.details.add_precondition_failure_violation(reason, subject, message);
                }
            }
        }
        self
    }

    /// Builds the status. If the violations do not fit, their descriptions are shortened, then the last
    /// violations are dropped.
    pub(super) fn build(mut self) -> Status {
        self.details.set_error_info(reason_name(self.reason), DOMAIN, self.metadata.clone());
        if self.violations.is_empty() {
            return self.with(&self.details);
        }
        let mut status = self.with_violations(DESCRIPTION_CHARACTERS[0]);
        for characters in DESCRIPTION_CHARACTERS {
            status = self.with_violations(characters);
            if status.details().len() < DETAILS_BYTES_MAX {
                return status;
            }
        }
        while status.details().len() >= DETAILS_BYTES_MAX && self.violations.pop().is_some() {
            status = self.with_violations(DESCRIPTION_CHARACTERS[DESCRIPTION_CHARACTERS.len() - 1]);
        }
        status
    }

    fn with_violations(&self, characters: usize) -> Status {
        let short = |violation: &FieldViolation| {
            let field = shorten(violation.field.clone(), characters);
            FieldViolation::new(field, shorten(violation.description.clone(), characters))
        };
        let mut details = self.details.clone();
        details.set_bad_request(self.violations.iter().map(short).collect::<Vec<_>>());
        self.with(&details)
    }

    fn with(&self, details: &ErrorDetails) -> Status {
        let mut status = Status::with_error_details(code(self.reason), self.message.clone(), details.clone());
        if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
            status.metadata_mut().insert(RETRY_PUSHBACK, pushback_milliseconds(delay).into());
        }
        status
    }
}

/// Returns the delay in milliseconds, rounded up. Libraries read 32 bits.
fn pushback_milliseconds(delay: Duration) -> i32 {
    i32::try_from(delay.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}

/// The subject of a `PreconditionFailure`, for errors that have one.
fn precondition_subject(error: &Error) -> Option<&'static str> {
    match error {
        Error::FileDeleted
        | Error::FileNotAvailable(_)
        | Error::Upload(UploadError::DigestUnknown(_))
        | Error::VersionIsCurrent(_)
        | Error::FileRetained { .. }
        | Error::ScanRequired => Some("file"),
        Error::QuotaBelowUsage { .. } | Error::EmailNotConfigured => Some("quota"),
        Error::TenantPersonal
        | Error::TenantSuspended
        | Error::TenantReadOnly
        | Error::TenantDeleted
        | Error::TenantRetained { .. } => Some("tenant"),
        Error::CreditsExhausted { .. } => Some("credits"),
        Error::ShareRevoked => Some("share"),
        Error::CategoryInUse(_) => Some("category"),
        Error::Invalid(_)
        | Error::PageTokenInvalid
        | Error::CursorInvalid
        | Error::CursorTooOld
        | Error::Upload(_)
        | Error::Import(_)
        | Error::Visitor(_)
        | Error::RequestIdReused
        | Error::ReadOutOfRange { .. }
        | Error::Unauthenticated(_)
        | Error::NotAllowed(_)
        | Error::NotFound(_)
        | Error::QuotaBytes(_)
        | Error::QuotaFiles { .. }
        | Error::UserQuota(_)
        | Error::FileTooLarge { .. }
        | Error::TooManyVersions { .. }
        | Error::TooManyGrants { .. }
        | Error::TooManyShares { .. }
        | Error::EtagMismatch
        | Error::RequestInProgress
        | Error::Batch { .. }
        | Error::TooManyWebhooks(_)
        | Error::WatchesExhausted { .. }
        | Error::TenantExists(_)
        | Error::CategoryExists(_)
        | Error::ObjectMissing
        | Error::ObjectDamaged
        | Error::StorageUnavailable(_)
        | Error::StorageFull(_)
        | Error::StoreNotOwned(_)
        | Error::ProviderUnknown(_)
        | Error::DatabaseUnavailable(_)
        | Error::OutcomeUnknown { .. }
        | Error::Overloaded(_)
        | Error::TenantCreationsExhausted { .. }
        | Error::RateLimited { .. }
        | Error::ShuttingDown
        | Error::Internal(_) => None,
    }
}

fn field_violations(violations: &Violations) -> Vec<FieldViolation> {
    violations
        .iter()
        .map(|violation| FieldViolation::new(violation.field.clone(), violation.description.clone()))
        .collect()
}

fn shorten(text: String, characters_max: usize) -> String {
    match text.char_indices().nth(characters_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
