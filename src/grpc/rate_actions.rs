//! The table of actions: one line per RPC with credentials, with the action whose limit of requests per second counts
//! it. A method without a line fails a test.

use crate::domain::rate_limits::RateAction;

use RateAction::{Change, Download, List, Read, Upload};

/// The methods of the contract, without those of visitors, who are no callers. Operators have no limits, but their
/// methods have an action too, so that the table is complete.
const TABLE: &[(&str, RateAction)] = &[
    ("/strongroom.v1.FileService/UploadFile", Upload),
    ("/strongroom.v1.FileService/DownloadFile", Download),
    ("/strongroom.v1.FileService/GetFile", Read),
    ("/strongroom.v1.FileService/BatchGetFiles", Read),
    ("/strongroom.v1.FileService/ListFiles", List),
    ("/strongroom.v1.FileService/UpdateFile", Change),
    ("/strongroom.v1.FileService/DeleteFile", Change),
    ("/strongroom.v1.FileService/UndeleteFile", Change),
    ("/strongroom.v1.FileService/PurgeFile", Change),
    ("/strongroom.v1.FileService/ArchiveFile", Change),
    ("/strongroom.v1.FileService/UnarchiveFile", Change),
    ("/strongroom.v1.FileService/ListFileVersions", List),
    ("/strongroom.v1.FileService/RestoreFileVersion", Change),
    ("/strongroom.v1.FileService/DeleteFileVersion", Change),
    ("/strongroom.v1.FileService/CopyFile", Change),
    ("/strongroom.v1.FileService/BatchDeleteFiles", Change),
    ("/strongroom.v1.FileService/SetLegalHold", Change),
    ("/strongroom.v1.FileService/ReleaseLegalHold", Change),
    ("/strongroom.v1.FileService/TransferOwnership", Change),
    // A direct upload sends no parts to this service, so its beginning counts.
    ("/strongroom.v1.UploadService/CreateUpload", Upload),
    ("/strongroom.v1.UploadService/GetUpload", Read),
    ("/strongroom.v1.UploadService/ListUploads", List),
    ("/strongroom.v1.UploadService/CancelUpload", Change),
    ("/strongroom.v1.UploadService/UploadPart", Upload),
    ("/strongroom.v1.UploadService/CompleteUpload", Change),
    ("/strongroom.v1.ImportService/ImportFiles", Change),
    ("/strongroom.v1.ImportService/FindImportedFiles", Read),
    ("/strongroom.v1.EventService/WatchFiles", List),
    ("/strongroom.v1.PolicyService/GetPolicy", Read),
    ("/strongroom.v1.PolicyService/CreateCategory", Change),
    ("/strongroom.v1.PolicyService/UpdateCategory", Change),
    ("/strongroom.v1.PolicyService/DeleteCategory", Change),
    ("/strongroom.v1.QuotaService/GetQuota", Read),
    ("/strongroom.v1.QuotaService/UpdateQuota", Change),
    ("/strongroom.v1.QuotaService/GetUsage", Read),
    ("/strongroom.v1.QuotaService/CheckQuota", Read),
    ("/strongroom.v1.QuotaService/ListQuotaAlerts", List),
    ("/strongroom.v1.QuotaService/RecalculateUsage", Change),
    ("/strongroom.v1.QuotaService/GetUsageRecalculation", Read),
    ("/strongroom.v1.QuotaService/ListTopOwners", List),
    ("/strongroom.v1.QuotaService/GetUsageHistory", Read),
    // Its counters are no data of the tenant.
    ("/strongroom.v1.QuotaService/CheckRateLimit", Read),
    ("/strongroom.v1.QuotaService/AddCredits", Change),
    ("/strongroom.v1.QuotaService/DeductCredits", Change),
    ("/strongroom.v1.QuotaService/GetCredits", Read),
    ("/strongroom.v1.QuotaService/ListCreditEntries", List),
    ("/strongroom.v1.ServiceInfoService/GetServiceInfo", Read),
    ("/strongroom.v1.ShareService/CreateShare", Change),
    ("/strongroom.v1.ShareService/GetShare", Read),
    ("/strongroom.v1.ShareService/ListShares", List),
    ("/strongroom.v1.ShareService/UpdateShare", Change),
    ("/strongroom.v1.ShareService/RevokeShare", Change),
    ("/strongroom.v1.ShareService/RotateShareToken", Change),
    ("/strongroom.v1.ShareService/GrantAccess", Change),
    ("/strongroom.v1.ShareService/RevokeAccess", Change),
    ("/strongroom.v1.ShareService/ListGrants", List),
    ("/strongroom.v1.ShareService/CheckAccess", Read),
    ("/strongroom.v1.WebhookService/CreateWebhook", Change),
    ("/strongroom.v1.WebhookService/GetWebhook", Read),
    ("/strongroom.v1.WebhookService/ListWebhooks", List),
    ("/strongroom.v1.WebhookService/UpdateWebhook", Change),
    ("/strongroom.v1.WebhookService/DeleteWebhook", Change),
    ("/strongroom.v1.WebhookService/RotateWebhookSecret", Change),
    ("/strongroom.v1.WebhookService/ListWebhookDeliveries", List),
    ("/strongroom.v1.WebhookService/RedeliverWebhook", Change),
    ("/strongroom.v1.ShareService/ListShareAccess", List),
    ("/strongroom.v1.ShareService/ListFileAccess", List),
    ("/strongroom.admin.v1.TenantService/CreateTenant", Change),
    ("/strongroom.admin.v1.TenantService/GetTenant", Read),
    ("/strongroom.admin.v1.TenantService/ListTenants", List),
    ("/strongroom.admin.v1.TenantService/UpdateTenant", Change),
    ("/strongroom.admin.v1.TenantService/SuspendTenant", Change),
    ("/strongroom.admin.v1.TenantService/ResumeTenant", Change),
    ("/strongroom.admin.v1.TenantService/DeleteTenant", Change),
    ("/strongroom.admin.v1.TenantService/ExportTenant", List),
    ("/strongroom.admin.v1.TenantService/ReclaimTenant", Change),
    ("/strongroom.admin.v1.TenantService/RequestErasure", Change),
    ("/strongroom.admin.v1.TenantService/ApproveErasure", Change),
    ("/strongroom.admin.v1.TenantService/ListErasures", List),
];

