//! THE table: one line per RPC, and who may call it. What has no line is closed.

use crate::{
    app::{Error, tenants::resolve::IdentityKind},
    domain::caller::Role,
};

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone who reaches the port.
    Anonymous,
    /// Callers in a tenant, with this role at least.
    Tenant(Role),
    /// Callers in a tenant; to a given file its owner and the tenant's admins may do it, and every member where the tenant's
    /// policy says so, which `app/access.rs` decides.
    Owner,
    /// Callers in a tenant, with this role at least, and the platform's operator.
    TenantOrOperator(Role),
    /// The platform's operator alone.
    Operator,
}

use Access::{Anonymous, Operator, Owner, Tenant, TenantOrOperator};

/// Every method of this server. The contract tests compare it with the descriptor set.
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
    ("/strongroom.v1.ServiceInfoService/GetServiceInfo", TenantOrOperator(Role::Member)),
    ("/strongroom.v1.WebhookService/CreateWebhook", Tenant(Role::Admin)),
    ("/strongroom.v1.WebhookService/GetWebhook", Tenant(Role::Admin)),
    ("/strongroom.v1.WebhookService/ListWebhooks", Tenant(Role::Admin)),
    ("/strongroom.v1.WebhookService/UpdateWebhook", Tenant(Role::Admin)),
    ("/strongroom.v1.WebhookService/DeleteWebhook", Tenant(Role::Admin)),
    ("/strongroom.v1.WebhookService/RotateWebhookSecret", Tenant(Role::Admin)),
    ("/strongroom.v1.WebhookService/ListWebhookDeliveries", Tenant(Role::Admin)),
    ("/strongroom.v1.WebhookService/RedeliverWebhook", Tenant(Role::Admin)),
    ("/strongroom.admin.v1.TenantService/CreateTenant", Operator),
    ("/strongroom.admin.v1.TenantService/GetTenant", Operator),
    ("/strongroom.admin.v1.TenantService/ListTenants", Operator),
    ("/strongroom.admin.v1.TenantService/UpdateTenant", Operator),
    ("/strongroom.admin.v1.TenantService/SuspendTenant", Operator),
    ("/strongroom.admin.v1.TenantService/ResumeTenant", Operator),
    ("/strongroom.admin.v1.TenantService/DeleteTenant", Operator),
    ("/strongroom.admin.v1.TenantService/ExportTenant", Operator),
    // Orchestrators and load balancers have no token.
    ("/grpc.health.v1.Health/Check", Anonymous),
    ("/grpc.health.v1.Health/Watch", Anonymous),
    // The contract is no secret; `server.reflection` turns these off.
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Anonymous),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Anonymous),
];

/// Who may call the method with this path; `None` for a method that does not exist, which nobody may call.
pub fn access(path: &str) -> Option<Access> {
    entry(path).map(|(_, access)| *access)
}

/// The name of a method as it is measured: only names of the table, or callers could invent series of their
/// own.
pub(in crate::grpc) fn method_name(path: &str) -> &'static str {
    entry(path).map_or("unknown", |(path, _)| path.trim_start_matches('/'))
}

fn entry(path: &str) -> Option<&'static (&'static str, Access)> {
    TABLE.iter().find(|(known, _)| *known == path)
}

impl Access {
    /// Whether the bearer of verified credentials may call.
    ///
    /// # Errors
    /// `NotAllowed` with what it would take.
    pub fn admit(self, kind: &IdentityKind) -> Result<(), Error> {
        match (self, kind) {
            (Anonymous, _)
            | (TenantOrOperator(_) | Operator, IdentityKind::Operator)
            | (Owner, IdentityKind::Member { .. }) => Ok(()),
            (Operator, IdentityKind::Member { .. }) => {
                Err(Error::NotAllowed("only the platform's operator may do this"))
            }
            (Tenant(_) | Owner, IdentityKind::Operator) => {
                Err(Error::NotAllowed("the operator works on tenants and never with their files"))
            }
            (Tenant(least) | TenantOrOperator(least), IdentityKind::Member { role, .. }) => {
                if *role >= least { Ok(()) } else { Err(Error::NotAllowed(needed(least))) }
            }
        }
    }
}

const fn needed(least: Role) -> &'static str {
    match least {
        Role::Member => "only members of the tenant may do this",
        Role::Manager => "only the tenant's managers and admins may do this",
        Role::Admin => "only the tenant's admins may do this",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;
    use crate::{domain::caller::ActorKind, proto};

    fn member(role: Role) -> IdentityKind {
        IdentityKind::Member { kind: ActorKind::User, organization: None, role, groups: Vec::new() }
    }

    /// The paths of every method in an encoded descriptor set.
    fn paths(descriptor_set: &[u8]) -> BTreeSet<String> {
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
    fn every_rpc_has_a_line_and_every_line_an_rpc() {
        let mut offered = paths(proto::DESCRIPTOR_SET);
        offered.extend(paths(tonic_health::pb::FILE_DESCRIPTOR_SET));
        offered.extend(paths(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET));
        offered.extend(paths(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET));
        let listed: BTreeSet<String> = TABLE.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(listed.len(), TABLE.len(), "a line stands twice");
        // Some versions of the health protocol also describe methods that this server does not have.
        let health_list = "/grpc.health.v1.Health/List";
        offered.remove(health_list);
        assert_eq!(listed, offered);
    }

    #[test]
    fn only_health_and_reflection_are_open_to_anyone() {
        for (path, access) in TABLE {
            assert_eq!(*access == Anonymous, path.starts_with("/grpc."), "{path}");
        }
    }

    #[test]
    fn what_has_no_line_is_closed() {
        for path in ["/strongroom.v1.FileService/Nothing", "/", "", "/strongroom.v1.FileService/GetFile/"] {
            assert_eq!(access(path), None);
            assert_eq!(method_name(path), "unknown");
        }
    }

    #[test]
    fn the_operator_never_touches_files_and_members_never_change_quotas() {
        let get_file = access("/strongroom.v1.FileService/GetFile").unwrap();
        let update_quota = access("/strongroom.v1.QuotaService/UpdateQuota").unwrap();
        assert!(get_file.admit(&IdentityKind::Operator).is_err());
        assert!(get_file.admit(&member(Role::Member)).is_ok());
        assert!(update_quota.admit(&IdentityKind::Operator).is_ok());
        assert!(update_quota.admit(&member(Role::Manager)).is_err());
        assert!(update_quota.admit(&member(Role::Admin)).is_ok());
    }
}
