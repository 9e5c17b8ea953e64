//! Conversions of a tenant's own limits of requests, for operators.

use crate::{
    app::tenants::RateLimitsChange,
    domain::{
        rate_limits::{PER_SECOND_MAX, RateAction, RequestLimit, RequestLimits},
        violations::Violations,
    },
    proto::admin::v1,
};

/// Converts the limits. Returns `None` if the tenant has no limit of its own.
pub(super) fn to_proto(limits: RequestLimits) -> Option<v1::TenantRateLimits> {
    // No limit exceeds `PER_SECOND_MAX`.
    let get = |limit| i32::try_from(limits.get(limit)).unwrap_or(i32::MAX);
    (!limits.is_empty()).then(|| v1::TenantRateLimits {
        tenant_requests_per_second: get(RequestLimit::Tenant),
        caller_requests_per_second: get(RequestLimit::Caller),
        caller_reads_per_second: get(RequestLimit::Action(RateAction::Read)),
        caller_lists_per_second: get(RequestLimit::Action(RateAction::List)),
        caller_downloads_per_second: get(RequestLimit::Action(RateAction::Download)),
        caller_uploads_per_second: get(RequestLimit::Action(RateAction::Upload)),
        caller_changes_per_second: get(RequestLimit::Action(RateAction::Change)),
    })
}

/// Returns the limits that a path of an update mask names: all of them, one, or none if it names something else.
pub(super) fn find_limits(path: &str) -> Vec<RequestLimit> {
    let is_named = |limit: &RequestLimit| {
        path == "rate_limits" || path.strip_prefix("rate_limits.") == Some(limit.key())
    };
    RequestLimit::ALL.into_iter().filter(is_named).collect()
}

/// Adds limits of a message to a change.
pub(super) fn add_limits(
    change: &mut RateLimitsChange,
    limits: &[RequestLimit],
    message: &v1::TenantRateLimits,
    violations: &mut Violations,
) {
    for limit in limits {
        let value = field(message, *limit);
        match u32::try_from(value).ok().filter(|value| *value <= PER_SECOND_MAX) {
            Some(per_second_max) => {
                change.limits.insert(*limit, per_second_max);
            }
            None => violations.add(
                format!("rate_limits.{}", limit.key()),
                format!("must be from 0 to {PER_SECOND_MAX}, is {value}"),
            ),
        }
    }
}

const fn field(message: &v1::TenantRateLimits, limit: RequestLimit) -> i32 {
    match limit {
        RequestLimit::Tenant => message.tenant_requests_per_second,
        RequestLimit::Caller => message.caller_requests_per_second,
        RequestLimit::Action(RateAction::Read) => message.caller_reads_per_second,
        RequestLimit::Action(RateAction::List) => message.caller_lists_per_second,
        RequestLimit::Action(RateAction::Download) => message.caller_downloads_per_second,
        RequestLimit::Action(RateAction::Upload) => message.caller_uploads_per_second,
        RequestLimit::Action(RateAction::Change) => message.caller_changes_per_second,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_has_a_field_for_each_limit() {
        let mut limits = RequestLimits::default();
        assert_eq!(to_proto(limits), None);
        RequestLimit::ALL.into_iter().zip(1..).for_each(|(limit, value)| limits.set(limit, value));
        let message = to_proto(limits).unwrap();
        let (mut change, mut violations) = (RateLimitsChange::default(), Violations::new());
        add_limits(&mut change, &find_limits("rate_limits"), &message, &mut violations);
        assert!(violations.is_empty());
        for (limit, value) in RequestLimit::ALL.into_iter().zip(1..) {
            assert_eq!(change.limits[&limit], value, "{limit:?}");
            assert_eq!(find_limits(&format!("rate_limits.{}", limit.key())), [limit]);
        }
    }

    #[test]
    fn only_paths_of_limits_name_a_limit() {
        for path in ["", "rate_limit", "rate_limits.", "rate_limits.x", "caller_reads_per_second"] {
            assert!(find_limits(path).is_empty(), "{path}");
        }
    }
}