/// Returns the action of the method at this path, if it has one.
pub(super) fn find_action(path: &str) -> Option<RateAction> {
    TABLE.iter().find(|(known, _)| *known == path).map(|(_, action)| *action)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;
    use crate::{
        grpc::{
            auth::access::{self, Access},
            methods,
        },
        proto,
    };

    /// Returns the paths of all methods of the contract.
    fn list_paths() -> BTreeSet<String> {
        let set = FileDescriptorSet::decode(proto::DESCRIPTOR_SET).unwrap();
        let mut paths = BTreeSet::new();
        for file in &set.file {
            for service in &file.service {
                let path = |method: &str| format!("/{}.{}/{method}", file.package(), service.name());
                paths.extend(service.method.iter().map(|method| path(method.name())));
            }
        }
        paths
    }

    #[test]
    fn every_rpc_with_credentials_has_one_action() {
        let listed: BTreeSet<String> = TABLE.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(listed.len(), TABLE.len(), "a line is repeated");
        let visitors = |path: &String| access::find_access(path) == Some(Access::Visitor);
        let expected: BTreeSet<String> = list_paths().into_iter().filter(|path| !visitors(path)).collect();
        assert_eq!(listed, expected);
        assert_eq!(methods::rate_action("/strongroom.v1.ShareService/DownloadShare"), None);
        assert_eq!(methods::rate_action("/strongroom.v1.FileService/GetFile"), Some(Read));
    }

    #[test]
    fn action_follows_from_what_the_method_does() {
        for (path, action) in TABLE {
            let (_, name) = path.rsplit_once('/').unwrap();
            let is_read = access::is_read(path);
            let expected = match name {
                "UploadFile" | "CreateUpload" | "UploadPart" => Upload,
                "DownloadFile" => Download,
                // It writes the audit entry of the export.
                "ExportTenant" => List,
                _ if is_read && (name.starts_with("List") || name.starts_with("Watch")) => List,
                _ if is_read => Read,
                _ => Change,
            };
            assert_eq!(*action, expected, "{path}");
        }
    }
}
