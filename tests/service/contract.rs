//! The contract, method by method: what the descriptor set offers is what this walks. A method without its line in the
//! table of access, or without its case here, is a failure.

use std::collections::BTreeSet;

use futures::stream;
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
            BatchGetFilesRequest, DownloadFileRequest, GetQuotaRequest, GetUsageRequest, ListFilesRequest,
            Quota, TransferOwnershipRequest, UpdateQuotaRequest, Visibility,
        },
    },
    telemetry::health::Component,
};
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::categories::category;
use crate::harness::{Caller, file_id, reason, service_test, service_test_with, spec};

/// The path of every method of ours.
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

/// Methods that name no file and no tenant: what they show is the caller's own.
const NAMES_NOTHING: [&str; 7] = [
    "/strongroom.v1.FileService/UploadFile",
    "/strongroom.v1.FileService/ListFiles",
    "/strongroom.v1.FileService/TransferOwnership",
    "/strongroom.v1.PolicyService/GetPolicy",
    "/strongroom.v1.PolicyService/CreateCategory",
    "/strongroom.v1.PolicyService/UpdateCategory",
    "/strongroom.v1.PolicyService/DeleteCategory",
];

/// Calls a method about a file or a tenant. Every method has its line.
async fn call(path: &str, caller: &Caller, file: &str, tenant: &str) -> Result<(), Status> {
    let (mut quotas, tenant_id) = (caller.quotas.clone(), tenant.to_owned());
    match path {
        "/strongroom.v1.FileService/UploadFile" => caller.upload(spec("a"), b"x").await.map(|_| ()),
        "/strongroom.v1.FileService/DownloadFile" => {
            let request = DownloadFileRequest { file_id: file.to_owned(), ..Default::default() };
            caller.download(request).await.map(|_| ())
        }
        "/strongroom.v1.FileService/GetFile" => caller.get(file).await.map(|_| ()),
        "/strongroom.v1.FileService/BatchGetFiles" => {
            let request = BatchGetFilesRequest { file_ids: vec![file.to_owned()], ..Default::default() };
            let answer = caller.files.clone().batch_get_files(request).await?.into_inner();
            // It says so in its answer, and not by its status.
            answer.missing_file_ids.is_empty().then_some(()).ok_or_else(|| Status::not_found("missing"))
        }
        "/strongroom.v1.FileService/ListFiles" => caller.list(ListFilesRequest::default()).await.map(|_| ()),
        "/strongroom.v1.FileService/UpdateFile" => caller.rename(file, "b").await.map(|_| ()),
        "/strongroom.v1.FileService/DeleteFile" => caller.delete(file).await.map(|_| ()),
        "/strongroom.v1.FileService/UndeleteFile" => caller.undelete(file).await.map(|_| ()),
        "/strongroom.v1.FileService/PurgeFile" => caller.purge(file).await,
        "/strongroom.v1.FileService/ArchiveFile" => caller.archive(file).await.map(|_| ()),
        "/strongroom.v1.FileService/UnarchiveFile" => caller.unarchive(file).await.map(|_| ()),
        "/strongroom.v1.QuotaService/GetQuota" => {
            quotas.get_quota(GetQuotaRequest { tenant_id }).await.map(|_| ())
        }
        "/strongroom.v1.QuotaService/UpdateQuota" => {
            let request = UpdateQuotaRequest {
                quota: Some(Quota { warning_percent: 50, ..Quota::default() }),
                update_mask: Some(prost_types::FieldMask { paths: vec!["warning_percent".to_owned()] }),
                tenant_id,
                ..Default::default()
            };
            quotas.update_quota(request).await.map(|_| ())
        }
        "/strongroom.v1.QuotaService/GetUsage" => {
            quotas.get_usage(GetUsageRequest { tenant_id }).await.map(|_| ())
        }
        path => call_policy_or_tenant(path, caller, tenant_id).await,
    }
}

