//! Security and limits of webhooks: private addresses, secrets, redirects, counts and pages.

use chrono::Duration;
use strongroom::proto::v1::{
    CreateWebhookRequest, ListWebhooksRequest, RotateWebhookSecretRequest, UpdateWebhookRequest, Webhook,
    WebhookState,
};
use tonic::Code;

use crate::{
    harness::{Receiver, reason, service_test, violated_fields},
    webhooks::local_test,
};

const REQUEST: &str = "0193a7a0-0000-7000-8000-0000000000aa";

#[test]
fn private_addresses_are_refused() {
    service_test(|s| async move {
        let receiver = Receiver::start().await;
        for url in
            ["https://127.0.0.1/", "https://[::ffff:169.254.169.254]/", "http://example.org/", "nowhere"]
        {
            let error =
                s.create_webhook(Webhook { url: url.to_owned(), ..Webhook::default() }).await.unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{url}");
            assert_eq!(violated_fields(&error), ["webhook.url"], "{url}");
        }
        // A host name that resolves to a private address is refused after the lookup.
        let private_url = receiver.url.replace("http://127.0.0.1", "https://localhost");
        let (id, _) = s.create_webhook_to(&private_url).await;
        s.upload_files(&["a"]).await;
        assert_eq!(s.deliver_all().await, 0);
        let shown = s.get_webhook(&id).await;
        assert_eq!(shown.failed_attempt_count, 1);
        assert!(shown.last_error.contains("private network"), "{}", shown.last_error);
        assert!(receiver.messages().is_empty());
    });
}

#[test]
fn webhook_redirects_are_not_followed() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let target = Receiver::start().await;
            let (id, _) = s.create_webhook_to(&receiver.url).await;
            receiver.redirect_next_to(&target.url);
            s.upload_files(&["a"]).await;
            assert_eq!(s.deliver_all().await, 0);
            assert_eq!((receiver.received_file_ids().len(), target.received_file_ids().len()), (1, 0));
            assert!(s.get_webhook(&id).await.last_error.contains("307"));
        },
    );
}

#[test]
fn webhook_secret_is_returned_once_and_stored_sealed() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let webhook = Webhook { url: receiver.url.clone(), ..Webhook::default() };
            let request = CreateWebhookRequest { webhook: Some(webhook), request_id: REQUEST.to_owned() };
            let first = s.ada().webhooks.create_webhook(request.clone()).await.unwrap().into_inner();
            let again = s.ada().webhooks.create_webhook(request).await.unwrap().into_inner();
            assert_eq!(first, again, "a retry returns the same response and creates no second webhook");
            assert!(first.secret.starts_with("whsec_"));
            let all =
                s.ada().webhooks.list_webhooks(ListWebhooksRequest::default()).await.unwrap().into_inner();
            assert_eq!(all.webhooks.len(), 1);
            let stored = s
                .superuser
                .query_texts(
                    "SELECT to_jsonb(w)::text FROM webhooks w UNION ALL SELECT response::text FROM idempotency_keys
                     UNION ALL SELECT details::text FROM audit_entries",
                )
                .await;
            let secret = first.secret.trim_start_matches("whsec_");
            assert!(stored.len() >= 3 && stored.iter().all(|row| !row.contains(secret)));
        },
    );
}

#[test]
fn unreadable_secret_keeps_state_and_position() {
    local_test(
        |_| {},
        |s, receiver| async move {
            s.allow_logged_errors();
            let (id, _) = s.create_webhook_to(&receiver.url).await;
            let files = s.upload_files(&["a"]).await;
            s.superuser.execute("UPDATE webhooks SET sealed_secret = 'x' || sealed_secret").await;
            assert_eq!(s.deliver_all().await, 0);
            assert_eq!(s.get_webhook(&id).await.state(), WebhookState::Active);
            s.superuser.execute("UPDATE webhooks SET sealed_secret = substr(sealed_secret, 2)").await;
            assert_eq!(s.deliver_all().await, 0, "the retry is not due yet");
            s.clock.advance(Duration::minutes(1));
            assert_eq!(s.deliver_all().await, 1);
            assert_eq!(receiver.received_file_ids(), files);
        },
    );
}

