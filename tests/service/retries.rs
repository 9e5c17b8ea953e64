//! Retried mutations: a request id has one effect and one response, even if other changes happened in
//! between, and other requests cannot reuse it. `upload_retries` covers uploads. And the delay before a retry, which the
//! server sends.

use std::fmt::Debug;

use futures::future::join_all;
use prost_types::FieldMask;
use strongroom::{
    db::audit_entries::AuditAction,
    proto::{
        admin::v1::{
            DeleteTenantRequest, ResumeTenantRequest, SuspendTenantRequest, TenantDeletionPlan,
            UpdateTenantRequest,
        },
        v1::{
            CancelUploadRequest, DeleteWebhookRequest, File, RedeliverWebhookRequest,
            ReleaseLegalHoldRequest, RotateWebhookSecretRequest, UnarchiveFileRequest, UpdateFileRequest,
            UpdateWebhookRequest, Webhook,
        },
    },
    storage::{
        StorageErrorKind,
        flaky::{Fault, Operation, Plan},
    },
};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

use crate::{
    harness::{Service, file_id, reason, service_test, spec},
    webhooks::local_test,
};

/// Returns the request id for a number.
fn request_id(number: u128) -> String {
    uuid::Uuid::from_u128(number).to_string()
}

/// Returns the number of audit entries of an action that was allowed.
async fn audit_count(s: &Service, action: AuditAction) -> i64 {
    let count = "SELECT count(*) FROM audit_entries WHERE is_allowed AND action = ";
    s.superuser.query_number(&format!("{count}{}", action.number())).await
}

fn assert_reused(error: Status) {
    assert_eq!((error.code(), reason(&error).as_str()), (Code::InvalidArgument, "REQUEST_ID_REUSED"));
}

/// Makes a request, makes other changes, and retries the request. Asserts that it had one effect and that
/// another request with its id is rejected.
async fn assert_done_once<R: Clone, A: PartialEq + Debug>(
    s: &Service,
    action: AuditAction,
    [request, other]: [R; 2],
    call: impl AsyncFn(R) -> Result<Response<A>, Status>,
    make_other_changes: impl AsyncFnOnce(),
) {
    let before = audit_count(s, action).await;
    let first = call(request.clone()).await.unwrap().into_inner();
    make_other_changes().await;
    let again = call(request).await.unwrap().into_inner();
    assert_eq!(first, again, "{action:?}");
    assert_reused(call(other).await.unwrap_err());
    assert_eq!(audit_count(s, action).await, before + 1, "{action:?}");
}

#[test]
fn retried_webhook_changes_have_one_effect() {
    service_test(|s| async move {
        let webhooks = s.ada().webhooks;
        let (one, _) = s.create_webhook_to("https://one.example.org/").await;
        let (two, _) = s.create_webhook_to("https://two.example.org/").await;

        let update = |description: &str, request_id: String| UpdateWebhookRequest {
            webhook: Some(Webhook {
                id: one.clone(),
                description: description.to_owned(),
                ..Webhook::default()
            }),
            update_mask: Some(FieldMask { paths: vec!["description".to_owned()] }),
            request_id,
            ..UpdateWebhookRequest::default()
        };
        let call = async |request| webhooks.clone().update_webhook(request).await;
        let requests = [update("b", request_id(1)), update("c", request_id(1))];
        let (count, later) = (audit_count(&s, AuditAction::WebhookUpdate).await, update("d", String::new()));
        assert_done_once(&s, AuditAction::WebhookUpdate, requests, call, async || {}).await;
        call(later).await.unwrap();
        call(update("b", request_id(1))).await.unwrap();
        assert_eq!(s.get_webhook(&one).await.description, "d", "a retry does not revert later changes");
        assert_eq!(audit_count(&s, AuditAction::WebhookUpdate).await, count + 2);

        let rotate = |webhook_id: &String| RotateWebhookSecretRequest {
            webhook_id: webhook_id.clone(),
            request_id: request_id(2),
        };
        let call = async |request| webhooks.clone().rotate_webhook_secret(request).await;
        let requests = [rotate(&one), rotate(&two)];
        assert_done_once(&s, AuditAction::WebhookRotate, requests, call, async || {}).await;

        let delete = |webhook_id: &String| DeleteWebhookRequest {
            webhook_id: webhook_id.clone(),
            request_id: request_id(3),
        };
        let call = async |request| webhooks.clone().delete_webhook(request).await;
        let requests = [delete(&one), delete(&two)];
        assert_done_once(&s, AuditAction::WebhookDelete, requests, call, async || {}).await;
        assert_eq!(s.get_webhook(&two).await.id, two, "the request with a used id deleted nothing");
    });
}

