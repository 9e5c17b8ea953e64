//! Requests of webhook endpoints to the service: to wait, or to send no more messages.

use chrono::Duration;
use strongroom::{
    domain::clock::Clock,
    proto::v1::{FileEventKind as Kind, WatchFilesRequest, WatchFilter, Webhook, WebhookState},
};
use tokio::net::TcpSocket;

use crate::{
    harness::{Caller, Receiver, Service, Watcher},
    webhooks::local_test,
};

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

async fn watch_kinds(caller: &Caller, kinds: &[Kind]) -> Watcher {
    let kinds = kinds.iter().map(|kind| i32::from(*kind)).collect();
    let filter = Some(WatchFilter { kinds, ..WatchFilter::default() });
    caller.watch_files_with(WatchFilesRequest { filter, ..WatchFilesRequest::default() }).await.unwrap()
}

#[test]
fn disabled_webhook_is_an_event_for_admins_who_ask_for_it() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let observer = Receiver::start().await;
            let kinds = vec![Kind::WebhookDisabled.into()];
            s.create_webhook(Webhook { url: observer.url.clone(), kinds, ..Webhook::default() })
                .await
                .unwrap();
            let (id, _) = s.create_webhook_to(&receiver.url).await;
            let mut admin = watch_kinds(&s.ada(), &[Kind::WebhookDisabled]).await;
            let mut others = [
                s.ada().watch_files().await,
                watch_kinds(&s.alice(), &[Kind::WebhookDisabled, Kind::Created]).await,
            ];
            receiver.respond_with(&[410]);
            let first = s.upload_files(&["a"]).await.remove(0);
            assert_eq!(s.deliver_all().await, 0);
            let event = admin.next_event().await;
            assert_eq!(
                (event.kind(), event.webhook_id.as_str(), event.file_id.as_str(), event.version),
                (Kind::WebhookDisabled, id.as_str(), "", 0)
            );
            assert_eq!(event.file, None);

            assert_eq!(s.deliver_all().await, 1);
            let messages = observer.messages();
            let message = messages[0].json();
            assert_eq!(message["type"], "webhook.disabled");
            assert_eq!(message["data"]["webhook_id"], id.as_str());
            assert_eq!(message["data"].get("file_id"), None);

            let later = s.upload_files(&["b"]).await.remove(0);
            for watcher in &mut others {
                assert_eq!(watcher.next_kind_and_file().await, (Kind::Created, first.clone()));
                assert_eq!(watcher.next_kind_and_file().await, (Kind::Created, later.clone()));
            }
            s.set_webhook_state(&id, WebhookState::Active).await;
            assert_eq!(s.deliver_all().await, 2, "files only");
            assert_eq!(receiver.received_file_ids()[1..], [first, later]);
        },
    );
}

#[test]
fn undelivered_event_of_a_webhook_becomes_a_dead_letter() {
    local_test(
        |config| config.attempts_max = 1,
        |s, receiver| async move {
            let observer = Receiver::start().await;
            let kinds = vec![Kind::WebhookDisabled.into()];
            let observing = Webhook { url: observer.url.clone(), kinds, ..Webhook::default() };
            let (observing, _) = s.create_webhook(observing).await.unwrap();
            let (id, _) = s.create_webhook_to(&receiver.url).await;
            receiver.respond_with(&[410]);
            s.upload_files(&["a"]).await;
            assert_eq!(s.deliver_all().await, 0);
            observer.respond_with(&[500]);
            assert_eq!(s.deliver_all().await, 1);
            let [dead] = s.list_failed_deliveries(&observing).await.try_into().unwrap();
            assert_eq!(
                (dead.kind(), dead.webhook_id.as_str(), dead.file_id.as_str()),
                (Kind::WebhookDisabled, id.as_str(), "")
            );
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
            // A bound socket that does not listen refuses connections, and keeps others from its port.
            let closed = TcpSocket::new_v4().unwrap();
            closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = closed.local_addr().unwrap();
            let (id, _) = s.create_webhook_to(&format!("http://{address}/")).await;
            s.upload_files(&["a"]).await;
            assert_eq!(s.deliver_all().await, 0);
            assert_eq!(s.get_webhook(&id).await.last_error, "connection refused");
        },
    );
}
