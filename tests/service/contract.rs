//! Permissions of every method in the descriptor set. A method that has no line in the access table, or no
//! case in this file, fails the tests.

use std::collections::BTreeSet;

use prost::Message;
use prost_types::FileDescriptorSet;
use strongroom::{
    domain::caller::Role,
    grpc::auth::access::{Access, TABLE},
    proto::{
        self,
        admin::v1::{
            CreateTenantRequest, GetTenantRequest, ListTenantsRequest, TenantKind, UpdateTenantRequest,
        },
        v1::{
            AccessOperation, BatchGetFilesRequest, CheckAccessRequest, CopyFileRequest, CreateWebhookRequest,
            DeleteWebhookRequest, DownloadFileRequest, FilePermission, FindImportedFilesRequest,
            GetServiceInfoRequest, GetShareRequest, GetWebhookRequest, ListFileAccessRequest,
            ListFilesRequest, ListGrantsRequest, ListShareAccessRequest, ListSharesRequest,
            ListUploadsRequest, ListWebhookDeliveriesRequest, ListWebhooksRequest, RedeliverWebhookRequest,
            RevokeAccessRequest, RevokeShareRequest, RotateShareTokenRequest, RotateWebhookSecretRequest,
            Share, TransferOwnershipRequest, UpdateShareRequest, UpdateWebhookRequest, Visibility, Webhook,
            list_shares_request, revoke_access_request,
        },
    },
};
use tonic::{Code, Status};

use crate::categories::category;
use crate::contract_quotas::call_quotas;
use crate::harness::{Caller, file_id, reason, service_test, spec};
use crate::{
    grants::{To, give},
    shares::share,
};