#[test]
fn retried_redelivery_sends_one_delivery() {
    local_test(
        |config| config.attempts_max = 1,
        |s, receiver| async move {
            let (webhook_id, _) = s.create_webhook_to(&receiver.url).await;
            receiver.respond_with(&[418]);
            s.upload_files(&["a"]).await;
            s.deliver_all().await;
            let position = s.list_failed_deliveries(&webhook_id).await.remove(0).position;
            let redeliver = |position: String| RedeliverWebhookRequest {
                webhook_id: webhook_id.clone(),
                position,
                request_id: request_id(1),
            };
            receiver.respond_with(&[200]);
            let requests = [redeliver(position), redeliver("0".repeat(32))];
            let webhooks = s.ada().webhooks;
            let call = async |request| webhooks.clone().redeliver_webhook(request).await;
            let make_other_changes = async || assert_eq!(s.deliver_all().await, 1);
            assert_done_once(&s, AuditAction::WebhookRedeliver, requests, call, make_other_changes).await;
            assert_eq!(
                (s.deliver_all().await, receiver.received_file_ids().len()),
                (0, 2),
                "no third delivery"
            );
        },
    );
}

#[test]
fn retried_tenant_changes_have_one_effect() {
    service_test(|s| async move {
        let (operator, tenant_id) = (s.operator(), s.ada().tenant_id().await);
        let tenants = operator.tenants.clone();

        let update = |ceiling_bytes: i64, request_id: String| UpdateTenantRequest {
            tenant_id: tenant_id.clone(),
            ceiling_bytes,
            update_mask: Some(prost_types::FieldMask { paths: vec!["ceiling_bytes".to_owned()] }),
            request_id,
            ..UpdateTenantRequest::default()
        };
        let call = async |request| tenants.clone().update_tenant(request).await;
        let make_other_changes = async || {
            operator.suspend_tenant(&tenant_id).await.unwrap();
        };
        let requests = [update(1 << 40, request_id(1)), update(1 << 41, request_id(1))];
        assert_done_once(&s, AuditAction::QuotaUpdate, requests, call, make_other_changes).await;

        let resume = ResumeTenantRequest { tenant_id: tenant_id.clone(), request_id: request_id(2) };
        let first = tenants.clone().resume_tenant(resume.clone()).await.unwrap().into_inner();
        operator.suspend_tenant(&tenant_id).await.unwrap();
        let again = tenants.clone().resume_tenant(resume.clone()).await.unwrap().into_inner();
        assert_eq!(first, again);
        assert_eq!(audit_count(&s, AuditAction::TenantResume).await, 1, "the retry does not resume it");
        assert_ne!(operator.get_tenant(&tenant_id).await.unwrap().state, first.tenant.unwrap().state);
        // A resume request names only its tenant, so try the id with another method, and another id with it.
        let suspend = SuspendTenantRequest {
            tenant_id: tenant_id.clone(),
            reason: String::new(),
            request_id: request_id(2),
        };
        assert_reused(tenants.clone().suspend_tenant(suspend).await.unwrap_err());
        let resume = ResumeTenantRequest { request_id: request_id(1), ..resume };
        assert_reused(tenants.clone().resume_tenant(resume).await.unwrap_err());
    });
}

#[test]
fn retried_tenant_deletion_has_one_effect() {
    service_test(|s| async move {
        let (operator, tenant_id) = (s.operator(), s.ada().tenant_id().await);
        let tenants = operator.tenants.clone();
        let delete = |number| DeleteTenantRequest {
            tenant_id: tenant_id.clone(),
            dry_run: false,
            request_id: request_id(number),
        };
        s.upload_files(&["a"]).await;
        let resume = ResumeTenantRequest { tenant_id: tenant_id.clone(), request_id: request_id(1) };
        tenants.clone().resume_tenant(resume).await.unwrap();
        assert_reused(tenants.clone().delete_tenant(delete(1)).await.unwrap_err());
        assert_eq!(audit_count(&s, AuditAction::TenantDelete).await, 0);

        let first = tenants.clone().delete_tenant(delete(2)).await.unwrap().into_inner();
        let again = tenants.clone().delete_tenant(delete(2)).await.unwrap().into_inner();
        assert_eq!(first.plan.unwrap().file_count, 1);
        assert_eq!((again.tenant, again.plan), (first.tenant, Some(TenantDeletionPlan::default())));
        assert_eq!(audit_count(&s, AuditAction::TenantDelete).await, 1);
    });
}

