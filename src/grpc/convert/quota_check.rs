//! Conversions of quota checks.

use super::{id, quota};
use crate::{
    app::{
        Error,
        quotas::{CheckItem, QuotaCheck},
    },
    domain::{ids::FileId, violations::Violations},
    grpc::status,
    proto::v1,
};

pub(in crate::grpc) fn items_from_proto(
    items: Vec<v1::QuotaCheckItem>,
) -> Result<Vec<CheckItem>, Violations> {
    let mut violations = Violations::new();
    let items = items.into_iter().enumerate().map(|(index, item)| CheckItem {
        file: parse_file_id(index, &item.file_id, &mut violations),
        size_bytes: item.size_bytes,
        category: item.category,
        mime_type: item.mime_type,
    });
    let items = items.collect();
    violations.into_result().map(|()| items)
}

fn parse_file_id(index: usize, text: &str, violations: &mut Violations) -> Option<FileId> {
    if text.is_empty() {
        return None;
    }
    violations.ok_or_add(
        &format!("items[{index}].file_id"),
        id::parse_file_id(text).map_err(|_| "must be a UUID, or empty"),
    )
}

pub(in crate::grpc) fn check_to_proto(check: &QuotaCheck, call_id: &str) -> v1::CheckQuotaResponse {
    let results = check.items.iter().map(|errors| v1::QuotaCheckResult {
        fits: errors.is_empty(),
        violations: violations_to_proto(errors, call_id),
    });
    v1::CheckQuotaResponse {
        fits: check.fits(),
        results: results.collect(),
        total_bytes: check.total_bytes,
        available_bytes: check.quota.available_bytes(),
        file_count: check.file_count,
        available_file_count: check.available_file_count(),
        violations: violations_to_proto(&check.total, call_id),
        quota_state: Some(quota::state_to_proto(check.quota.state())),
    }
}

/// Converts errors to the reasons and messages that the statuses for them would have.
fn violations_to_proto(errors: &[Error], call_id: &str) -> Vec<v1::QuotaViolation> {
    let violations = errors.iter().map(|error| v1::QuotaViolation {
        reason: status::reason(error).into(),
        description: status::status(error, call_id).message().to_owned(),
    });
    violations.collect()
}