/// Returns the path of every method of Strongroom.
fn methods() -> Vec<String> {
    let set = FileDescriptorSet::decode(proto::DESCRIPTOR_SET).unwrap();
    let mut paths = Vec::new();
    for file in set.file.iter().filter(|file| file.package().starts_with("strongroom.")) {
        for service in &file.service {
            for method in &service.method {
                paths.push(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    assert!(paths.len() >= 10, "{paths:?}");
    paths
}

/// Returns the methods whose clients need credentials. `visitors.rs` tests the others.
fn methods_of_callers() -> Vec<String> {
    let access_of = |path: &str| TABLE.iter().find(|(listed, _)| *listed == path).map(|(_, access)| *access);
    methods().into_iter().filter(|path| access_of(path) != Some(Access::Visitor)).collect()
}

/// Methods whose request names no file, upload or tenant. They use the caller's own tenant.
const WITHOUT_TARGET: [&str; 17] = [
    "/strongroom.v1.FileService/UploadFile",
    "/strongroom.v1.FileService/ListFiles",
    "/strongroom.v1.FileService/TransferOwnership",
    "/strongroom.v1.PolicyService/GetPolicy",
    "/strongroom.v1.PolicyService/CreateCategory",
    "/strongroom.v1.PolicyService/UpdateCategory",
    "/strongroom.v1.PolicyService/DeleteCategory",
    "/strongroom.v1.UploadService/CreateUpload",
    "/strongroom.v1.UploadService/ListUploads",
    "/strongroom.v1.EventService/WatchFiles",
    "/strongroom.v1.ImportService/ImportFiles",
    "/strongroom.v1.ImportService/FindImportedFiles",
    "/strongroom.v1.QuotaService/CheckQuota",
    "/strongroom.v1.WebhookService/CreateWebhook",
    "/strongroom.v1.WebhookService/ListWebhooks",
    "/strongroom.v1.ServiceInfoService/GetServiceInfo",
    "/strongroom.v1.QuotaService/CheckRateLimit",
];

/// Calls a method of the webhook service with the caller's own webhook, or, if `tenant` is not empty, with
/// the id of a file instead of a webhook's id.
async fn call_webhooks(method: &str, caller: &Caller, file: &str, tenant: &str) -> Result<(), Status> {
    let mut webhooks = caller.webhooks.clone();
    let request_id = String::new;
    let new = Webhook { url: "https://hooks.example.org/".to_owned(), ..Webhook::default() };
    let create = CreateWebhookRequest { webhook: Some(new), request_id: request_id() };
    let own = match (tenant, webhooks.create_webhook(create).await) {
        ("", Ok(created)) => created.into_inner().webhook.unwrap().id,
        (_, created) if method == "CreateWebhook" => return created.map(|_| ()),
        _ => file.to_owned(),
    };
    let webhook_id = own.clone();
    match method {
        "CreateWebhook" => Ok(()),
        "GetWebhook" => webhooks.get_webhook(GetWebhookRequest { webhook_id }).await.map(|_| ()),
        "ListWebhooks" => webhooks.list_webhooks(ListWebhooksRequest::default()).await.map(|_| ()),
        "UpdateWebhook" => {
            let webhook = Some(Webhook { id: own, description: "b".to_owned(), ..Webhook::default() });
            let update_mask = Some(prost_types::FieldMask { paths: vec!["description".to_owned()] });
            let request = UpdateWebhookRequest {
                webhook,
                update_mask,
                request_id: request_id(),
                ..UpdateWebhookRequest::default()
            };
            webhooks.update_webhook(request).await.map(|_| ())
        }
        "DeleteWebhook" => {
            let request = DeleteWebhookRequest { webhook_id, request_id: request_id() };
            webhooks.delete_webhook(request).await.map(|_| ())
        }
        "RotateWebhookSecret" => {
            let request = RotateWebhookSecretRequest { webhook_id, request_id: request_id() };
            webhooks.rotate_webhook_secret(request).await.map(|_| ())
        }
        "ListWebhookDeliveries" => {
            let request = ListWebhookDeliveriesRequest { webhook_id, ..Default::default() };
            webhooks.list_webhook_deliveries(request).await.map(|_| ())
        }
        "RedeliverWebhook" => {
            let position = "0".repeat(32);
            let request = RedeliverWebhookRequest { webhook_id, position, request_id: request_id() };
            match webhooks.redeliver_webhook(request).await {
                // The caller's own webhook has no such delivery.
                Err(status) if tenant.is_empty() && status.message().starts_with("delivery") => Ok(()),
                result => result.map(|_| ()),
            }
        }
        method => panic!("{method} has no case in the contract tests"),
    }
}

/// A file and an upload on which methods are called.
pub(crate) struct Targets {
    file: String,
    upload: String,
}

impl Targets {
    pub(crate) async fn create(caller: &Caller) -> Self {
        let file = file_id(&caller.upload(spec("a"), b"w").await.unwrap());
        // With two versions, so that one of them can be restored and deleted.
        caller.upload_version(&file, b"x").await.unwrap();
        Self { file, upload: caller.create_upload(spec("a")).await.unwrap().id }
    }

    /// Cancels the upload, unless a method has ended it.
    pub(crate) async fn cancel_upload(self, caller: &Caller) {
        if let Err(status) = caller.cancel_upload(&self.upload).await {
            assert!(["NOT_FOUND", "UPLOAD_COMMITTED"].contains(&reason(&status).as_str()), "{status:?}");
        }
    }
}

async fn call_uploads(path: &str, caller: &Caller, upload: &str) -> Result<(), Status> {
    match path {
        "/strongroom.v1.UploadService/CreateUpload" => {
            let upload = caller.create_upload(spec("a")).await?;
            caller.cancel_upload(&upload.id).await
        }
        "/strongroom.v1.UploadService/GetUpload" => caller.get_upload(upload).await.map(|_| ()),
        "/strongroom.v1.UploadService/ListUploads" => {
            caller.uploads.clone().list_uploads(ListUploadsRequest::default()).await.map(|_| ())
        }
        "/strongroom.v1.UploadService/CancelUpload" => caller.cancel_upload(upload).await,
        "/strongroom.v1.UploadService/UploadPart" => caller.upload_part(upload, 0, b"x").await.map(|_| ()),
        "/strongroom.v1.UploadService/CompleteUpload" => caller.complete_upload(upload, 0).await.map(|_| ()),
        path => panic!("no call for {path}"),
    }
}

/// Calls a method with these targets. Every method has a case here or in the functions that this calls.
pub(crate) async fn call(path: &str, caller: &Caller, targets: &Targets, tenant: &str) -> Result<(), Status> {
    let Targets { file, upload } = targets;
    match path {
        "/strongroom.v1.FileService/UploadFile" => caller.upload(spec("a"), b"x").await.map(|_| ()),
        "/strongroom.v1.FileService/DownloadFile" => {
            let request = DownloadFileRequest { file_id: file.to_owned(), ..Default::default() };
            caller.download(request).await.map(|_| ())
        }
        "/strongroom.v1.FileService/GetFile" => caller.get(file).await.map(|_| ()),
        "/strongroom.v1.FileService/BatchGetFiles" => {
            let request = BatchGetFilesRequest { file_ids: vec![file.to_owned()], ..Default::default() };
            let response = caller.files.clone().batch_get_files(request).await?.into_inner();
            // The method reports a missing file in its response, not by its status.
            response.missing_file_ids.is_empty().then_some(()).ok_or_else(|| Status::not_found("missing"))
        }
        "/strongroom.v1.FileService/ListFiles" => caller.list(ListFilesRequest::default()).await.map(|_| ()),
        "/strongroom.v1.FileService/UpdateFile" => caller.rename(file, "b").await.map(|_| ()),
        "/strongroom.v1.FileService/DeleteFile" => caller.delete(file).await.map(|_| ()),
        "/strongroom.v1.FileService/UndeleteFile" => caller.undelete(file).await.map(|_| ()),
        "/strongroom.v1.FileService/PurgeFile" => caller.purge(file).await,
        "/strongroom.v1.FileService/ArchiveFile" => caller.archive(file).await.map(|_| ()),
        "/strongroom.v1.FileService/UnarchiveFile" => caller.unarchive(file).await.map(|_| ()),
        "/strongroom.v1.FileService/CopyFile" => {
            let request = CopyFileRequest { file_id: file.to_owned(), ..Default::default() };
            caller.copy(request).await.map(|_| ())
        }
        "/strongroom.v1.FileService/BatchDeleteFiles" => caller.batch_delete(&[file]).await.map(|_| ()),
        "/strongroom.v1.FileService/SetLegalHold" => caller.set_legal_hold(file, "trial").await.map(|_| ()),
        "/strongroom.v1.FileService/ReleaseLegalHold" => {
            caller.release_legal_hold(file, "end").await.map(drop)
        }
        "/strongroom.v1.FileService/ListFileVersions" => caller.list_versions(file, 0).await.map(|_| ()),
        "/strongroom.v1.FileService/RestoreFileVersion" => caller.restore_version(file, 1).await.map(|_| ()),
        "/strongroom.v1.FileService/DeleteFileVersion" => caller.delete_version(file, 1).await.map(|_| ()),
        "/strongroom.v1.ImportService/ImportFiles" => {
            caller.import_files("legacy", false, []).await.map(|_| ())
        }
        "/strongroom.v1.ImportService/FindImportedFiles" => {
            let request =
                FindImportedFilesRequest { legacy_ids: vec!["42".to_owned()], ..Default::default() };
            caller.find_imported_files(request).await.map(|_| ())
        }
        "/strongroom.v1.EventService/WatchFiles" => caller.watch_files_after("").await.map(|_| ()),
        path if path.starts_with("/strongroom.v1.QuotaService/") => call_quotas(path, caller, tenant).await,
        path if path.starts_with("/strongroom.v1.ShareService/") => call_shares(path, caller, file).await,
        path if path.starts_with("/strongroom.v1.UploadService/") => call_uploads(path, caller, upload).await,
        path => call_policy_or_tenant(path, caller, file, tenant).await,
    }
}

async fn call_shares(path: &str, caller: &Caller, file: &str) -> Result<(), Status> {
    let (mut shares, file_id) = (caller.shares.clone(), file.to_owned());
    match path {
        "/strongroom.v1.ShareService/GrantAccess" => {
            give(caller, file, To::User("friend"), FilePermission::View).await.map(|_| ())
        }
        "/strongroom.v1.ShareService/RevokeAccess" => {
            let principal = Some(revoke_access_request::Principal::UserId("friend".to_owned()));
            let request = RevokeAccessRequest { file_id, principal, request_id: String::new() };
            shares.revoke_access(request).await.map(|_| ())
        }
        "/strongroom.v1.ShareService/ListGrants" => {
            shares.list_grants(ListGrantsRequest { file_id, ..Default::default() }).await.map(|_| ())
        }
        "/strongroom.v1.ShareService/CheckAccess" => {
            let operation = AccessOperation::View.into();
            shares
                .check_access(CheckAccessRequest { file_id, operation, ..Default::default() })
                .await
                .map(|_| ())
        }
        "/strongroom.v1.ShareService/ListFileAccess" => {
            let request = ListFileAccessRequest { file_id, ..Default::default() };
            shares.list_file_access(request).await.map(|_| ())
        }
        path => call_share_of(path, caller, file).await,
    }
}

/// Calls a method of shares with a new share of the file, or, if the caller may not share it, with the id of the file
/// instead of a share's id.
async fn call_share_of(path: &str, caller: &Caller, file: &str) -> Result<(), Status> {
    let mut shares = caller.shares.clone();
    let created = share(caller, Share { file_id: file.to_owned(), ..Share::default() }).await;
    if path.ends_with("/CreateShare") {
        return created.map(|_| ());
    }
    let id = created.map_or_else(|_| file.to_owned(), |created| created.share.unwrap().id);
    let (share_id, request_id) = (id.clone(), String::new());
    match path.rsplit_once('/').unwrap().1 {
        "GetShare" => shares.get_share(GetShareRequest { share_id }).await.map(|_| ()),
        "ListShares" => {
            let list = Some(list_shares_request::List::FileId(file.to_owned()));
            shares.list_shares(ListSharesRequest { list, ..Default::default() }).await.map(|_| ())
        }
        "UpdateShare" => {
            let share = Some(Share { id, note: "b".to_owned(), ..Share::default() });
            let update_mask = Some(prost_types::FieldMask { paths: vec!["note".to_owned()] });
            let request = UpdateShareRequest { share, update_mask, ..Default::default() };
            shares.update_share(request).await.map(|_| ())
        }
        "RevokeShare" => shares.revoke_share(RevokeShareRequest { share_id, request_id }).await.map(|_| ()),
        "RotateShareToken" => {
            shares.rotate_share_token(RotateShareTokenRequest { share_id, request_id }).await.map(|_| ())
        }
        "ListShareAccess" => {
            let request = ListShareAccessRequest { share_id, ..Default::default() };
            shares.list_share_access(request).await.map(|_| ())
        }
        method => panic!("{method} has no case in the contract tests"),
    }
}

/// Calls a method of the policy service or of the tenant service.
async fn call_policy_or_tenant(path: &str, caller: &Caller, file: &str, tenant: &str) -> Result<(), Status> {
    let (mut tenants, tenant_id) = (caller.tenants.clone(), tenant.to_owned());
    match path {
        "/strongroom.v1.FileService/TransferOwnership" => {
            let request = TransferOwnershipRequest {
                from_user_id: "leaver".to_owned(),
                to_user_id: "successor".to_owned(),
                ..Default::default()
            };
            caller.files.clone().transfer_ownership(request).await.map(|_| ())
        }
        "/strongroom.v1.ServiceInfoService/GetServiceInfo" => {
            caller.service_info.clone().get_service_info(GetServiceInfoRequest {}).await.map(|_| ())
        }
        "/strongroom.v1.PolicyService/GetPolicy" => caller.policy().await.map(|_| ()),
        "/strongroom.v1.PolicyService/CreateCategory" => {
            caller.create_category(category("contracts", Visibility::Owner)).await.map(|_| ())
        }
        "/strongroom.v1.PolicyService/UpdateCategory" => {
            caller.update_category(category("report", Visibility::Owner), &["visibility"]).await.map(|_| ())
        }
        "/strongroom.v1.PolicyService/DeleteCategory" => caller.delete_category("avatar").await.map(|_| ()),
        "/strongroom.admin.v1.TenantService/CreateTenant" => {
            let request = CreateTenantRequest {
                kind: TenantKind::Organization.into(),
                issuer: "https://id.example.org".to_owned(),
                external_id: format!("beside {tenant_id}"),
                ..Default::default()
            };
            tenants.create_tenant(request).await.map(|_| ())
        }
        "/strongroom.admin.v1.TenantService/GetTenant" => {
            tenants.get_tenant(GetTenantRequest { tenant_id }).await.map(|_| ())
        }
        "/strongroom.admin.v1.TenantService/ListTenants" => {
            tenants.list_tenants(ListTenantsRequest::default()).await.map(|_| ())
        }
        "/strongroom.admin.v1.TenantService/UpdateTenant" => {
            let update_mask = Some(prost_types::FieldMask { paths: vec!["ceiling_bytes".to_owned()] });
            let request =
                UpdateTenantRequest { tenant_id, ceiling_bytes: 1 << 40, update_mask, ..Default::default() };
            tenants.update_tenant(request).await.map(|_| ())
        }
        "/strongroom.admin.v1.TenantService/SuspendTenant" => {
            caller.suspend_tenant(&tenant_id).await?;
            // The next methods need a tenant that is not suspended.
            caller.resume_tenant(&tenant_id).await.map(|_| ())
        }
        "/strongroom.admin.v1.TenantService/ResumeTenant" => {
            caller.resume_tenant(&tenant_id).await.map(|_| ())
        }
        "/strongroom.admin.v1.TenantService/DeleteTenant" => {
            caller.delete_tenant(&tenant_id, true).await.map(|_| ())
        }
        "/strongroom.admin.v1.TenantService/ExportTenant" => {
            caller.export_tenant(&tenant_id).await.map(|_| ())
        }
        path if path.starts_with("/strongroom.admin.v1.") => call_erasures(path, caller, tenant).await,
        path => {
            let (service, method) = path.rsplit_once('/').unwrap();
            assert_eq!(service, "/strongroom.v1.WebhookService", "{path} has no case in the contract tests");
            call_webhooks(method, caller, file, tenant).await
        }
    }
}

/// Calls a method of the tenant service that erases or reclaims.
async fn call_erasures(path: &str, caller: &Caller, tenant: &str) -> Result<(), Status> {
    match path.rsplit_once('/').unwrap().1 {
        "ReclaimTenant" => caller.reclaim(tenant).await.map(|_| ()),
        "RequestErasure" => caller.request_erasure(tenant, "", "law").await.map(|_| ()),
        "ListErasures" => caller.list_erasures(tenant).await.map(|_| ()),
        "ApproveErasure" => {
            let erasure = caller.request_erasure(tenant, "", "law").await?;
            match caller.approve_erasure(&erasure).await {
                // The caller requested it.
                Err(status) if status.message().contains("another operator") => Ok(()),
                result => result.map(|_| ()),
            }
        }
        method => panic!("{method} has no case in the contract tests"),
    }
}

/// Returns the lowest role that a line of the access table permits, or `None` if no role is enough.
fn least_role(access: Access) -> Option<Role> {
    match access {
        Access::Anonymous | Access::Visitor | Access::Owner => Some(Role::Member),
        Access::Tenant(role) | Access::TenantOrOperator(role) => Some(role),
        Access::ScopeOrOperator(_) | Access::Operator => None,
    }
}

#[test]
fn access_table_lists_exactly_all_methods() {
    let offered: BTreeSet<String> = methods().into_iter().collect();
    let listed: BTreeSet<String> = TABLE
        .iter()
        .map(|(path, _)| (*path).to_owned())
        .filter(|path| path.starts_with("/strongroom."))
        .collect();
    assert_eq!(offered, listed);
}

#[test]
fn every_method_requires_credentials() {
    service_test(|s| async move {
        let targets = Targets::create(&s.alice()).await;
        for path in methods_of_callers() {
            let access = TABLE.iter().find(|(listed, _)| *listed == path).map(|(_, access)| *access);
            assert_ne!(access, Some(Access::Anonymous), "{path}");
            let error = call(&path, &s.anonymous(), &targets, "").await.unwrap_err();
            let got = (error.code(), reason(&error));
            assert_eq!(got, (Code::Unauthenticated, "CREDENTIALS_MISSING".to_owned()), "{path}");
        }
        targets.cancel_upload(&s.alice()).await;
    });
}

#[test]
fn no_method_finds_targets_of_another_tenant() {
    service_test(|s| async move {
        let alice = s.alice();
        let targets = Targets::create(&alice).await;
        let acme = alice.tenant_id().await;
        for path in methods_of_callers() {
            for stranger in [s.mallory(), s.gus()] {
                let outcome = call(&path, &stranger, &targets, &acme).await;
                let (_, access) = TABLE.iter().find(|(listed, _)| *listed == path).unwrap();
                let role = if stranger.identity.user == "gus" { Role::Admin } else { Role::Member };
                if least_role(*access).is_none_or(|least| role < least) {
                    assert_eq!(outcome.unwrap_err().code(), Code::PermissionDenied, "{path}");
                } else if WITHOUT_TARGET.contains(&path.as_str()) {
                    outcome.unwrap_or_else(|status| panic!("{path}: {status:?}"));
                } else {
                    assert_eq!(outcome.unwrap_err().code(), Code::NotFound, "{path}");
                }
            }
        }
        assert_eq!(alice.read(&targets.file).await.unwrap(), b"x"[..]);
        assert_eq!(alice.get_upload(&targets.upload).await.unwrap().persisted_size_bytes, 0);
        targets.cancel_upload(&alice).await;
    });
}

#[test]
fn every_method_requires_role_of_access_table() {
    service_test(|s| async move {
        for path in methods_of_callers() {
            let (_, access) = TABLE.iter().find(|(listed, _)| *listed == path).unwrap();
            for (caller, role) in
                [(s.alice(), Role::Member), (s.maria(), Role::Manager), (s.ada(), Role::Admin)]
            {
                let targets = Targets::create(&caller).await;
                let outcome = call(&path, &caller, &targets, "").await;
                targets.cancel_upload(&caller).await;
                if least_role(*access).is_some_and(|least| role >= least) {
                    outcome.unwrap_or_else(|status| panic!("{path} as {role:?}: {status:?}"));
                } else {
                    assert_eq!(outcome.unwrap_err().code(), Code::PermissionDenied, "{path} as {role:?}");
                }
            }
            let tenant = s.ada().tenant_id().await;
            let targets = Targets::create(&s.ada()).await;
            let outcome = call(&path, &s.operator(), &targets, &tenant).await;
            targets.cancel_upload(&s.ada()).await;
            match access {
                Access::TenantOrOperator(_)
                | Access::ScopeOrOperator(_)
                | Access::Operator
                | Access::Anonymous
                | Access::Visitor => {
                    outcome.unwrap_or_else(|status| panic!("{path} as operator: {status:?}"));
                }
                Access::Tenant(_) | Access::Owner => {
                    assert_eq!(outcome.unwrap_err().code(), Code::PermissionDenied, "{path}")
                }
            }
        }
    });
}

#[test]
fn owner_methods_reject_colleague_who_can_see_file() {
    service_test(|s| async move {
        for path in methods_of_callers() {
            let (_, access) = TABLE.iter().find(|(listed, _)| *listed == path).unwrap();
            let targets = Targets::create(&s.alice()).await;
            let as_colleague = call(&path, &s.bob(), &targets, "").await;
            let is_refused =
                as_colleague.as_ref().is_err_and(|status| status.code() == Code::PermissionDenied);
            let is_not_members = least_role(*access) != Some(Role::Member);
            assert_eq!(is_refused, *access == Access::Owner || is_not_members, "{path}: {as_colleague:?}");
            if *access == Access::Owner {
                call(&path, &s.alice(), &targets, "").await.unwrap();
            }
            targets.cancel_upload(&s.alice()).await;
        }
        let denials = "SELECT count(*) FROM audit_entries WHERE NOT is_allowed";
        assert_eq!(s.superuser.query_number(denials).await, 34 + 30, "each denial is in the audit log");
    });
}
