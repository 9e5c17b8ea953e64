//! Requests of webhook endpoints to the service: to wait, or to send no more messages.

use chrono::Duration;
use strongroom::{domain::clock::Clock, proto::v1::WebhookState};
use tokio::net::TcpListener;

use crate::{harness::Service, webhooks::local_test};

/// Returns the seconds until the next attempt.
async fn pause_seconds(s: &Service, id: &str) -> i64 {
    let next = s.get_webhook(id).await.next_attempt_time.unwrap();
    next.seconds - s.clock.now().timestamp()
}

#[test]
fn endpoint_that_is_gone_is_disabled_and_audited() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let (id, _) = s.create_webhook_to(&receiver.url).await;
            receiver.respond_with(&[410]);
            let files = s.upload_files(&["a", "b"]).await;
            assert_eq!(s.deliver_all().await, 0);
            let shown = s.get_webhook(&id).await;
            assert_eq!(shown.state(), WebhookState::Disabled);
            assert!(shown.state_reason.contains("410"), "{}", shown.state_reason);
            assert!(shown.last_error.contains("410"), "{}", shown.last_error);
            s.clock.advance(Duration::hours(2));
            assert_eq!(s.deliver_all().await, 0, "nothing is sent any more");
            assert_eq!(receiver.messages().len(), 1);
            let entries = "SELECT details ->> 'webhook_id' FROM audit_entries
                           WHERE action = {audit_action.webhook_disable}";
            assert_eq!(s.superuser.query_texts(entries).await, [id.as_str()]);

            s.set_webhook_state(&id, WebhookState::Active).await;
            assert_eq!(s.deliver_all().await, 2, "it continues where it stopped");
            assert_eq!(receiver.received_file_ids()[1..], files);
        },
    );
}

#[test]
fn retry_after_is_honoured_up_to_a_limit() {
    local_test(
        |config| config.retry_after_max_seconds = 600,
        |s, receiver| async move {
            let (id, _) = s.create_webhook_to(&receiver.url).await;
            s.upload_files(&["a"]).await;
            for (status, sent, seconds) in [
                (429, "120".to_owned(), 120..=120),
                (503, (s.clock.now() + Duration::seconds(420)).to_rfc2822(), 295..=305),
                (429, "86400".to_owned(), 600..=600),
                // Shorter than the pause between two attempts, or not meant for this status.
                (429, "1".to_owned(), 40..=80),
                (500, "400".to_owned(), 80..=160),
            ] {
                receiver.retry_next_after(status, &sent);
                assert_eq!(s.deliver_all().await, 0);
                let pause = pause_seconds(&s, &id).await;
                assert!(seconds.contains(&pause), "{status} {sent}: {pause}");
                s.clock.advance(Duration::seconds(pause - 1));
                let before = receiver.messages().len();
                assert_eq!((s.deliver_all().await, receiver.messages().len()), (0, before), "not due yet");
                s.clock.advance(Duration::seconds(2));
            }
            assert_eq!(s.deliver_all().await, 1);
        },
    );
}

#[test]
fn error_of_unreachable_endpoint_names_no_address() {
    local_test(
        |_| {},
        |s, _| async move {
            let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
            let (id, _) = s.create_webhook_to(&format!("http://{closed}/")).await;
            s.upload_files(&["a"]).await;
            assert_eq!(s.deliver_all().await, 0);
            assert_eq!(s.get_webhook(&id).await.last_error, "connection refused");
        },
    );
}
