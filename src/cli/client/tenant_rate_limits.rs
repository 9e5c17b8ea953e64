//! The limits of the requests of a tenant, as arguments and in the output of `strongroom tenants`.

use crate::{
    domain::rate_limits::{RateAction, RequestLimit},
    proto::admin::v1::TenantRateLimits,
};

/// A limit that is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RateLimitArg {
    pub limit: RequestLimit,
    pub per_second_max: i32,
}

/// Parses `KEY=VALUE`. The server checks the range of the value.
pub(super) fn parse(text: &str) -> Result<RateLimitArg, String> {
    let (key, value) = text.split_once('=').ok_or("use KEY=VALUE, such as caller_uploads_per_second=5")?;
    let limit = RequestLimit::ALL.into_iter().find(|limit| limit.key() == key).ok_or_else(|| {
        format!("unknown key `{key}`; use one of {}", RequestLimit::ALL.map(RequestLimit::key).join(", "))
    })?;
    let per_second_max = value.parse().map_err(|_| format!("`{value}` is not a whole number"))?;
    Ok(RateLimitArg { limit, per_second_max })
}

/// Returns all limits with their keys.
pub(super) fn list(limits: &TenantRateLimits) -> Vec<(&'static str, i32)> {
    let mut limits = *limits;
    RequestLimit::ALL.into_iter().map(|limit| (limit.key(), *field(&mut limits, limit))).collect()
}

/// Returns the field of a limit.
pub(super) const fn field(limits: &mut TenantRateLimits, limit: RequestLimit) -> &mut i32 {
    match limit {
        RequestLimit::Tenant => &mut limits.tenant_requests_per_second,
        RequestLimit::Caller => &mut limits.caller_requests_per_second,
        RequestLimit::Action(RateAction::Read) => &mut limits.caller_reads_per_second,
        RequestLimit::Action(RateAction::List) => &mut limits.caller_lists_per_second,
        RequestLimit::Action(RateAction::Download) => &mut limits.caller_downloads_per_second,
        RequestLimit::Action(RateAction::Upload) => &mut limits.caller_uploads_per_second,
        RequestLimit::Action(RateAction::Change) => &mut limits.caller_changes_per_second,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_is_a_key_and_a_number() {
        let uploads = RequestLimit::Action(RateAction::Upload);
        let expected = RateLimitArg { limit: uploads, per_second_max: 5 };
        assert_eq!(parse("caller_uploads_per_second=5"), Ok(expected));
        for text in ["", "5", "caller_uploads_per_second", "uploads=5", "caller_uploads_per_second=x"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_limit_is_listed_under_its_key() {
        let mut limits = TenantRateLimits::default();
        RequestLimit::ALL.into_iter().zip(1..).for_each(|(limit, value)| *field(&mut limits, limit) = value);
        let expected: Vec<_> =
            RequestLimit::ALL.into_iter().zip(1..).map(|(limit, value)| (limit.key(), value)).collect();
        assert_eq!(list(&limits), expected);
        assert_eq!(limits.caller_uploads_per_second, 6);
    }
}