/// The same for the services of policies and of operators.
async fn call_policy_or_tenant(path: &str, caller: &Caller, tenant_id: String) -> Result<(), Status> {
    let mut tenants = caller.tenants.clone();
    match path {
        "/strongroom.v1.FileService/TransferOwnership" => {
            let request = TransferOwnershipRequest {
                from_user_id: "leaver".to_owned(),
                to_user_id: "successor".to_owned(),
                ..Default::default()
            };
            caller.files.clone().transfer_ownership(request).await.map(|_| ())
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
            let request =
                UpdateTenantRequest { tenant_id, ceiling_bytes: Some(1 << 40), ..Default::default() };
            tenants.update_tenant(request).await.map(|_| ())
        }
        "/strongroom.admin.v1.TenantService/SuspendTenant" => {
            caller.suspend(&tenant_id).await?;
            // The methods that follow are for a tenant that is served.
            caller.resume(&tenant_id).await.map(|_| ())
        }
        "/strongroom.admin.v1.TenantService/ResumeTenant" => caller.resume(&tenant_id).await.map(|_| ()),
        "/strongroom.admin.v1.TenantService/DeleteTenant" => {
            caller.delete_tenant(&tenant_id, true).await.map(|_| ())
        }
        "/strongroom.admin.v1.TenantService/ExportTenant" => {
            caller.export_tenant(&tenant_id).await.map(|_| ())
        }
        path => panic!("{path} has no case in the contract tests"),
    }
}

/// The role that a line of the table asks for; none where it wants the operator.
fn least_role(access: Access) -> Option<Role> {
    match access {
        Access::Anonymous | Access::Owner => Some(Role::Member),
        Access::Tenant(role) | Access::TenantOrOperator(role) => Some(role),
        Access::Operator => None,
    }
}

#[test]
fn every_method_has_its_line_in_the_table_of_access_and_only_those() {
    let offered: BTreeSet<String> = methods().into_iter().collect();
    let listed: BTreeSet<String> = TABLE
        .iter()
        .map(|(path, _)| (*path).to_owned())
        .filter(|path| path.starts_with("/strongroom."))
        .collect();
    assert_eq!(offered, listed);
}

#[test]
fn nobody_calls_anything_without_credentials() {
    service_test(|s| async move {
        let file = file_id(&s.alice().upload(spec("a"), b"x").await.unwrap());
        for path in methods() {
            let access = TABLE.iter().find(|(listed, _)| *listed == path).map(|(_, access)| *access);
            assert_ne!(access, Some(Access::Anonymous), "{path}");
            let refused = call(&path, &s.nobody(), &file, "").await.unwrap_err();
            let got = (refused.code(), reason(&refused));
            assert_eq!(got, (Code::Unauthenticated, "CREDENTIALS_MISSING".to_owned()), "{path}");
        }
    });
}

#[test]
fn another_tenant_is_not_found_by_any_method() {
    service_test(|s| async move {
        let alice = s.alice();
        let file = file_id(&alice.upload(spec("a"), b"x").await.unwrap());
        let acme = alice.tenant_id().await;
        for path in methods() {
            for stranger in [s.mallory(), s.gus()] {
                let outcome = call(&path, &stranger, &file, &acme).await;
                let (_, access) = TABLE.iter().find(|(listed, _)| *listed == path).unwrap();
                let role = if stranger.identity.user == "gus" { Role::Admin } else { Role::Member };
                if least_role(*access).is_none_or(|least| role < least) {
                    assert_eq!(outcome.unwrap_err().code(), Code::PermissionDenied, "{path}");
                } else if NAMES_NOTHING.contains(&path.as_str()) {
                    outcome.unwrap_or_else(|status| panic!("{path}: {status:?}"));
                } else {
                    assert_eq!(outcome.unwrap_err().code(), Code::NotFound, "{path}");
                }
            }
        }
        assert_eq!(alice.read(&file).await.unwrap(), b"x"[..]);
    });
}

