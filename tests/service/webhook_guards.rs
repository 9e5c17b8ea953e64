//! What webhooks guard: the network behind the service, and their secrets.

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
fn nothing_is_sent_into_the_network_behind_the_service() {
    service_test(|s| async move {
        let receiver = Receiver::start().await;
        for url in
            ["https://127.0.0.1/", "https://[::ffff:169.254.169.254]/", "http://example.org/", "nowhere"]
        {
            let refused = s.webhook(Webhook { url: url.to_owned(), ..Webhook::default() }).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{url}");
            assert_eq!(violated_fields(&refused), ["webhook.url"], "{url}");
        }
        // A name that leads inside is found out when it is looked up.
        let inside = receiver.url.replace("http://127.0.0.1", "https://localhost");
        let (id, _) = s.webhook_to(&inside).await;
        s.uploads(&["a"]).await;
        assert_eq!(s.delivered().await, 0);
        let shown = s.shown(&id).await;
        assert_eq!(shown.failed_attempt_count, 1);
        assert!(shown.last_error.contains("private network"), "{}", shown.last_error);
        assert!(receiver.received().is_empty());
    });
}

#[test]
fn redirects_are_not_followed() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let elsewhere = Receiver::start().await;
            let (id, _) = s.webhook_to(&receiver.url).await;
            receiver.redirect_to(&elsewhere.url);
            s.uploads(&["a"]).await;
            assert_eq!(s.delivered().await, 0);
            assert_eq!((receiver.files().len(), elsewhere.files().len()), (1, 0));
            assert!(s.shown(&id).await.last_error.contains("307"));
        },
    );
}

#[test]
fn a_secret_is_shown_once_and_stored_sealed() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let webhook = Webhook { url: receiver.url.clone(), ..Webhook::default() };
            let request = CreateWebhookRequest { webhook: Some(webhook), request_id: REQUEST.to_owned() };
            let first = s.ada().webhooks.create_webhook(request.clone()).await.unwrap().into_inner();
            let again = s.ada().webhooks.create_webhook(request).await.unwrap().into_inner();
            assert_eq!(first, again, "a retry is the same answer, and one endpoint");
            assert!(first.secret.starts_with("whsec_"));
            let all =
                s.ada().webhooks.list_webhooks(ListWebhooksRequest::default()).await.unwrap().into_inner();
            assert_eq!(all.webhooks.len(), 1);
            let stored = s
                .owner
                .texts(
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
fn an_endpoint_whose_secret_cannot_be_opened_here_keeps_its_state_and_its_place() {
    local_test(
        |_| {},
        |s, receiver| async move {
            s.expect_errors_in_the_log();
            let (id, _) = s.webhook_to(&receiver.url).await;
            let files = s.uploads(&["a"]).await;
            s.owner.run("UPDATE webhooks SET sealed_secret = 'x' || sealed_secret").await;
            assert_eq!(s.delivered().await, 0);
            assert_eq!(s.shown(&id).await.state(), WebhookState::Active);
            s.owner.run("UPDATE webhooks SET sealed_secret = substr(sealed_secret, 2)").await;
            assert_eq!(s.delivered().await, 0, "it rests a while");
            s.clock.advance(Duration::minutes(1));
            assert_eq!(s.delivered().await, 1);
            assert_eq!(receiver.files(), files);
        },
    );
}

#[test]
fn the_audit_trail_names_where_a_webhook_goes_and_nothing_behind_that() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let (id, _) = s.webhook_to(&format!("{}/hunter2?token=hunter2", receiver.url)).await;
            let change = Webhook { id, url: format!("{}/hunter2", receiver.url), ..Webhook::default() };
            let request = UpdateWebhookRequest {
                webhook: Some(change),
                update_mask: Some(prost_types::FieldMask { paths: vec!["url".to_owned()] }),
                ..UpdateWebhookRequest::default()
            };
            s.ada().webhooks.update_webhook(request).await.unwrap();
            let rows =
                s.owner.texts("SELECT details::text FROM audit_entries WHERE details ? 'webhook_id'").await;
            let origin = receiver.url.trim_end_matches("/hook");
            assert!(rows.len() == 2 && rows.iter().any(|row| row.contains(origin)), "{rows:?}");
            assert!(rows.iter().all(|row| !row.contains("hunter2")), "{rows:?}");
        },
    );
}

#[test]
fn for_a_day_after_a_rotation_both_secrets_sign() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let (id, before) = s.webhook_to(&receiver.url).await;
            let request = RotateWebhookSecretRequest { webhook_id: id, request_id: String::new() };
            let rotated = s.ada().webhooks.rotate_webhook_secret(request).await.unwrap().into_inner();
            for hours in [23, 2] {
                s.clock.advance(Duration::hours(hours));
                s.uploads(&["a"]).await;
                assert_eq!(s.delivered().await, 1);
            }
            let received = receiver.received();
            assert!(received.iter().all(|message| message.is_signed_with(&rotated.secret)));
            assert!(received[0].is_signed_with(&before) && !received[1].is_signed_with(&before));
        },
    );
}

#[test]
fn a_tenant_has_so_many_webhooks_and_no_more() {
    local_test(
        |config| config.per_tenant_max = 1,
        |s, receiver| async move {
            s.webhook_to(&receiver.url).await;
            let more = Webhook { url: receiver.url.clone(), ..Webhook::default() };
            let refused = s.webhook(more).await.unwrap_err();
            assert_eq!(
                (refused.code(), reason(&refused)),
                (Code::FailedPrecondition, "WEBHOOK_LIMIT".to_owned())
            );
        },
    );
}

#[test]
fn many_who_make_webhooks_at_once_do_not_pass_the_limit() {
    local_test(
        |config| config.per_tenant_max = 2,
        |s, receiver| async move {
            let make = || s.webhook(Webhook { url: receiver.url.clone(), ..Webhook::default() });
            let made = futures::future::join_all((0..12).map(|_| make())).await;
            assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 2);
            assert_eq!(s.owner.number("SELECT count(*) FROM webhooks").await, 2);
        },
    );
}

#[test]
fn webhooks_are_listed_in_pages_oldest_first() {
    service_test(|s| async move {
        let mut made = Vec::new();
        for n in 0..5 {
            made.push(s.webhook_to(&format!("https://hooks{n}.example.org/")).await.0);
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
        assert_eq!(listed, made);
        assert_eq!(list(0, String::new()).await.unwrap().into_inner().webhooks.len(), 5);
        let negative = list(-1, String::new()).await.unwrap_err();
        assert_eq!(violated_fields(&negative), ["page_size"]);
        let foreign = list(0, "nonsense".to_owned()).await.unwrap_err();
        assert_eq!(reason(&foreign), "PAGE_TOKEN_INVALID");
    });
}
