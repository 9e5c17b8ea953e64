//! Mutations whose connection to PostgreSQL breaks at COMMIT. The response reports the actual outcome, or
//! that the outcome is unknown.

use strongroom::proto::{
    admin::v1::{
        CreateTenantRequest, GetTenantRequest, ListTenantsRequest, SuspendTenantRequest, TenantKind,
        TenantState,
    },
    v1::{
        Category, CreateCategoryRequest, CreateWebhookRequest, DeleteFileRequest, GetPolicyRequest,
        ListWebhooksRequest, Visibility, Webhook,
    },
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    database::{DatabaseProxies, assert_retryable, is_commit, with_database_proxies},
    harness::{Service, file_id, reason, spec},
    proxy::{Fault, Proxy},
};

const REQUEST_ID: &str = "018f4e5a-7c1b-7d2e-8f3a-4b5c6d7e8fa0";

/// A mutation of one kind. Each kind writes through its own use case.
#[derive(Debug, Clone, Copy)]
enum Mutation {
    DeleteFile,
    RenameFile,
    CreateCategory,
    CreateWebhook,
    SuspendTenant,
    CreateTenant,
}

const MUTATIONS: [Mutation; 6] = [
    Mutation::DeleteFile,
    Mutation::RenameFile,
    Mutation::CreateCategory,
    Mutation::CreateWebhook,
    Mutation::SuspendTenant,
    Mutation::CreateTenant,
];

/// One attempt at a mutation, on its own resource.
struct Attempt<'a> {
    s: &'a Service,
    mutation: Mutation,
    /// The id of the file or tenant, or the name of the resource to create.
    subject: String,
}

impl<'a> Attempt<'a> {
    async fn prepare(s: &'a Service, mutation: Mutation, name: &str) -> Self {
        let subject = match mutation {
            Mutation::DeleteFile | Mutation::RenameFile => {
                file_id(&s.alice().upload(spec("a"), b"bytes").await.unwrap())
            }
            Mutation::SuspendTenant => s.member("user", name, "member", &[]).tenant_id().await,
            Mutation::CreateCategory | Mutation::CreateWebhook => name.to_owned(),
            Mutation::CreateTenant => format!("new-{name}"),
        };
        Self { s, mutation, subject }
    }

    /// Returns the proxy of the connections that the mutation writes through.
    fn proxy<'d>(&self, proxies: &'d DatabaseProxies) -> &'d Proxy {
        match self.mutation {
            Mutation::CreateTenant => &proxies.system,
            _ => &proxies.requests,
        }
    }

    async fn run(&self) -> Result<(), Status> {
        let (s, subject) = (self.s, self.subject.clone());
        let (ada, operator) = (s.ada(), s.operator());
        match self.mutation {
            Mutation::DeleteFile => s.alice().delete(&subject).await.map(|_| ()),
            Mutation::RenameFile => s.alice().rename(&subject, "renamed").await.map(|_| ()),
            Mutation::CreateCategory => {
                let visibility = Visibility::Owner.into();
                let category = Category { name: subject, visibility, ..Category::default() };
                let request = CreateCategoryRequest { category: Some(category), ..Default::default() };
                ada.policies.clone().create_category(request).await.map(|_| ())
            }
            Mutation::CreateWebhook => {
                let webhook = Webhook { url: webhook_url(&subject), ..Webhook::default() };
                let request = CreateWebhookRequest { webhook: Some(webhook), ..Default::default() };
                ada.webhooks.clone().create_webhook(request).await.map(|_| ())
            }
            Mutation::SuspendTenant => {
                let request = SuspendTenantRequest { tenant_id: subject, ..Default::default() };
                operator.tenants.clone().suspend_tenant(request).await.map(|_| ())
            }
            Mutation::CreateTenant => {
                let request = CreateTenantRequest {
                    kind: TenantKind::Organization.into(),
                    issuer: "https://id.example.org".to_owned(),
                    external_id: subject,
                    ..Default::default()
                };
                operator.tenants.clone().create_tenant(request).await.map(|_| ())
            }
        }
    }

    async fn has_taken_effect(&self) -> bool {
        let (s, subject) = (self.s, self.subject.clone());
        let (ada, mut tenants) = (s.ada(), s.operator().tenants);
        match self.mutation {
            Mutation::DeleteFile => s.alice().get(&subject).await.unwrap().delete_time.is_some(),
            Mutation::RenameFile => s.alice().get(&subject).await.unwrap().name == "renamed",
            Mutation::CreateCategory => {
                let policy = ada.policies.clone().get_policy(GetPolicyRequest {}).await.unwrap();
                let categories = policy.into_inner().policy.unwrap().categories;
                categories.iter().any(|category| category.name == subject)
            }
            Mutation::CreateWebhook => {
                let all = ada.webhooks.clone().list_webhooks(ListWebhooksRequest::default()).await.unwrap();
                all.into_inner().webhooks.iter().any(|webhook| webhook.url == webhook_url(&subject))
            }
            Mutation::SuspendTenant => {
                let request = GetTenantRequest { tenant_id: subject };
                let tenant = tenants.get_tenant(request).await.unwrap().into_inner().tenant.unwrap();
                tenant.state() == TenantState::Suspended
            }
            Mutation::CreateTenant => {
                let all = tenants.list_tenants(ListTenantsRequest::default()).await.unwrap();
                all.into_inner().tenants.iter().any(|tenant| tenant.external_id == subject)
            }
        }
    }
}

