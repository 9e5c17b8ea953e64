//! Limits of requests per second: of a tenant, of each of its callers, and of each action of a caller.

use serde::{Deserialize, Serialize};

/// The maximum number of requests per second that a limit can be set to.
pub const PER_SECOND_MAX: u32 = 1_000_000;

/// The action of a request, of which the requests of a caller can be limited apart. Each method has one. The text is
/// the name of several requests of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum RateAction {
    /// Returns single records, or checks something.
    #[error("reads")]
    Read,
    /// Returns pages or streams of records.
    #[error("lists")]
    List,
    /// Returns the bytes of a file.
    #[error("downloads")]
    Download,
    /// Receives the bytes of a file, or begins an upload.
    #[error("uploads")]
    Upload,
    /// Changes anything else.
    #[error("changes")]
    Change,
}

impl RateAction {
    /// Returns the name of the action in error metadata and in keys of buckets.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::List => "list",
            Self::Download => "download",
            Self::Upload => "upload",
            Self::Change => "change",
        }
    }
}

/// A limit of requests per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestLimit {
    /// Of all requests of a tenant.
    Tenant,
    /// Of all requests of a caller.
    Caller,
    /// Of the requests of a caller with this action.
    Action(RateAction),
}

impl RequestLimit {
    /// All limits, in the order of their keys in the contract.
    pub const ALL: [Self; 7] = [
        Self::Tenant,
        Self::Caller,
        Self::Action(RateAction::Read),
        Self::Action(RateAction::List),
        Self::Action(RateAction::Download),
        Self::Action(RateAction::Upload),
        Self::Action(RateAction::Change),
    ];

    /// Returns the name of the limit in the configuration, in the contract and in stored records.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Tenant => "tenant_requests_per_second",
            Self::Caller => "caller_requests_per_second",
            Self::Action(RateAction::Read) => "caller_reads_per_second",
            Self::Action(RateAction::List) => "caller_lists_per_second",
            Self::Action(RateAction::Download) => "caller_downloads_per_second",
            Self::Action(RateAction::Upload) => "caller_uploads_per_second",
            Self::Action(RateAction::Change) => "caller_changes_per_second",
        }
    }
}

/// The limits of requests per second. In the configuration, 0 means no limit. In the record of a tenant, 0 means the
/// limit of the configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestLimits {
    #[serde(skip_serializing_if = "is_zero")]
    pub tenant_requests_per_second: u32,
    #[serde(skip_serializing_if = "is_zero")]
    pub caller_requests_per_second: u32,
    #[serde(skip_serializing_if = "is_zero")]
    pub caller_reads_per_second: u32,
    #[serde(skip_serializing_if = "is_zero")]
    pub caller_lists_per_second: u32,
    #[serde(skip_serializing_if = "is_zero")]
    pub caller_downloads_per_second: u32,
    #[serde(skip_serializing_if = "is_zero")]
    pub caller_uploads_per_second: u32,
    #[serde(skip_serializing_if = "is_zero")]
    pub caller_changes_per_second: u32,
}

// The signature is that of `skip_serializing_if`.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(limit: &u32) -> bool {
    *limit == 0
}

impl RequestLimits {
    /// Returns a limit.
    pub const fn get(&self, limit: RequestLimit) -> u32 {
        match limit {
            RequestLimit::Tenant => self.tenant_requests_per_second,
            RequestLimit::Caller => self.caller_requests_per_second,
            RequestLimit::Action(RateAction::Read) => self.caller_reads_per_second,
            RequestLimit::Action(RateAction::List) => self.caller_lists_per_second,
            RequestLimit::Action(RateAction::Download) => self.caller_downloads_per_second,
            RequestLimit::Action(RateAction::Upload) => self.caller_uploads_per_second,
            RequestLimit::Action(RateAction::Change) => self.caller_changes_per_second,
        }
    }

    /// Sets a limit.
    pub const fn set(&mut self, limit: RequestLimit, per_second_max: u32) {
        let field = match limit {
            RequestLimit::Tenant => &mut self.tenant_requests_per_second,
            RequestLimit::Caller => &mut self.caller_requests_per_second,
            RequestLimit::Action(RateAction::Read) => &mut self.caller_reads_per_second,
            RequestLimit::Action(RateAction::List) => &mut self.caller_lists_per_second,
            RequestLimit::Action(RateAction::Download) => &mut self.caller_downloads_per_second,
            RequestLimit::Action(RateAction::Upload) => &mut self.caller_uploads_per_second,
            RequestLimit::Action(RateAction::Change) => &mut self.caller_changes_per_second,
        };
        *field = per_second_max;
    }

    /// Returns whether no limit is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns a limit of the configuration, unless the record of the tenant sets its own. 0 means no limit.
    pub const fn effective(&self, of_tenant: &Self, limit: RequestLimit) -> u32 {
        match of_tenant.get(limit) {
            0 => self.get(limit),
            own => own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_has_its_own_field() {
        let mut limits = RequestLimits::default();
        for (limit, value) in RequestLimit::ALL.into_iter().zip(1..) {
            limits.set(limit, value);
        }
        let stored = serde_json::to_value(limits).unwrap();
        for (limit, value) in RequestLimit::ALL.into_iter().zip(1..) {
            assert_eq!(limits.get(limit), value, "{limit:?}");
            assert_eq!(stored[limit.key()], value, "{limit:?}");
        }
        assert_eq!(serde_json::from_value::<RequestLimits>(stored).unwrap(), limits);
    }

    #[test]
    fn limits_of_another_release_are_readable() {
        assert_eq!(serde_json::to_string(&RequestLimits::default()).unwrap(), "{}");
        let later = r#"{"caller_uploads_per_second": 5, "caller_copies_per_second": 7}"#;
        let expected = RequestLimits { caller_uploads_per_second: 5, ..RequestLimits::default() };
        assert_eq!(serde_json::from_str::<RequestLimits>(later).unwrap(), expected);
    }

    #[test]
    fn limit_of_the_tenant_replaces_that_of_the_configuration() {
        let configured = RequestLimits { caller_uploads_per_second: 5, ..RequestLimits::default() };
        let uploads = RequestLimit::Action(RateAction::Upload);
        for (own, effective) in [(0, 5), (2, 2), (9, 9)] {
            let of_tenant = RequestLimits { caller_uploads_per_second: own, ..RequestLimits::default() };
            assert_eq!(configured.effective(&of_tenant, uploads), effective);
            assert_eq!(configured.effective(&of_tenant, RequestLimit::Caller), 0);
        }
    }

    #[test]
    fn texts_of_actions_are_pinned() {
        for (action, name, text) in [
            (RateAction::Read, "read", "reads"),
            (RateAction::List, "list", "lists"),
            (RateAction::Download, "download", "downloads"),
            (RateAction::Upload, "upload", "uploads"),
            (RateAction::Change, "change", "changes"),
        ] {
            assert_eq!((action.name(), action.to_string().as_str()), (name, text));
        }
    }
}
