//! A change that is asked for again under its request id has one answer and one effect, whatever has happened since; and the
//! id is refused to everything else. Uploads have a place of their own, `upload_retries`.

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
};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

use crate::{
    harness::{Service, reason, service_test, spec},
    webhooks::local_test,
};

/// The request id of this number.
fn id(number: u128) -> String {
    uuid::Uuid::from_u128(number).to_string()
}

/// How often something was done, as the audit log tells.
async fn done(s: &Service, action: AuditAction) -> i64 {
    let count = "SELECT count(*) FROM audit_entries WHERE is_allowed AND action = ";
    s.owner.number(&format!("{count}{}", action.number())).await
}

fn is_reused(refused: Status) {
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "REQUEST_ID_REUSED"));
}

/// Asks, lets something happen, asks again, and asks for something else under the same id.
async fn is_done_once<R: Clone, A: PartialEq + Debug>(
    s: &Service,
    action: AuditAction,
    [request, other]: [R; 2],
    ask: impl AsyncFn(R) -> Result<Response<A>, Status>,
    meanwhile: impl AsyncFnOnce(),
) {
    let before = done(s, action).await;
    let first = ask(request.clone()).await.unwrap().into_inner();
    meanwhile().await;
    let again = ask(request).await.unwrap().into_inner();
    assert_eq!(first, again, "{action:?}");
    is_reused(ask(other).await.unwrap_err());
    assert_eq!(done(s, action).await, before + 1, "{action:?}");
}

#[test]
fn changes_of_a_webhook() {
    service_test(|s| async move {
        let webhooks = s.ada().webhooks;
        let (one, _) = s.webhook_to("https://one.example.org/").await;
        let (two, _) = s.webhook_to("https://two.example.org/").await;

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
        let ask = async |request| webhooks.clone().update_webhook(request).await;
        let requests = [update("b", id(1)), update("c", id(1))];
        let (first, elsewise) = (done(&s, AuditAction::WebhookUpdate).await, update("d", String::new()));
        is_done_once(&s, AuditAction::WebhookUpdate, requests, ask, async || {}).await;
        ask(elsewise).await.unwrap();
        ask(update("b", id(1))).await.unwrap();
        assert_eq!(s.shown(&one).await.description, "d", "a retry does not undo what came later");
        assert_eq!(done(&s, AuditAction::WebhookUpdate).await, first + 2);

        let rotate = |webhook_id: &String| RotateWebhookSecretRequest {
            webhook_id: webhook_id.clone(),
            request_id: id(2),
        };
        let ask = async |request| webhooks.clone().rotate_webhook_secret(request).await;
        let requests = [rotate(&one), rotate(&two)];
        is_done_once(&s, AuditAction::WebhookRotate, requests, ask, async || {}).await;

        let delete =
            |webhook_id: &String| DeleteWebhookRequest { webhook_id: webhook_id.clone(), request_id: id(3) };
        let ask = async |request| webhooks.clone().delete_webhook(request).await;
        let requests = [delete(&one), delete(&two)];
        is_done_once(&s, AuditAction::WebhookDelete, requests, ask, async || {}).await;
        assert_eq!(s.shown(&two).await.id, two, "the id was refused, and nothing was removed");
    });
}

#[test]
fn a_dead_letter_that_is_sent_again() {
    local_test(
        |config| config.attempts_max = 1,
        |s, receiver| async move {
            let (webhook_id, _) = s.webhook_to(&receiver.url).await;
            receiver.answer(&[418]);
            s.uploads(&["a"]).await;
            s.delivered().await;
            let position = s.failed(&webhook_id).await.remove(0).position;
            let redeliver = |position: String| RedeliverWebhookRequest {
                webhook_id: webhook_id.clone(),
                position,
                request_id: id(1),
            };
            receiver.answer(&[200]);
            let requests = [redeliver(position), redeliver("0".repeat(32))];
            let webhooks = s.ada().webhooks;
            let ask = async |request| webhooks.clone().redeliver_webhook(request).await;
            let meanwhile = async || assert_eq!(s.delivered().await, 1);
            is_done_once(&s, AuditAction::WebhookRedeliver, requests, ask, meanwhile).await;
            assert_eq!((s.delivered().await, receiver.files().len()), (0, 2), "it is not sent a third time");
        },
    );
}

#[test]
fn changes_of_a_tenant() {
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
        let ask = async |request| tenants.clone().update_tenant(request).await;
        let meanwhile = async || {
            operator.suspend(&tenant_id).await.unwrap();
        };
        let requests = [update(1 << 40, id(1)), update(1 << 41, id(1))];
        is_done_once(&s, AuditAction::QuotaUpdate, requests, ask, meanwhile).await;

        let resume = ResumeTenantRequest { tenant_id: tenant_id.clone(), request_id: id(2) };
        let first = tenants.clone().resume_tenant(resume.clone()).await.unwrap().into_inner();
        operator.suspend(&tenant_id).await.unwrap();
        let again = tenants.clone().resume_tenant(resume.clone()).await.unwrap().into_inner();
        assert_eq!(first, again);
        assert_eq!(done(&s, AuditAction::TenantResume).await, 1, "it stays suspended");
        assert_ne!(operator.tenant(&tenant_id).await.unwrap().state, first.tenant.unwrap().state);
        // It says no more than which tenant: something else is another change of it.
        let suspend =
            SuspendTenantRequest { tenant_id: tenant_id.clone(), reason: String::new(), request_id: id(2) };
        is_reused(tenants.clone().suspend_tenant(suspend).await.unwrap_err());
        let resume = ResumeTenantRequest { request_id: id(1), ..resume };
        is_reused(tenants.clone().resume_tenant(resume).await.unwrap_err());
    });
}

