//! Trust belongs to an issuer: who may name operators, in which tenants its callers act, and when a tenant is
//! created.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use strongroom::{
    config::{Config, auth::IssuerConfig},
    domain::clock::Clock,
    proto::{
        admin::v1::ListTenantsRequest,
        v1::{CreateWebhookRequest, ListFilesRequest, UploadSpec, Visibility},
    },
};
use tonic::{Code, Status, body::Body};
use tower::Service as _;

use crate::harness::{
    Caller, Identity, Service, claims, default_key, file_id, pattern, reason, service_test,
    service_test_with, spec,
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
async fn send_bytes(s: &Service, caller: &Caller, path: &str, body: &[u8]) -> Status {
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
