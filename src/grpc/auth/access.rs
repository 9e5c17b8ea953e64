//! The access table: one line per RPC, with the callers that may call it. A method without a line is
//! rejected.

use crate::{
    app::{Denial, Error, tenants::resolve::IdentityKind},
    domain::{caller::Role, scope::Scope},
    grpc::methods,
};

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// All clients, without credentials.
    Anonymous,
    /// All clients, without credentials. The method itself checks a secret in the message, such as the token of a
    /// share.
    Visitor,
    /// Callers in a tenant with at least this role.
    Tenant(Role),
    /// Callers in a tenant. For a given file, `app/access.rs` restricts them to its owner and the tenant's
    /// admins, unless the tenant's policy allows all members or a grant includes the operation.
    Owner,
    /// Callers in a tenant with at least this role, and operators.
    TenantOrOperator(Role),
    /// Callers in a tenant whose token has this scope, and operators.
    ScopeOrOperator(Scope),
    /// Only operators of the platform.
    Operator,
}

use Access::{Anonymous, Operator, Owner, ScopeOrOperator, Tenant, TenantOrOperator, Visitor};

const CHECK_RATE_LIMIT: &str = "/strongroom.v1.QuotaService/CheckRateLimit";

/// All methods of the server. The contract tests compare them with the descriptor set.
pub const TABLE: &[(&str, Access)] = &[
    ("/strongroom.v1.FileService/UploadFile", Tenant(Role::Member)),
    ("/strongroom.v1.FileService/DownloadFile", Tenant(Role::Member)),
    ("/strongroom.v1.FileService/GetFile", Tenant(Role::Member)),
    ("/strongroom.v1.FileService/BatchGetFiles", Tenant(Role::Member)),
    ("/strongroom.v1.FileService/ListFiles", Tenant(Role::Member)),
    ("/strongroom.v1.FileService/UpdateFile", Owner),
    ("/strongroom.v1.FileService/DeleteFile", Owner),
    ("/strongroom.v1.FileService/UndeleteFile", Owner),
    ("/strongroom.v1.FileService/PurgeFile", Owner),
    ("/strongroom.v1.FileService/ArchiveFile", Owner),
    ("/strongroom.v1.FileService/UnarchiveFile", Owner),
    ("/strongroom.v1.FileService/ListFileVersions", Tenant(Role::Member)),
    ("/strongroom.v1.FileService/RestoreFileVersion", Owner),
    ("/strongroom.v1.FileService/DeleteFileVersion", Owner),
    ("/strongroom.v1.FileService/CopyFile", Tenant(Role::Member)),
    ("/strongroom.v1.FileService/BatchDeleteFiles", Owner),
    ("/strongroom.v1.FileService/SetLegalHold", Tenant(Role::Admin)),
    ("/strongroom.v1.FileService/ReleaseLegalHold", Tenant(Role::Admin)),
    ("/strongroom.v1.FileService/TransferOwnership", Tenant(Role::Admin)),
    ("/strongroom.v1.UploadService/CreateUpload", Tenant(Role::Member)),
    ("/strongroom.v1.UploadService/GetUpload", Tenant(Role::Member)),
    ("/strongroom.v1.UploadService/ListUploads", Tenant(Role::Member)),
    ("/strongroom.v1.UploadService/CancelUpload", Tenant(Role::Member)),
    ("/strongroom.v1.UploadService/UploadPart", Tenant(Role::Member)),
    ("/strongroom.v1.UploadService/CompleteUpload", Tenant(Role::Member)),
    ("/strongroom.v1.ImportService/ImportFiles", Tenant(Role::Admin)),
    ("/strongroom.v1.ImportService/FindImportedFiles", Tenant(Role::Member)),
    ("/strongroom.v1.EventService/WatchFiles", Tenant(Role::Member)),
    ("/strongroom.v1.PolicyService/GetPolicy", Tenant(Role::Member)),
    ("/strongroom.v1.PolicyService/CreateCategory", Tenant(Role::Admin)),
    ("/strongroom.v1.PolicyService/UpdateCategory", Tenant(Role::Admin)),
    ("/strongroom.v1.PolicyService/DeleteCategory", Tenant(Role::Admin)),
    ("/strongroom.v1.QuotaService/GetQuota", TenantOrOperator(Role::Member)),
    ("/strongroom.v1.QuotaService/UpdateQuota", TenantOrOperator(Role::Admin)),
    ("/strongroom.v1.QuotaService/GetUsage", TenantOrOperator(Role::Member)),
    ("/strongroom.v1.QuotaService/CheckQuota", Tenant(Role::Member)),
    ("/strongroom.v1.QuotaService/ListQuotaAlerts", TenantOrOperator(Role::Admin)),
    ("/strongroom.v1.QuotaService/RecalculateUsage", TenantOrOperator(Role::Admin)),
    ("/strongroom.v1.QuotaService/GetUsageRecalculation", TenantOrOperator(Role::Admin)),
    ("/strongroom.v1.QuotaService/UpdateUserQuota", TenantOrOperator(Role::Admin)),
    ("/strongroom.v1.QuotaService/GetUserQuota", TenantOrOperator(Role::Member)),
    ("/strongroom.v1.QuotaService/ListUserQuotas", TenantOrOperator(Role::Admin)),
    ("/strongroom.v1.QuotaService/ListTopOwners", TenantOrOperator(Role::Admin)),
    ("/strongroom.v1.QuotaService/GetUsageHistory", TenantOrOperator(Role::Admin)),
    (CHECK_RATE_LIMIT, Tenant(Role::Admin)),
    ("/strongroom.v1.QuotaService/AddCredits", ScopeOrOperator(Scope::CreditsWrite)),
    ("/strongroom.v1.QuotaService/DeductCredits", ScopeOrOperator(Scope::CreditsWrite)),
    ("/strongroom.v1.QuotaService/GetCredits", TenantOrOperator(Role::Member)),
    ("/strongroom.v1.QuotaService/ListCreditEntries", TenantOrOperator(Role::Member)),
    ("/strongroom.v1.ServiceInfoService/GetServiceInfo", TenantOrOperator(Role::Member)),
    ("/strongroom.v1.ShareService/CreateShare", Owner),
    ("/strongroom.v1.ShareService/GetShare", Tenant(Role::Member)),
    ("/strongroom.v1.ShareService/ListShares", Tenant(Role::Member)),
    // For the creator of the share too, so app/shares/ checks it.
    ("/strongroom.v1.ShareService/UpdateShare", Tenant(Role::Member)),
    ("/strongroom.v1.ShareService/RevokeShare", Tenant(Role::Member)),
    ("/strongroom.v1.ShareService/RotateShareToken", Tenant(Role::Member)),
    ("/strongroom.v1.ShareService/GrantAccess", Owner),
    ("/strongroom.v1.ShareService/RevokeAccess", Owner),
    ("/strongroom.v1.ShareService/ListGrants", Tenant(Role::Member)),
    ("/strongroom.v1.ShareService/CheckAccess", Tenant(Role::Member)),
    ("/strongroom.v1.WebhookService/CreateWebhook", Tenant(Role::Admin)),
    ("/strongroom.v1.WebhookService/GetWebhook", Tenant(Role::Admin)),
    ("/strongroom.v1.WebhookService/ListWebhooks", Tenant(Role::Admin)),
    ("/strongroom.v1.WebhookService/UpdateWebhook", Tenant(Role::Admin)),
    ("/strongroom.v1.WebhookService/DeleteWebhook", Tenant(Role::Admin)),
    ("/strongroom.v1.WebhookService/RotateWebhookSecret", Tenant(Role::Admin)),
    ("/strongroom.v1.WebhookService/ListWebhookDeliveries", Tenant(Role::Admin)),
    ("/strongroom.v1.WebhookService/RedeliverWebhook", Tenant(Role::Admin)),
    ("/strongroom.v1.ShareService/ListShareAccess", Tenant(Role::Member)),
    ("/strongroom.v1.ShareService/ListFileAccess", Owner),
    ("/strongroom.v1.ShareService/ResolveShare", Visitor),
    ("/strongroom.v1.ShareService/DownloadShare", Visitor),
    ("/strongroom.admin.v1.TenantService/CreateTenant", Operator),
    ("/strongroom.admin.v1.TenantService/GetTenant", Operator),
    ("/strongroom.admin.v1.TenantService/ListTenants", Operator),
    ("/strongroom.admin.v1.TenantService/UpdateTenant", Operator),
    ("/strongroom.admin.v1.TenantService/SuspendTenant", Operator),
    ("/strongroom.admin.v1.TenantService/ResumeTenant", Operator),
    ("/strongroom.admin.v1.TenantService/DeleteTenant", Operator),
    ("/strongroom.admin.v1.TenantService/ExportTenant", Operator),
    ("/strongroom.admin.v1.TenantService/ReclaimTenant", Operator),
    ("/strongroom.admin.v1.TenantService/RequestErasure", Operator),
    ("/strongroom.admin.v1.TenantService/ApproveErasure", Operator),
    ("/strongroom.admin.v1.TenantService/ListErasures", Operator),
    // Orchestrators and load balancers have no token.
    ("/grpc.health.v1.Health/Check", Anonymous),
    ("/grpc.health.v1.Health/Watch", Anonymous),
    // The contract is no secret; `server.reflection` turns these off.
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Anonymous),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Anonymous),
];

