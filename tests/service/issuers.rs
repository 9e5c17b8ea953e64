//! Trust is a property of an issuer: whether it may name operators, the tenants of its callers, and the creation
//! of tenants.

use std::collections::BTreeSet;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use strongroom::{
    config::{Config, auth::IssuerConfig},
    domain::clock::Clock,
    proto::{
        admin::v1::{ListTenantsRequest, SuspendTenantRequest, export_tenant_response::Record},
        v1::{
            CreateWebhookRequest, FileFilter, GetQuotaRequest, ListFilesRequest, Quota, UploadSpec,
            Visibility,
        },
    },
};
use tonic::{Code, Status, body::Body};
use tonic_types::StatusExt;
use tower::Service as _;

use crate::{
    fairness::in_use,
    harness::{
        Caller, Identity, Service, claims, default_key, file_id, pattern, reason, service_test,
        service_test_with, spec,
    },
};

/// The identity provider of a customer.
const CUSTOMER: &str = "https://id.customer.example.org";

/// Accepts tokens of the customer's identity provider, with these further settings. It has the same keys as
/// the provider of the other tests.
fn trust_customer(config: &mut Config, settings: Value) {
    let mut issuer = json!({
        "issuer": CUSTOMER,
        "audience": "strongroom",
        "jwks_file": config.auth.issuers[0].jwks_file,
    });
    issuer.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let issuer: IssuerConfig = serde_json::from_value(issuer).unwrap();
    config.auth.issuers.push(issuer);
}

/// Returns the same identity, as the customer's identity provider asserts it.
fn at_customer(s: &Service, identity: Identity) -> Caller {
    let mut claims = claims(&identity, s.clock.now());
    claims.insert("iss".to_owned(), json!(CUSTOMER));
    let token = default_key().sign(&claims);
    s.caller_with_token(identity, &token)
}

/// Returns a service with the `sub` of alice, in her organization.
fn service_alice(s: &Service) -> Caller {
    s.caller(Identity { kind: Some("service".to_owned()), ..s.alice().identity })
}

async fn list_tenants(caller: &Caller) -> Result<usize, (Code, String)> {
    let listed = caller.tenants.clone().list_tenants(ListTenantsRequest::default()).await;
    listed.map(|listed| listed.into_inner().tenants.len()).map_err(|status| (status.code(), reason(&status)))
}

async fn count_tenants(s: &Service) -> i64 {
    s.superuser.query_number("SELECT count(*) FROM tenants").await
}

/// Sends these bytes as the body of a call.
pub(crate) async fn send_bytes(s: &Service, caller: &Caller, path: &str, body: &[u8]) -> Status {
    let request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {}", caller.token))
        .body(Body::new(Full::new(Bytes::copy_from_slice(body))))
        .unwrap();
    let mut channel = s.channel.clone();
    std::future::poll_fn(|context| channel.poll_ready(context)).await.unwrap();
    let response = channel.call(request).await.unwrap();
    if let Some(status) = Status::from_header_map(response.headers()) {
        return status;
    }
    let collected = response.into_body().collect().await.unwrap();
    Status::from_header_map(collected.trailers().unwrap()).unwrap()
}

#[test]
fn only_a_trusted_issuer_names_operators() {
    service_test_with(
        |config| trust_customer(config, json!({})),
        |s| async move {
            s.alice().quota().await.unwrap();
            assert_eq!(list_tenants(&s.operator()).await, Ok(1));
            let stranger = at_customer(&s, s.operator().identity);
            let refused = Err((Code::Unauthenticated, "CREDENTIALS_INVALID".to_owned()));
            assert_eq!(list_tenants(&stranger).await, refused);
        },
    );
}

