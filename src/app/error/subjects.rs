//! The subjects of errors: the missing resource, the exhausted limit, the use of a category.
//!
//! The names of resources and of limits are part of the contract: they are sent to callers as `resource_type`
//! and as `resource`.

use crate::domain::rate_limits::RateAction;

/// The type of a resource that was not found. Its text is the `resource_type` of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Resource {
    /// A file that the caller may see.
    #[error("file")]
    File,
    /// A version of a file.
    #[error("version")]
    Version,
    /// An open upload.
    #[error("upload")]
    Upload,
    /// A tenant of this service.
    #[error("tenant")]
    Tenant,
    /// An erasure of the tenant or of one of its files.
    #[error("erasure")]
    Erasure,
    /// A category of the tenant's policy.
    #[error("category")]
    Category,
    /// A webhook of the tenant.
    #[error("webhook")]
    Webhook,
    /// A dead letter of a webhook.
    #[error("delivery")]
    Delivery,
    /// A share of a file.
    #[error("share")]
    Share,
    /// A source of imports.
    #[error("import source")]
    ImportSource,
    /// An object in a source of imports.
    #[error("object")]
    SourceObject,
}

/// The concurrent work of this process that has reached its limit. Its text is the `resource` of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Workload {
    /// Calls in progress.
    #[error("requests")]
    Requests,
    /// Connections to the gRPC port.
    #[error("connections")]
    Connections,
    /// The bytes of received messages.
    #[error("messages")]
    Messages,
    /// The bytes of responses that clients have not read.
    #[error("responses")]
    Responses,
    /// The buffered bytes of uploads.
    #[error("uploads")]
    Uploads,
    /// Downloads in progress.
    #[error("downloads")]
    Downloads,
    /// Watches of all tenants.
    #[error("watches")]
    Watches,
    /// Passwords that are hashed or compared.
    #[error("passwords")]
    Passwords,
    /// Transactions of the database.
    #[error("transactions")]
    Transactions,
    /// The subjects of a tenant's own rate limits.
    #[error("subjects of rate limits")]
    RateSubjects,
}

/// The sender to which a limit of calls per second applies. Its text is the `scope` of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RateScope {
    #[error("caller")]
    Caller,
    #[error("tenant")]
    Tenant,
    /// The address of the connection.
    #[error("address")]
    Address,
    /// All visitors of a share.
    #[error("share")]
    Share,
}

/// The calls that a limit of calls per second counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RateEvent {
    #[error("requests")]
    Requests,
    /// Requests with this action.
    #[error("{0}")]
    Action(RateAction),
    /// Calls that are rejected because of missing credentials or permissions.
    #[error("refusals")]
    Refusals,
}

impl RateEvent {
    /// Returns the `event` of the contract.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requests | Self::Action(_) => "requests",
            Self::Refusals => "refusals",
        }
    }

    /// Returns the `action` of the contract, if the limit is that of an action.
    pub const fn action(self) -> Option<&'static str> {
        match self {
            Self::Action(action) => Some(action.name()),
            Self::Requests | Self::Refusals => None,
        }
    }
}

/// The use that prevents the deletion of a category.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CategoryUse {
    /// Files have the category.
    #[error("it still has files, perhaps in the trash; purge them first")]
    Files,
    /// New files without a category get it.
    #[error("it is the default category; make another one the default first")]
    Default,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_subjects_are_pinned() {
        use Resource as R;
        for (resource, text) in [
            (R::File, "file"),
            (R::Version, "version"),
            (R::Upload, "upload"),
            (R::Tenant, "tenant"),
            (R::Category, "category"),
            (R::Webhook, "webhook"),
            (R::Delivery, "delivery"),
            (R::Share, "share"),
            (R::ImportSource, "import source"),
            (R::SourceObject, "object"),
        ] {
            assert_eq!(resource.to_string(), text);
        }
        for (workload, text) in [
            (Workload::Requests, "requests"),
            (Workload::Connections, "connections"),
            (Workload::Messages, "messages"),
            (Workload::Responses, "responses"),
            (Workload::Uploads, "uploads"),
            (Workload::Downloads, "downloads"),
            (Workload::RateSubjects, "subjects of rate limits"),
            (Workload::Watches, "watches"),
            (Workload::Passwords, "passwords"),
        ] {
            assert_eq!(workload.to_string(), text);
        }
        let scopes = [RateScope::Caller, RateScope::Tenant, RateScope::Address, RateScope::Share];
        assert_eq!(scopes.map(|scope| scope.to_string()), ["caller", "tenant", "address", "share"]);
        for (event, text, name, action) in [
            (RateEvent::Requests, "requests", "requests", None),
            (RateEvent::Refusals, "refusals", "refusals", None),
            (RateEvent::Action(RateAction::Upload), "uploads", "requests", Some("upload")),
        ] {
            assert_eq!((event.to_string().as_str(), event.name(), event.action()), (text, name, action));
        }
        for (used_by, text) in [
            (CategoryUse::Files, "it still has files, perhaps in the trash; purge them first"),
            (CategoryUse::Default, "it is the default category; make another one the default first"),
        ] {
            assert_eq!(used_by.to_string(), text);
        }
    }
}