/// Returns who may call the method with this path, or `None` if the method does not exist.
pub fn find_access(path: &str) -> Option<Access> {
    find_entry(path).map(|(_, access)| *access)
}

/// Returns the name of a method in metrics. It is a name of the table or `unknown`, so that callers cannot
/// create arbitrary time series.
pub(in crate::grpc) fn method_name(path: &str) -> &'static str {
    find_entry(path).map_or("unknown", |(path, _)| path.trim_start_matches('/'))
}

/// Returns whether callers of a read-only tenant may call a method: it changes nothing of the tenant.
pub fn is_read(path: &str) -> bool {
    // Its counters are no data of the tenant.
    methods::has_no_side_effects(path) || path == CHECK_RATE_LIMIT
}

fn find_entry(path: &str) -> Option<&'static (&'static str, Access)> {
    TABLE.iter().find(|(known, _)| *known == path)
}

impl Access {
    /// Returns whether clients need credentials.
    pub fn needs_credentials(self) -> bool {
        !matches!(self, Anonymous | Visitor)
    }

    /// Checks whether an identity may call the method.
    ///
    /// # Errors
    /// Returns `NotAllowed` with the required role if it may not.
    pub fn check(self, kind: &IdentityKind) -> Result<(), Error> {
        match (self, kind) {
            (Anonymous | Visitor, _)
            | (TenantOrOperator(_) | ScopeOrOperator(_) | Operator, IdentityKind::Operator)
            | (Owner, IdentityKind::Member { .. }) => Ok(()),
            (ScopeOrOperator(scope), IdentityKind::Member { scopes, .. }) => {
                if scopes.contains(&scope) {
                    Ok(())
                } else {
                    Err(Error::NotAllowed(Denial::ScopeMissing(scope)))
                }
            }
            (Operator, IdentityKind::Member { .. }) => Err(Error::NotAllowed(Denial::OperatorsOnly)),
            (Tenant(_) | Owner, IdentityKind::Operator) => Err(Error::NotAllowed(Denial::OperatorsExcluded)),
            (Tenant(least) | TenantOrOperator(least), IdentityKind::Member { role, .. }) => {
                if *role >= least { Ok(()) } else { Err(Error::NotAllowed(Denial::for_lack_of_role(least))) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;
    use crate::{domain::caller::Actor, proto};

    fn member(role: Role) -> IdentityKind {
        let (actor, organization) = (Actor::user("alice"), None);
        IdentityKind::Member { actor, organization, role, groups: Vec::new(), scopes: Vec::new() }
    }

    /// Returns the paths of all methods in an encoded descriptor set.
    fn list_paths(descriptor_set: &[u8]) -> BTreeSet<String> {
        let set = FileDescriptorSet::decode(descriptor_set).unwrap();
        let services =
            set.file.iter().flat_map(|file| file.service.iter().map(|service| (file.package(), service)));
        services
            .flat_map(|(package, service)| {
                let path = move |method: &str| format!("/{package}.{}/{method}", service.name());
                service.method.iter().map(move |method| path(method.name()))
            })
            .collect()
    }

    #[test]
    fn table_has_a_line_for_each_rpc() {
        let mut offered = list_paths(proto::DESCRIPTOR_SET);
        offered.extend(list_paths(tonic_health::pb::FILE_DESCRIPTOR_SET));
        offered.extend(list_paths(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET));
        offered.extend(list_paths(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET));
        let listed: BTreeSet<String> = TABLE.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(listed.len(), TABLE.len(), "a line is repeated");
        // Some versions of the health protocol define methods that this server does not implement.
        let health_list = "/grpc.health.v1.Health/List";
        offered.remove(health_list);
        assert_eq!(listed, offered);
    }

    #[test]
    fn only_health_and_reflection_are_anonymous() {
        for (path, access) in TABLE {
            assert_eq!(*access == Anonymous, path.starts_with("/grpc."), "{path}");
        }
    }

    #[test]
    fn method_without_a_line_is_rejected() {
        for path in ["/strongroom.v1.FileService/Nothing", "/", "", "/strongroom.v1.FileService/GetFile/"] {
            assert_eq!(find_access(path), None);
            assert_eq!(method_name(path), "unknown");
        }
    }

    #[test]
    fn operator_cannot_read_files_nor_managers_update_quotas() {
        let get_file = find_access("/strongroom.v1.FileService/GetFile").unwrap();
        let update_quota = find_access("/strongroom.v1.QuotaService/UpdateQuota").unwrap();
        assert!(get_file.check(&IdentityKind::Operator).is_err());
        assert!(get_file.check(&member(Role::Member)).is_ok());
        assert!(update_quota.check(&IdentityKind::Operator).is_ok());
        assert!(update_quota.check(&member(Role::Manager)).is_err());
        assert!(update_quota.check(&member(Role::Admin)).is_ok());
    }

    #[test]
    fn credits_are_changed_by_scope_and_not_by_role() {
        let add_credits = find_access("/strongroom.v1.QuotaService/AddCredits").unwrap();
        assert!(add_credits.check(&IdentityKind::Operator).is_ok());
        assert!(add_credits.check(&member(Role::Admin)).is_err());
        let IdentityKind::Member { actor, organization, role, groups, .. } = member(Role::Member) else {
            panic!("a member")
        };
        let scopes = vec![Scope::CreditsWrite];
        let cashier = IdentityKind::Member { actor, organization, role, groups, scopes };
        assert!(add_credits.check(&cashier).is_ok());
    }
}
