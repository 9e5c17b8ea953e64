//! Why a caller may not perform an operation on a resource that it may see.

use crate::domain::{caller::Role, scope::Scope};

/// The rule that denies an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The operation is for operators of the platform.
    #[error("only an operator may do this")]
    OperatorsOnly,
    /// The caller is an operator, and operators cannot access files.
    #[error("operators manage tenants and cannot access their files")]
    OperatorsExcluded,
    /// The operation is for members of the tenant.
    #[error("only members of the tenant may do this")]
    MembersOnly,
    /// The operation is for managers and admins of the tenant.
    #[error("only the tenant's managers and admins may do this")]
    ManagersOnly,
    /// The operation is for admins of the tenant.
    #[error("only the tenant's admins may do this")]
    AdminsOnly,
    /// The operation is for the owner of the file and admins of the tenant.
    #[error("only the file's owner and the tenant's admins may do this")]
    OwnerAndAdminsOnly,
    /// The change would make the file visible to more people.
    #[error("only the file's owner and the tenant's admins may make it visible to more people")]
    WidensAudience,
    /// The change would hide the file from the caller.
    #[error("only the file's owner and the tenant's admins may hide it from you")]
    HidesFromCaller,
    /// The caller may view the file, and not save its bytes.
    #[error("you may view this file, and not download it; ask its owner for the permission download")]
    ViewsOnly,
    /// The caller sees the file only by a grant.
    #[error("you may not copy a file that you see only by a grant or a share")]
    CopiesGrantedFile,
    /// The grant would exceed the permission of the caller.
    #[error(
        "you may grant at most your own permission on this file, until it expires; ask its owner or the tenant's admins"
    )]
    WidensGrant,
    /// The caller asks about the access of another.
    #[error("only the tenant's admins and services may ask about the access of others")]
    AsksAboutOthers,
    /// Another person gave the grant.
    #[error("only its creator, the file's owner and the tenant's admins may change this grant")]
    ChangesOtherGrant,
    /// The policy of the file's category forbids links.
    #[error(
        "the policy of the file's category forbids links (PUBLIC_LINK and TEMPORARY); share it with users or a group"
    )]
    LinksForbidden,
    /// Another person created the share.
    #[error("only its creator, the file's owner and the tenant's admins may change this share")]
    ChangesOtherShare,
    /// The change would set the retention of another owner's file.
    #[error("only the file's owner and the tenant's admins may set retain_until_time")]
    SetsRetention,
    /// The change would end the retention of the file earlier.
    #[error("only the tenant's admins may move retain_until_time to an earlier time")]
    ShortensRetention,
    /// The change would set the ceiling of the tenant's quota.
    #[error("only the operator may change the ceiling")]
    ChangesCeiling,
    /// The operation is for operators, and for tokens with a scope.
    #[error("only an operator, or a token with the scope `{}`, may do this", .0.as_str())]
    ScopeMissing(Scope),
    /// The request reads the credits of another user.
    #[error("only the tenant's admins and services may read the credits of other users")]
    CreditsOfOthers,
    /// The request reads the quota of another user.
    #[error("only the tenant's admins and services may read the quotas of other users")]
    QuotasOfOthers,
    /// The operator requested the erasure that it approves.
    #[error("the operator who requested an erasure may not approve it; ask another operator")]
    ApprovesOwnRequest,
    /// The object could belong to another tenant of this service.
    #[error("the key has the form of this service's own keys")]
    ReadsServiceKey,
    /// The tenant of the caller does not exist and is not created by its first call.
    #[error("organization is unknown; an operator must create it first")]
    OrganizationUnknown,
}

impl Denial {
    /// Returns the denial for a caller with a lower role than this one.
    pub const fn for_lack_of_role(least: Role) -> Self {
        match least {
            Role::Member => Self::MembersOnly,
            Role::Manager => Self::ManagersOnly,
            Role::Admin => Self::AdminsOnly,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_denials_are_pinned() {
        use Denial as D;
        for (denial, text) in [
            (D::OperatorsOnly, "only an operator may do this"),
            (D::OperatorsExcluded, "operators manage tenants and cannot access their files"),
            (D::MembersOnly, "only members of the tenant may do this"),
            (D::ManagersOnly, "only the tenant's managers and admins may do this"),
            (D::AdminsOnly, "only the tenant's admins may do this"),
            (D::OwnerAndAdminsOnly, "only the file's owner and the tenant's admins may do this"),
            (
                D::WidensAudience,
                "only the file's owner and the tenant's admins may make it visible to more people",
            ),
            (D::HidesFromCaller, "only the file's owner and the tenant's admins may hide it from you"),
            (
                D::ViewsOnly,
                "you may view this file, and not download it; ask its owner for the permission download",
            ),
            (D::CopiesGrantedFile, "you may not copy a file that you see only by a grant or a share"),
            (
                D::WidensGrant,
                "you may grant at most your own permission on this file, until it expires; ask its owner or the \
                 tenant's admins",
            ),
            (D::AsksAboutOthers, "only the tenant's admins and services may ask about the access of others"),
            (
                D::ChangesOtherGrant,
                "only its creator, the file's owner and the tenant's admins may change this grant",
            ),
            (
                D::LinksForbidden,
                "the policy of the file's category forbids links (PUBLIC_LINK and TEMPORARY); share it with users or a \
                 group",
            ),
            (
                D::ChangesOtherShare,
                "only its creator, the file's owner and the tenant's admins may change this share",
            ),
            (D::SetsRetention, "only the file's owner and the tenant's admins may set retain_until_time"),
            (D::ShortensRetention, "only the tenant's admins may move retain_until_time to an earlier time"),
            (D::ChangesCeiling, "only the operator may change the ceiling"),
            (
                D::ScopeMissing(Scope::CreditsWrite),
                "only an operator, or a token with the scope `credits:write`, may do this",
            ),
            (D::QuotasOfOthers, "only the tenant's admins and services may read the quotas of other users"),
            (D::CreditsOfOthers, "only the tenant's admins and services may read the credits of other users"),
            (
                D::ApprovesOwnRequest,
                "the operator who requested an erasure may not approve it; ask another operator",
            ),
            (D::ReadsServiceKey, "the key has the form of this service's own keys"),
            (D::OrganizationUnknown, "organization is unknown; an operator must create it first"),
        ] {
            assert_eq!(denial.to_string(), text);
        }
    }
}
