//! The standard details of one answer, kept short.

use std::{collections::HashMap, time::Duration};

use tonic::Status;
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use super::{DETAILS_BYTES_MAX, DOMAIN, code, reason_name};
use crate::{app::Error, domain::violations::Violations, proto::v1::ErrorReason};

/// The longest message, in characters: it travels percent-encoded, beside the details and once more in them.
const MESSAGE_CHARACTERS_MAX: usize = 300;

/// How long descriptions of violations may be, in characters: as long as all of them fit.
const DESCRIPTION_CHARACTERS: [usize; 4] = [200, 120, 80, 40];

/// A status in the making.
pub(super) struct Answer {
    reason: ErrorReason,
    message: String,
    metadata: HashMap<String, String>,
    details: ErrorDetails,
    violations: Vec<FieldViolation>,
}

impl Answer {
    pub(super) fn new(reason: ErrorReason, message: String, request_id: &str) -> Self {
        Self {
            reason,
            message: shortened(message, MESSAGE_CHARACTERS_MAX),
            metadata: HashMap::from([("request_id".to_owned(), request_id.to_owned())]),
            details: ErrorDetails::new(),
            violations: Vec::new(),
        }
    }

    pub(super) fn metadata(mut self, entries: Vec<(&'static str, String)>) -> Self {
        let short = |value| shortened(value, MESSAGE_CHARACTERS_MAX);
        self.metadata.extend(entries.into_iter().map(|(key, value)| (key.to_owned(), short(value))));
        self
    }

    pub(super) fn retry_after(mut self, delay: Duration) -> Self {
        self.details.set_retry_info(Some(delay));
        self
    }

    /// Adds the detail that standard clients look for with this kind of error.
    pub(super) fn about(mut self, error: &Error) -> Self {
        match error {
            Error::Invalid(violations) | Error::Batch { violations, .. } => {
                self.violations = fields(violations);
            }
            Error::PageTokenInvalid => {
                self.violations = vec![FieldViolation::new("page_token", self.message.clone())];
            }
            Error::QuotaBytes { .. } | Error::QuotaFiles { .. } | Error::FileTooLarge { .. } => {
                self.details.add_quota_failure_violation("tenant", self.message.clone());
            }
            Error::FileDeleted
            | Error::FileNotAvailable(_)
            | Error::VersionIsCurrent(_)
            | Error::FileRetained { .. }
            | Error::ScanRequired
            | Error::TenantSuspended
            | Error::TenantDeleted
            | Error::TenantRetained { .. }
            | Error::CategoryInUse(_)
            | Error::QuotaBelowUsage { .. } => {
                let subject = match error {
                    Error::QuotaBelowUsage { .. } => "quota",
                    Error::TenantSuspended | Error::TenantDeleted | Error::TenantRetained { .. } => "tenant",
                    Error::CategoryInUse(_) => "category",
                    _ => "file",
                };
                self.details.add_precondition_failure_violation(
                    reason_name(self.reason),
                    subject,
                    self.message.clone(),
                );
            }
            // No name: another tenant's file and a random id are answered alike to the last byte.
            Error::NotFound(what) => {
                self.details.set_resource_info(*what, "", "", "");
            }
            _ => {}
        }
        self
    }

    /// Makes the status. Violations get as much room as is left: first their descriptions are shortened, then
    /// the last ones are dropped.
    pub(super) fn into_status(mut self) -> Status {
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
        let shorten = |violation: &FieldViolation| {
            let field = shortened(violation.field.clone(), characters);
            FieldViolation::new(field, shortened(violation.description.clone(), characters))
        };
        let mut details = self.details.clone();
        details.set_bad_request(self.violations.iter().map(shorten).collect::<Vec<_>>());
        self.with(&details)
    }

    fn with(&self, details: &ErrorDetails) -> Status {
        Status::with_error_details(code(self.reason), self.message.clone(), details.clone())
    }
}

fn fields(violations: &Violations) -> Vec<FieldViolation> {
    violations
        .iter()
        .map(|wrong| FieldViolation::new(wrong.field.clone(), wrong.description.clone()))
        .collect()
}

fn shortened(text: String, characters_max: usize) -> String {
    match text.char_indices().nth(characters_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