#[test]
fn every_method_asks_for_the_role_of_its_line() {
    service_test(|s| async move {
        for path in methods() {
            let (_, access) = TABLE.iter().find(|(listed, _)| *listed == path).unwrap();
            for (caller, role) in
                [(s.alice(), Role::Member), (s.maria(), Role::Manager), (s.ada(), Role::Admin)]
            {
                let file = file_id(&caller.upload(spec("a"), b"x").await.unwrap());
                let outcome = call(&path, &caller, &file, "").await;
                if least_role(*access).is_some_and(|least| role >= least) {
                    outcome.unwrap_or_else(|status| panic!("{path} as {role:?}: {status:?}"));
                } else {
                    assert_eq!(outcome.unwrap_err().code(), Code::PermissionDenied, "{path} as {role:?}");
                }
            }
            let tenant = s.ada().tenant_id().await;
            let file = file_id(&s.ada().upload(spec("a"), b"x").await.unwrap());
            let outcome = call(&path, &s.operator(), &file, &tenant).await;
            match access {
                Access::TenantOrOperator(_) | Access::Operator | Access::Anonymous => {
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
fn what_belongs_to_the_owner_is_refused_to_a_colleague_who_sees_it() {
    service_test(|s| async move {
        for path in methods() {
            let (_, access) = TABLE.iter().find(|(listed, _)| *listed == path).unwrap();
            let file = file_id(&s.alice().upload(spec("a"), b"x").await.unwrap());
            let as_colleague = call(&path, &s.bob(), &file, "").await;
            let is_refused =
                as_colleague.as_ref().is_err_and(|status| status.code() == Code::PermissionDenied);
            let is_not_members = least_role(*access) != Some(Role::Member);
            assert_eq!(is_refused, *access == Access::Owner || is_not_members, "{path}: {as_colleague:?}");
            if *access == Access::Owner {
                call(&path, &s.alice(), &file, "").await.unwrap();
            }
        }
        let denials = "SELECT count(*) FROM audit_entries WHERE NOT is_allowed";
        assert_eq!(s.owner.number(denials).await, 19, "each denial is in the audit log");
    });
}

#[test]
fn health_is_open_to_anyone_and_tells_each_service() {
    service_test(|s| async move {
        let mut health = HealthClient::new(s.channel.clone());
        let ask = |service: &str| HealthCheckRequest { service: service.to_owned() };
        let names = ["", "strongroom.v1.FileService", "strongroom.v1.QuotaService"];
        for (is_up, status) in [(false, 2), (true, 1)] {
            for component in [Component::Database, Component::Storage] {
                if is_up { s.health.set_up(component) } else { s.health.set_down(component, "away") }
            }
            for name in names {
                s.until("health follows", || {
                    let mut health = health.clone();
                    async move { health.check(ask(name)).await.unwrap().into_inner().status == status }
                })
                .await;
            }
        }
        assert_eq!(health.check(ask("nonsense")).await.unwrap_err().code(), Code::NotFound);
    });
}

#[test]
fn reflection_describes_every_service_unless_it_is_switched_off() {
    for is_on in [true, false] {
        service_test_with(
            |config| config.server.reflection = is_on,
            |s| async move {
                let mut reflection = ServerReflectionClient::new(s.channel.clone());
                let ask = ServerReflectionRequest {
                    message_request: Some(MessageRequest::ListServices(String::new())),
                    ..Default::default()
                };
                let answer = reflection.server_reflection_info(stream::iter([ask])).await;
                if !is_on {
                    assert_eq!(answer.unwrap_err().code(), Code::Unimplemented);
                    return;
                }
                let first = answer.unwrap().into_inner().message().await.unwrap().unwrap();
                let Some(MessageResponse::ListServicesResponse(list)) = first.message_response else {
                    panic!("{first:?}")
                };
                let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
                for name in
                    ["strongroom.v1.FileService", "strongroom.v1.QuotaService", "grpc.health.v1.Health"]
                {
                    assert!(names.iter().any(|listed| listed == name), "{name} in {names:?}");
                }
            },
        );
    }
}