#[test]
fn retried_release_and_unarchive_have_one_effect() {
    service_test(|s| async move {
        let (ada, ids) = (s.ada(), s.upload_files(&["a", "b"]).await);
        ada.set_legal_hold(&ids[0], "a dispute").await.unwrap();
        let release = |reason: &str| ReleaseLegalHoldRequest {
            file_id: ids[0].clone(),
            reason: reason.to_owned(),
            request_id: request_id(1),
        };
        let call = async |request| ada.files.clone().release_legal_hold(request).await;
        let make_other_changes = async || {
            ada.set_legal_hold(&ids[0], "another dispute").await.unwrap();
        };
        let requests = [release("resolved"), release("a mistake")];
        assert_done_once(&s, AuditAction::FileHoldRelease, requests, call, make_other_changes).await;
        assert!(ada.get(&ids[0]).await.unwrap().legal_hold.is_some(), "the later hold remains");

        ada.archive(&ids[1]).await.unwrap();
        let unarchive = |file_id: &String| UnarchiveFileRequest {
            file_id: file_id.clone(),
            request_id: request_id(2),
            ..UnarchiveFileRequest::default()
        };
        let call = async |request| ada.files.clone().unarchive_file(request).await;
        let make_other_changes = async || {
            ada.archive(&ids[1]).await.unwrap();
        };
        let requests = [unarchive(&ids[1]), unarchive(&ids[0])];
        assert_done_once(&s, AuditAction::FileUnarchive, requests, call, make_other_changes).await;
    });
}

#[test]
fn retried_cancel_has_one_effect() {
    service_test(|s| async move {
        let alice = s.alice();
        let (one, two) = (
            alice.create_upload(spec("a")).await.unwrap().id,
            alice.create_upload(spec("b")).await.unwrap().id,
        );
        let cancel = |upload_id: &String| CancelUploadRequest {
            upload_id: upload_id.clone(),
            request_id: request_id(1),
        };
        let call = async |request| alice.uploads.clone().cancel_upload(request).await;
        let requests = [cancel(&one), cancel(&two)];
        assert_done_once(&s, AuditAction::UploadCancel, requests, call, async || {}).await;
        assert_eq!(
            alice.list_upload_ids(10).await,
            [two.as_str()],
            "the request with a used id cancelled nothing"
        );
        alice.cancel_upload(&two).await.unwrap();
    });
}

#[test]
fn concurrent_requests_with_one_id_have_one_effect() {
    service_test(|s| async move {
        let (alice, file) = (s.alice(), s.upload_files(&["a"]).await.remove(0));
        for number in 1..=3 {
            let request = UpdateFileRequest {
                file: Some(File { id: file.clone(), name: format!("b{number}"), ..File::default() }),
                update_mask: Some(FieldMask { paths: vec!["name".to_owned()] }),
                request_id: request_id(number),
                ..UpdateFileRequest::default()
            };
            let call = |mut files: strongroom::proto::v1::file_service_client::FileServiceClient<_>| {
                let request = request.clone();
                async move { files.update_file(request).await }
            };
            let mut responses = Vec::new();
            for outcome in join_all((0..12).map(|_| call(alice.files.clone()))).await {
                match outcome {
                    Ok(response) => responses.push(response.into_inner()),
                    Err(error) => {
                        let actual = (error.code(), reason(&error));
                        assert_eq!(actual, (Code::Aborted, "REQUEST_IN_PROGRESS".to_owned()));
                        assert!(error.get_details_retry_info().is_some());
                    }
                }
            }
            assert!(
                !responses.is_empty() && responses.iter().all(|response| *response == responses[0]),
                "{responses:?}"
            );
            assert_eq!(responses[0].file.as_ref().unwrap().name, format!("b{number}"));
            let number = i64::try_from(number).unwrap();
            assert_eq!(audit_count(&s, AuditAction::FileUpdate).await, number);
            assert_eq!(
                s.superuser
                    .query_number("SELECT count(*) FROM events WHERE kind = {event_kind.file_updated}")
                    .await,
                number
            );
        }
    });
}

#[test]
fn retry_delays_are_sent_to_grpc_libraries() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = file_id(&alice.upload(spec("a"), b"a").await.unwrap());
        let fail = |operation| {
            let fault = Fault::Before(StorageErrorKind::Unavailable);
            s.faults.set_plan(Plan::new().with_fault(operation, 1, fault));
        };
        fail(Operation::Put);
        let of_upload = alice.upload(spec("b"), b"b").await.unwrap_err();
        fail(Operation::Get);
        let of_download = alice.read(&id).await.unwrap_err();
        let pushback = |error: &Status| error.metadata().get("grpc-retry-pushback-ms").cloned();
        for error in [of_upload, of_download] {
            assert_eq!(reason(&error), "STORAGE_UNAVAILABLE");
            let delay = error.get_details_retry_info().unwrap().retry_delay.unwrap();
            let sent = pushback(&error).unwrap();
            assert_eq!(sent.to_str().unwrap(), delay.as_millis().to_string());
        }
        s.faults.set_plan(Plan::new());
        let rejected = alice.upload(spec(""), b"b").await.unwrap_err();
        assert_eq!((reason(&rejected).as_str(), pushback(&rejected)), ("INVALID_FIELD", None));
    });
}