#[test]
fn audit_log_contains_only_origin_of_webhook_url() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let (id, _) = s.create_webhook_to(&format!("{}/hunter2?token=hunter2", receiver.url)).await;
            let change = Webhook { id, url: format!("{}/hunter2", receiver.url), ..Webhook::default() };
            let request = UpdateWebhookRequest {
                webhook: Some(change),
                update_mask: Some(prost_types::FieldMask { paths: vec!["url".to_owned()] }),
                ..UpdateWebhookRequest::default()
            };
            s.ada().webhooks.update_webhook(request).await.unwrap();
            let rows = s
                .superuser
                .query_texts("SELECT details::text FROM audit_entries WHERE details ? 'webhook_id'")
                .await;
            let origin = receiver.url.trim_end_matches("/hook");
            assert!(rows.len() == 2 && rows.iter().any(|row| row.contains(origin)), "{rows:?}");
            assert!(rows.iter().all(|row| !row.contains("hunter2")), "{rows:?}");
        },
    );
}

#[test]
fn both_secrets_sign_for_a_day_after_rotation() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let (id, before) = s.create_webhook_to(&receiver.url).await;
            let request = RotateWebhookSecretRequest { webhook_id: id, request_id: String::new() };
            let rotated = s.ada().webhooks.rotate_webhook_secret(request).await.unwrap().into_inner();
            for hours in [23, 2] {
                s.clock.advance(Duration::hours(hours));
                s.upload_files(&["a"]).await;
                assert_eq!(s.deliver_all().await, 1);
            }
            let received = receiver.messages();
            assert!(received.iter().all(|message| message.is_signed_with(&rotated.secret)));
            assert!(received[0].is_signed_with(&before) && !received[1].is_signed_with(&before));
        },
    );
}

#[test]
fn rejects_webhook_above_tenant_limit() {
    local_test(
        |config| config.per_tenant_max = 1,
        |s, receiver| async move {
            s.create_webhook_to(&receiver.url).await;
            let more = Webhook { url: receiver.url.clone(), ..Webhook::default() };
            let error = s.create_webhook(more).await.unwrap_err();
            assert_eq!(
                (error.code(), reason(&error)),
                (Code::FailedPrecondition, "WEBHOOK_LIMIT".to_owned())
            );
        },
    );
}

#[test]
fn concurrent_webhook_creation_respects_limit() {
    local_test(
        |config| config.per_tenant_max = 2,
        |s, receiver| async move {
            let create = || s.create_webhook(Webhook { url: receiver.url.clone(), ..Webhook::default() });
            let results = futures::future::join_all((0..12).map(|_| create())).await;
            assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 2);
            assert_eq!(s.superuser.query_number("SELECT count(*) FROM webhooks").await, 2);
        },
    );
}

#[test]
fn webhooks_are_listed_in_pages_oldest_first() {
    service_test(|s| async move {
        let mut created = Vec::new();
        for n in 0..5 {
            created.push(s.create_webhook_to(&format!("https://hooks{n}.example.org/")).await.0);
        }
        let list = async |page_size, page_token| {
            s.ada().webhooks.list_webhooks(ListWebhooksRequest { page_size, page_token }).await
        };
        let (mut listed, mut page_token) = (Vec::new(), String::new());
        for left in [5_usize, 3, 1] {
            let page = list(2, page_token).await.unwrap().into_inner();
            assert_eq!((page.webhooks.len(), page.next_page_token.is_empty()), (left.min(2), left < 2));
            listed.extend(page.webhooks.into_iter().map(|webhook| webhook.id));
            page_token = page.next_page_token;
        }
        assert_eq!(listed, created);
        assert_eq!(list(0, String::new()).await.unwrap().into_inner().webhooks.len(), 5);
        let negative = list(-1, String::new()).await.unwrap_err();
        assert_eq!(violated_fields(&negative), ["page_size"]);
        let foreign = list(0, "nonsense".to_owned()).await.unwrap_err();
        assert_eq!(reason(&foreign), "PAGE_TOKEN_INVALID");
    });
}