#[test]
fn issuer_cannot_act_in_the_tenant_of_another() {
    service_test_with(
        |config| trust_customer(config, json!({})),
        |s| async move {
            let (alice, ada) = (s.alice(), s.ada());
            let id = file_id(&alice.upload(spec("secret"), b"bytes").await.unwrap());
            for same_name in [alice.identity.clone(), ada.identity.clone()] {
                let stranger = at_customer(&s, same_name);
                assert_ne!(stranger.tenant_id().await, alice.tenant_id().await);
                assert_eq!(stranger.get(&id).await.unwrap_err().code(), Code::NotFound);
                assert_eq!(stranger.delete(&id).await.unwrap_err().code(), Code::NotFound);
                assert_eq!(stranger.list_names(ListFilesRequest::default()).await, [""; 0]);
            }
            let personal = at_customer(&s, s.personal_alice().identity);
            assert_ne!(personal.tenant_id().await, s.personal_alice().tenant_id().await);
        },
    );
}

#[test]
fn service_and_user_with_one_subject_own_different_files() {
    service_test(|s| async move {
        let (user, service) = (s.alice(), service_alice(&s));
        let hidden = UploadSpec { visibility: Visibility::Owner.into(), ..spec("hidden") };
        let id = file_id(&service.upload(hidden, b"bytes").await.unwrap());
        assert_eq!(service.get(&id).await.unwrap().owner_id, "service:alice");
        assert_eq!(user.get(&id).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(user.list_names(ListFilesRequest::default()).await, [""; 0]);

        // Seen by the whole organization, and changed by its owner only.
        let shared = UploadSpec { visibility: Visibility::Organization.into(), ..spec("shared") };
        let shared = file_id(&service.upload(shared, b"bytes").await.unwrap());
        assert_eq!(user.delete(&shared).await.unwrap_err().code(), Code::PermissionDenied);
        service.delete(&shared).await.unwrap();

        // Neither can a user take the name of the service.
        let forged = s.member("service:alice", "acme", "member", &[]);
        assert_eq!(forged.get(&id).await.unwrap_err().code(), Code::NotFound);
        let own = file_id(&forged.upload(spec("own"), b"x").await.unwrap());
        assert_eq!(forged.get(&own).await.unwrap().owner_id, "user:service:alice");
    });
}

#[test]
fn service_and_user_with_one_subject_share_no_request() {
    service_test(|s| async move {
        let (user, service) = (s.alice(), service_alice(&s));
        let request_id = uuid::Uuid::from_u128(7).to_string();
        let with_id = || UploadSpec { request_id: request_id.clone(), ..spec("once") };
        service.upload(with_id(), b"bytes").await.unwrap();
        let refused = user.upload(with_id(), b"bytes").await.unwrap_err();
        assert_eq!(reason(&refused), "REQUEST_ID_REUSED");

        let data = pattern(3 * crate::harness::PART);
        let size = UploadSpec { size_bytes: Some(data.len() as i64), ..spec("large") };
        let upload = service.create_upload(size).await.unwrap();
        assert_eq!(user.get_upload(&upload.id).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(user.list_upload_ids(10).await, [""; 0]);
        let resumed = user.resume_upload(&upload.id, &data, 0, true).await.unwrap_err();
        assert_eq!(resumed.code(), Code::NotFound);
        service.cancel_upload(&upload.id).await.unwrap();
    });
}

#[test]
fn service_and_user_with_one_subject_share_no_grant() {
    service_test(|s| async move {
        let hidden = UploadSpec { visibility: Visibility::Owner.into(), ..spec("hidden") };
        let id = file_id(&s.bob().upload(hidden, b"bytes").await.unwrap());
        let grant = "INSERT INTO file_readers (tenant_id, principal, file_id, create_time, name, size_bytes)
                     SELECT tenant_id, 'user:alice', id, create_time, name, size_bytes FROM files";
        s.superuser.execute(grant).await;
        s.alice().get(&id).await.unwrap();
        assert_eq!(service_alice(&s).get(&id).await.unwrap_err().code(), Code::NotFound);
    });
}

#[test]
fn service_and_user_with_one_subject_are_not_one_person() {
    service_test(|s| async move {
        let user = s.personal_alice();
        let kind = Some("service".to_owned());
        let service = s.caller(Identity { kind, ..user.identity.clone() });
        assert_ne!(service.tenant_id().await, user.tenant_id().await);
    });
}

#[test]
fn migration_renames_the_ids_of_services_only() {
    const UP: &str = include_str!("../../migrations/20261130020200_name_service_ids/up.sql");
    const DOWN: &str = include_str!("../../migrations/20261130020200_name_service_ids/down.sql");
    service_test(|s| async move {
        s.billing().upload(spec("by service"), b"x").await.unwrap();
        s.alice().upload(spec("by user"), b"x").await.unwrap();
        service_alice(&s).upload(spec("by both"), b"x").await.unwrap();
        let owners = "SELECT format('%s %s %s', f.name, f.owner_id, v.created_by)
                      FROM files AS f JOIN versions AS v ON v.file_id = f.id ORDER BY f.name";
        let new = [
            "by both service:alice service:alice",
            "by service service:billing service:billing",
            "by user alice alice",
        ];
        assert_eq!(s.superuser.query_texts(owners).await, new);
        // As earlier versions wrote them.
        s.superuser.execute(DOWN).await;
        let kept = "UPDATE audit_entries SET actor_id = substr(actor_id, 9) WHERE actor_id LIKE 'service:%'";
        s.superuser.execute(kept).await;
        let old = ["by both alice alice", "by service billing billing", "by user alice alice"];
        assert_eq!(s.superuser.query_texts(owners).await, old);
        s.superuser.execute(UP).await;
        let renamed =
            ["by both alice alice", "by service service:billing service:billing", "by user alice alice"];
        assert_eq!(s.superuser.query_texts(owners).await, renamed);
        assert_eq!(s.billing().list_names(ListFilesRequest::default()).await.len(), 3);
    });
}

#[test]
fn migration_renames_the_personal_tenants_of_services_only() {
    const UP: &str = include_str!("../../migrations/20261130020200_name_service_ids/up.sql");
    const DOWN: &str = include_str!("../../migrations/20261130020200_name_service_ids/down.sql");
    service_test(|s| async move {
        let person = |user: &str, kind: Option<&str>| {
            let kind = kind.map(str::to_owned);
            s.caller(Identity { user: user.to_owned(), kind, ..s.personal_alice().identity })
        };
        let (bot, alice) = (person("bot", Some("service")), person("alice", None));
        let twin = person("alice", Some("service"));
        for caller in [&bot, &alice, &twin] {
            caller.upload(spec("a"), b"x").await.unwrap();
        }
        let names = "SELECT external_id FROM tenants ORDER BY external_id";
        let new = ["alice", "service:alice", "service:bot"];
        assert_eq!(s.superuser.query_texts(names).await, new);
        let id = bot.tenant_id().await;
        // As earlier versions wrote them. They gave both bearers of one subject the same tenant.
        s.superuser.execute(DOWN).await;
        let kept = "UPDATE audit_entries SET actor_id = substr(actor_id, 9) WHERE actor_id LIKE 'service:%'";
        s.superuser.execute(kept).await;
        assert_eq!(s.superuser.query_texts(names).await, ["alice", "bot", "service:alice"]);
        s.superuser.execute(UP).await;
        assert_eq!(s.superuser.query_texts(names).await, new);
        let again = person("bot", Some("service"));
        assert_eq!(again.tenant_id().await, id);
        assert_eq!(again.list_names(ListFilesRequest::default()).await, ["a"]);
    });
}

#[test]
fn owner_in_a_request_may_name_its_kind() {
    service_test(|s| async move {
        let service = service_alice(&s);
        service.upload(spec("by service"), b"x").await.unwrap();
        s.alice().upload(spec("by user"), b"x").await.unwrap();
        for (owner, expected) in
            [("alice", "by user"), ("user:alice", "by user"), ("service:alice", "by service")]
        {
            let filter = Some(FileFilter { owner_id: owner.to_owned(), ..FileFilter::default() });
            let request = ListFilesRequest { filter, ..ListFilesRequest::default() };
            assert_eq!(s.alice().list_names(request).await, [expected], "{owner}");
        }
    });
}

/// Suspends a tenant as this operator.
async fn suspend(operator: &Caller, tenant: &str, request_id: &str) -> Result<(), Status> {
    let request = SuspendTenantRequest {
        tenant_id: tenant.to_owned(),
        reason: "unpaid".to_owned(),
        request_id: request_id.to_owned(),
    };
    operator.tenants.clone().suspend_tenant(request).await.map(|_| ())
}

#[test]
fn audit_entry_of_an_operator_names_its_issuer() {
    service_test_with(
        |config| {
            config.auth.several_operator_issuers = true;
            trust_customer(config, json!({"operators": true}));
        },
        |s| async move {
            let acme = s.alice().tenant_id().await;
            let (ours, theirs) = (s.operator(), at_customer(&s, s.operator().identity));
            let request_id = uuid::Uuid::from_u128(7).to_string();
            suspend(&ours, &acme, &request_id).await.unwrap();
            // The operators of two issuers with one subject are different callers.
            let reused = suspend(&theirs, &acme, &request_id).await.unwrap_err();
            assert_eq!(reason(&reused), "REQUEST_ID_REUSED");
            let quota = Quota { limit_bytes: 1 << 20, ..Quota::default() };
            theirs.update_quota(&acme, quota, &["limit_bytes"]).await.unwrap();

            let records = theirs.export_tenant(&acme).await.unwrap();
            let entries = records.into_iter().filter_map(|record| match record {
                Record::AuditEntry(entry) if !entry.actor_issuer.is_empty() => {
                    Some(format!("{} {} {}", entry.action, entry.actor_id, entry.actor_issuer))
                }
                _ => None,
            });
            // Entries of one time have no order.
            let expected = [
                "tenant_suspend root https://id.example.org".to_owned(),
                format!("quota_update root {CUSTOMER}"),
                format!("tenant_export root {CUSTOMER}"),
            ];
            assert_eq!(entries.collect::<BTreeSet<_>>(), BTreeSet::from(expected));
        },
    );
}

#[test]
fn one_subject_at_two_issuers_is_not_two_operators() {
    service_test_with(
        |config| {
            config.auth.several_operator_issuers = true;
            trust_customer(config, json!({"operators": true}));
        },
        |s| async move {
            let acme = s.alice().tenant_id().await;
            let olga = Identity { user: "olga".to_owned(), ..s.operator().identity };
            let (same, other) = (at_customer(&s, s.operator().identity), at_customer(&s, olga));
            let erasure = s.operator().request_erasure(&acme, "", "case 8").await.unwrap();
            let refused = same.approve_erasure(&erasure).await.unwrap_err();
            assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
            let approved = other.approve_erasure(&erasure).await.unwrap();
            assert_eq!((approved.requested_by.as_str(), approved.approved_by.as_str()), ("root", "olga"));
            let issuers = "SELECT format('%s %s', requested_by_issuer, approved_by_issuer) FROM erasures";
            let expected = [format!("https://id.example.org {CUSTOMER}")];
            assert_eq!(s.superuser.query_texts(issuers).await, expected);
        },
    );
}

#[test]
fn tokens_of_an_issuer_name_listed_organizations_only() {
    let settings = json!({"organizations": ["acme"], "create_tenants": false});
    service_test_with(
        |config| trust_customer(config, settings),
        |s| async move {
            for (identity, expected) in [
                (s.mallory().identity, (Code::Unauthenticated, "CREDENTIALS_INVALID")),
                (s.personal_alice().identity, (Code::Unauthenticated, "CREDENTIALS_INVALID")),
                // Accepted, but an operator must create the tenant.
                (s.alice().identity, (Code::PermissionDenied, "NOT_ALLOWED")),
            ] {
                let refused = at_customer(&s, identity).quota().await.unwrap_err();
                assert_eq!((refused.code(), reason(&refused).as_str()), expected);
            }
            assert_eq!(count_tenants(&s).await, 0);
            s.mallory().quota().await.unwrap();
        },
    );
}

#[test]
fn tenants_are_created_at_a_limited_rate_per_issuer() {
    service_test_with(
        |config| {
            config.tenants.creations_per_minute_max = 2;
            trust_customer(config, json!({}));
        },
        |s| async move {
            // Many first calls of one tenant create one.
            let calls = (0..10).map(|_| async { s.alice().quota().await.map(|_| ()).map_err(|e| e.code()) });
            assert_eq!(futures::future::join_all(calls).await, [Ok(()); 10]);
            s.mallory().quota().await.unwrap();

            let refused = s.pupil().quota().await.unwrap_err();
            assert_eq!(refused.code(), Code::ResourceExhausted);
            assert_eq!(reason(&refused), "TENANT_CREATIONS_EXHAUSTED");
            let retry = refused.get_details_retry_info().unwrap().retry_delay;
            assert_eq!(retry, Some(std::time::Duration::from_secs(30)));
            assert_eq!(count_tenants(&s).await, 2);

            // Existing tenants and other issuers are not affected.
            s.alice().quota().await.unwrap();
            at_customer(&s, s.pupil().identity).quota().await.unwrap();
            s.clock.advance(chrono::Duration::seconds(30));
            s.pupil().quota().await.unwrap();
            assert_eq!(count_tenants(&s).await, 4);
        },
    );
}

#[test]
fn cancelled_first_calls_use_up_no_creation() {
    service_test_with(
        |config| config.tenants.creations_per_minute_max = 2,
        |s| async move {
            // Reads continue, and creations wait.
            s.superuser.execute("BEGIN; LOCK TABLE tenants IN EXCLUSIVE MODE").await;
            let calls = [(); 3].map(|()| {
                let mut quotas = s.mallory().quotas;
                tokio::spawn(async move { quotas.get_quota(GetQuotaRequest::default()).await })
            });
            // One call creates the tenant, and the others wait for it.
            let creating = "SELECT count(*) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
                            WHERE a.datname = current_database() AND NOT l.granted";
            s.wait_until("all calls wait", || async {
                in_use(&s, "requests") == 3 && s.superuser.query_number(creating).await == 1
            })
            .await;
            for call in &calls {
                call.abort();
            }
            s.wait_until("the calls are cancelled", || async { in_use(&s, "requests") == 0 }).await;
            s.superuser.execute("ROLLBACK").await;
            s.wait_until("the cancelled creation ends", || async { s.app.is_idle() }).await;
            assert_eq!(count_tenants(&s).await, 0);
            s.alice().quota().await.unwrap();
            s.mallory().quota().await.unwrap();
            assert_eq!(count_tenants(&s).await, 2);
        },
    );
}

#[test]
fn denied_call_creates_no_tenant() {
    service_test(|s| async move {
        let webhook = CreateWebhookRequest::default();
        let denied = s.alice().webhooks.clone().create_webhook(webhook).await.unwrap_err();
        assert_eq!(denied.code(), Code::PermissionDenied);
        assert_eq!(list_tenants(&s.ada()).await.unwrap_err().0, Code::PermissionDenied);
        let unknown = send_bytes(&s, &s.alice(), "/strongroom.v1.FileService/Nothing", &[]).await;
        assert_eq!(unknown.code(), Code::Unimplemented);
        assert_eq!(count_tenants(&s).await, 0);
        // In an existing tenant the denial is recorded.
        s.alice().quota().await.unwrap();
        s.alice().webhooks.clone().create_webhook(CreateWebhookRequest::default()).await.unwrap_err();
        let denials = "SELECT count(*) FROM audit_entries WHERE NOT is_allowed";
        assert_eq!(s.superuser.query_number(denials).await, 1);
    });
}

#[test]
fn malformed_message_creates_no_tenant() {
    service_test(|s| async move {
        // Field 1 with two bytes that are not UTF-8.
        let message = [&[0, 0, 0, 0, 4][..], &[0x0A, 0x02, 0xFF, 0xFE]].concat();
        for method in [
            "FileService/GetFile",
            "FileService/UploadFile",
            "ImportService/ImportFiles",
            "EventService/WatchFiles",
            "QuotaService/GetQuota",
        ] {
            let refused = send_bytes(&s, &s.ada(), &format!("/strongroom.v1.{method}"), &message).await;
            assert_ne!(refused.code(), Code::Ok, "{method}");
            assert_eq!(count_tenants(&s).await, 0, "{method}: {refused:?}");
        }
        let no_message = s.ada().send_messages(Vec::new()).await.unwrap_err();
        assert_eq!(reason(&no_message), "UPLOAD_NOT_FINISHED");
        assert_eq!(count_tenants(&s).await, 0);
    });
}