fn webhook_url(name: &str) -> String {
    format!("https://example.org/{name}")
}

#[test]
fn mutation_reports_outcome_of_commit_with_lost_response() {
    with_database_proxies(
        |_| {},
        |s, proxies| async move {
            let proxies = proxies.get().unwrap();
            for mutation in MUTATIONS {
                // The last commit of the call commits the mutation.
                let undisturbed = Attempt::prepare(&s, mutation, "undisturbed").await;
                let commits = undisturbed.proxy(proxies).count_matches(is_commit);
                undisturbed.run().await.unwrap();
                let last = commits.count();
                undisturbed.proxy(proxies).clear_faults();
                assert!(last >= 1 && undisturbed.has_taken_effect().await, "{mutation:?}");

                for (name, fault, is_committed) in [
                    ("committed", Fault::DropResponse, true),
                    ("cut", Fault::CutRequest { after_bytes: 0 }, false),
                ] {
                    let attempt = Attempt::prepare(&s, mutation, name).await;
                    let commits = attempt.proxy(proxies).inject(last - 1..last, fault, is_commit);
                    let response = attempt.run().await;
                    assert!(commits.count() >= last, "{mutation:?}: no fault was injected into the commit");
                    attempt.proxy(proxies).clear_faults();
                    assert_eq!(response.is_ok(), is_committed, "{mutation:?} {name}: {response:?}");
                    assert_eq!(attempt.has_taken_effect().await, is_committed, "{mutation:?} {name}");
                    if let Err(status) = response {
                        assert_retryable(&status);
                    }
                }
            }
        },
    );
}

#[test]
fn unknown_outcome_depends_on_the_request_id() {
    with_database_proxies(
        |_| {},
        |s, proxies| async move {
            let (alice, proxies) = (s.alice(), proxies.get().unwrap());
            let delete = |file_id: &str, request_id: &str| {
                let mut files = alice.files.clone();
                let request = DeleteFileRequest {
                    file_id: file_id.to_owned(),
                    request_id: request_id.to_owned(),
                    ..Default::default()
                };
                async move { files.delete_file(request).await.map(|response| response.into_inner()) }
            };
            for (request_id, code, expected) in [
                ("", Code::Aborted, "OUTCOME_UNKNOWN"),
                (REQUEST_ID, Code::Unavailable, "DATABASE_UNAVAILABLE"),
            ] {
                let file = file_id(&alice.upload(spec("a"), b"bytes").await.unwrap());
                proxies.requests.inject(0..1, Fault::DropResponse, is_commit);
                proxies.system.stop().await;
                let status = delete(&file, request_id).await.unwrap_err();
                proxies.requests.clear_faults();
                proxies.system.restart();
                assert_eq!((status.code(), reason(&status).as_str()), (code, expected), "{status:?}");
                let has_retry_info = status.get_error_details().retry_info().is_some();
                assert_eq!(has_retry_info, !request_id.is_empty());
                assert!(alice.get(&file).await.unwrap().delete_time.is_some(), "it was committed");
                if has_retry_info {
                    assert!(delete(&file, request_id).await.unwrap().file.unwrap().delete_time.is_some());
                }
            }
        },
    );
}