#[test]
fn the_deletion_of_a_tenant() {
    service_test(|s| async move {
        let (operator, tenant_id) = (s.operator(), s.ada().tenant_id().await);
        let tenants = operator.tenants.clone();
        let delete = |number| DeleteTenantRequest {
            tenant_id: tenant_id.clone(),
            dry_run: false,
            request_id: id(number),
        };
        s.uploads(&["a"]).await;
        let resume = ResumeTenantRequest { tenant_id: tenant_id.clone(), request_id: id(1) };
        tenants.clone().resume_tenant(resume).await.unwrap();
        is_reused(tenants.clone().delete_tenant(delete(1)).await.unwrap_err());
        assert_eq!(done(&s, AuditAction::TenantDelete).await, 0);

        let first = tenants.clone().delete_tenant(delete(2)).await.unwrap().into_inner();
        let again = tenants.clone().delete_tenant(delete(2)).await.unwrap().into_inner();
        assert_eq!(first.plan.unwrap().file_count, 1);
        assert_eq!((again.tenant, again.plan), (first.tenant, Some(TenantDeletionPlan::default())));
        assert_eq!(done(&s, AuditAction::TenantDelete).await, 1);
    });
}

#[test]
fn a_hold_that_is_released_and_a_file_that_is_taken_out_of_the_archive() {
    service_test(|s| async move {
        let (ada, ids) = (s.ada(), s.uploads(&["a", "b"]).await);
        ada.hold(&ids[0], "a dispute").await.unwrap();
        let release = |reason: &str| ReleaseLegalHoldRequest {
            file_id: ids[0].clone(),
            reason: reason.to_owned(),
            request_id: id(1),
        };
        let ask = async |request| ada.files.clone().release_legal_hold(request).await;
        let meanwhile = async || {
            ada.hold(&ids[0], "another dispute").await.unwrap();
        };
        let requests = [release("settled"), release("a mistake")];
        is_done_once(&s, AuditAction::FileHoldRelease, requests, ask, meanwhile).await;
        assert!(ada.get(&ids[0]).await.unwrap().legal_hold.is_some(), "the later hold holds");

        ada.archive(&ids[1]).await.unwrap();
        let unarchive = |file_id: &String| UnarchiveFileRequest {
            file_id: file_id.clone(),
            request_id: id(2),
            ..UnarchiveFileRequest::default()
        };
        let ask = async |request| ada.files.clone().unarchive_file(request).await;
        let meanwhile = async || {
            ada.archive(&ids[1]).await.unwrap();
        };
        let requests = [unarchive(&ids[1]), unarchive(&ids[0])];
        is_done_once(&s, AuditAction::FileUnarchive, requests, ask, meanwhile).await;
    });
}

#[test]
fn an_upload_that_is_given_up() {
    service_test(|s| async move {
        let alice = s.alice();
        let (one, two) =
            (alice.create(spec("a")).await.unwrap().id, alice.create(spec("b")).await.unwrap().id);
        let cancel =
            |upload_id: &String| CancelUploadRequest { upload_id: upload_id.clone(), request_id: id(1) };
        let ask = async |request| alice.uploads.clone().cancel_upload(request).await;
        let requests = [cancel(&one), cancel(&two)];
        is_done_once(&s, AuditAction::UploadCancel, requests, ask, async || {}).await;
        assert_eq!(alice.uploads(10).await, [two.as_str()], "the id was refused, and the other goes on");
        alice.cancel(&two).await.unwrap();
    });
}

#[test]
fn of_many_at_once_with_the_same_request_id_one_has_an_effect() {
    service_test(|s| async move {
        let (alice, file) = (s.alice(), s.uploads(&["a"]).await.remove(0));
        for number in 1..=3 {
            let request = UpdateFileRequest {
                file: Some(File { id: file.clone(), name: format!("b{number}"), ..File::default() }),
                update_mask: Some(FieldMask { paths: vec!["name".to_owned()] }),
                request_id: id(number),
                ..UpdateFileRequest::default()
            };
            let ask = |mut files: strongroom::proto::v1::file_service_client::FileServiceClient<_>| {
                let request = request.clone();
                async move { files.update_file(request).await }
            };
            let mut answers = Vec::new();
            for outcome in join_all((0..12).map(|_| ask(alice.files.clone()))).await {
                match outcome {
                    Ok(answer) => answers.push(answer.into_inner()),
                    Err(refused) => {
                        let got = (refused.code(), reason(&refused));
                        assert_eq!(got, (Code::Aborted, "REQUEST_IN_PROGRESS".to_owned()));
                        assert!(refused.get_details_retry_info().is_some());
                    }
                }
            }
            assert!(!answers.is_empty() && answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
            assert_eq!(answers[0].file.as_ref().unwrap().name, format!("b{number}"));
            let number = i64::try_from(number).unwrap();
            assert_eq!(done(&s, AuditAction::FileUpdate).await, number);
            assert_eq!(s.owner.number("SELECT count(*) FROM events WHERE kind = 7").await, number);
        }
    });
}
