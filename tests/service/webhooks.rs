//! Webhooks: signatures, order, retries, dead letters and states.

use chrono::Duration;
use strongroom::{
    app::webhooks::deliver::deliver_webhooks,
    domain::clock::Clock,
    proto::v1::{
        CreateWebhookRequest, FileEventKind as Kind, GetWebhookRequest, ListWebhookDeliveriesRequest,
        RedeliverWebhookRequest, UpdateWebhookRequest, Webhook, WebhookDelivery,
        WebhookDeliveryState as Delivery, WebhookState as State,
    },
};
use tonic::Status;

use crate::harness::{Receiver, Service, file_id, service_test_with, spec};

/// Runs a test with an endpoint on a private address.
pub(crate) fn local_test<F, Fut>(configure: impl FnOnce(&mut strongroom::config::WebhooksConfig), test: F)
where
    F: FnOnce(Service, Receiver) -> Fut,
    Fut: Future<Output = ()>,
{
    service_test_with(
        |config| {
            config.webhooks.allow_private_addresses = true;
            // Only tests of slow endpoints need one that is reached.
            config.webhooks.timeout_seconds = 60;
            configure(&mut config.webhooks);
        },
        |s| async move {
            let receiver = Receiver::start().await;
            test(s, receiver).await;
        },
    );
}

impl Service {
    /// Creates a webhook. Returns its id and secret.
    pub(crate) async fn create_webhook(&self, webhook: Webhook) -> Result<(String, String), Status> {
        let request = CreateWebhookRequest { webhook: Some(webhook), request_id: String::new() };
        let response = self.ada().webhooks.create_webhook(request).await?.into_inner();
        Ok((response.webhook.unwrap().id, response.secret))
    }

    pub(crate) async fn create_webhook_to(&self, url: &str) -> (String, String) {
        self.create_webhook(Webhook { url: url.to_owned(), ..Webhook::default() }).await.unwrap()
    }

    pub(crate) async fn get_webhook(&self, webhook_id: &str) -> Webhook {
        let request = GetWebhookRequest { webhook_id: webhook_id.to_owned() };
        self.ada().webhooks.get_webhook(request).await.unwrap().into_inner().webhook.unwrap()
    }

    pub(crate) async fn set_webhook_state(&self, id: &str, state: State) {
        let webhook = Some(Webhook { id: id.to_owned(), state: state.into(), ..Webhook::default() });
        let update_mask = Some(prost_types::FieldMask { paths: vec!["state".to_owned()] });
        let request = UpdateWebhookRequest { webhook, update_mask, ..UpdateWebhookRequest::default() };
        self.ada().webhooks.update_webhook(request).await.unwrap();
    }

    pub(crate) async fn list_failed_deliveries(&self, webhook_id: &str) -> Vec<WebhookDelivery> {
        let request =
            ListWebhookDeliveriesRequest { webhook_id: webhook_id.to_owned(), ..Default::default() };
        self.ada().webhooks.list_webhook_deliveries(request).await.unwrap().into_inner().deliveries
    }

    pub(crate) async fn redeliver(&self, webhook_id: &str, position: &str) {
        let (webhook_id, position) = (webhook_id.to_owned(), position.to_owned());
        let request = RedeliverWebhookRequest { webhook_id, position, request_id: String::new() };
        self.ada().webhooks.redeliver_webhook(request).await.unwrap();
    }

    pub(crate) async fn upload_files(&self, names: &[&str]) -> Vec<String> {
        let mut ids = Vec::new();
        for name in names {
            ids.push(file_id(&self.alice().upload(spec(name), b"x").await.unwrap()));
        }
        ids
    }

    /// Waits until committed events can be read. Open transactions of other tests on the same server delay
    /// that.
    pub(crate) async fn wait_until_events_are_readable(&self) {
        self.wait_until("committed events can be read", || async {
            let unreadable = "SELECT count(*) FROM events AS e
                WHERE (e.epoch, e.xid) >= (SELECT b.epoch, b.xid FROM app.event_bound() AS b)";
            self.superuser.query_number(unreadable).await == 0
        })
        .await;
    }

    /// Runs delivery rounds until nothing is left. Returns the number of deliveries that ended, with success
    /// or as dead letters.
    pub(crate) async fn deliver_all(&self) -> usize {
        self.wait_until_events_are_readable().await;
        let mut total = 0;
        loop {
            let count = deliver_webhooks(&self.app).await.unwrap().done;
            total += count;
            if count == 0 {
                return total;
            }
        }
    }
}

#[test]
fn events_are_delivered_signed_and_in_order() {
    local_test(
        |_| {},
        |s, receiver| async move {
            s.upload_files(&["before"]).await;
            s.wait_until_events_are_readable().await;
            let (_, secret) = s.create_webhook_to(&receiver.url).await;
            let names: Vec<String> = (0..40).map(|number| number.to_string()).collect();
            let files = s.upload_files(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
            assert_eq!(s.deliver_all().await, 40, "those after its creation");
            assert_eq!(receiver.received_file_ids(), files);
            for received in receiver.messages() {
                assert!(received.is_signed_with(&secret));
                assert!(!received.is_signed_with("whsec_AAAA"));
            }
            let first = receiver.messages().remove(0);
            let body = first.json();
            assert_eq!(body["type"], "file.created");
            assert_eq!((&body["data"]["actor_id"], &body["data"]["version"]), (&"alice".into(), &1.into()));
            let (id, position) = (first.header("webhook-id"), body["data"]["position"].as_str().unwrap());
            assert!(id.starts_with("evt_") && id.ends_with(&format!("_{position}")), "{id}");
            assert_eq!(first.header("webhook-timestamp"), s.clock.now().timestamp().to_string());
            assert_eq!(s.deliver_all().await, 0, "each event is sent once");
        },
    );
}

#[test]
fn later_events_wait_for_failed_one() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let (id, _) = s.create_webhook_to(&receiver.url).await;
            receiver.respond_with(&[500, 503]);
            let files = s.upload_files(&["a", "b"]).await;
            assert_eq!(s.deliver_all().await, 0);
            assert_eq!(receiver.received_file_ids(), files[..1]);
            let shown = s.get_webhook(&id).await;
            assert_eq!((shown.failed_attempt_count, shown.state()), (1, State::Active));
            assert!(shown.last_error.contains("500"), "{}", shown.last_error);
            assert_eq!(s.deliver_all().await, 0, "the retry is not due yet");
            assert_eq!(receiver.received_file_ids().len(), 1);

            s.clock.advance(Duration::seconds(10));
            assert_eq!(s.deliver_all().await, 0);
            s.clock.advance(Duration::seconds(20));
            assert_eq!(s.deliver_all().await, 2);
            let order = [&files[0], &files[0], &files[0], &files[1]].map(String::clone);
            assert_eq!(receiver.received_file_ids(), order);
            let ids: Vec<String> =
                receiver.messages().iter().map(|received| received.header("webhook-id")).collect();
            assert!(ids[0] == ids[1] && ids[1] == ids[2] && ids[2] != ids[3], "retries keep the message id");
            assert_eq!(s.get_webhook(&id).await.failed_attempt_count, 0);
        },
    );
}

#[test]
fn retry_delays_grow_with_jitter() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let (id, _) = s.create_webhook_to(&receiver.url).await;
            receiver.respond_with(&[500; 4]);
            s.upload_files(&["a"]).await;
            for delay_max in [10, 20, 40, 80] {
                s.deliver_all().await;
                let next = s.get_webhook(&id).await.next_attempt_time.unwrap();
                let wait_ms = next.seconds * 1_000 + i64::from(next.nanos) / 1_000_000
                    - s.clock.now().timestamp_millis();
                assert!(
                    (delay_max * 500..=delay_max * 1_000).contains(&wait_ms),
                    "{wait_ms} ms; the maximum is {delay_max} s"
                );
                s.clock.advance(Duration::seconds(delay_max));
            }
        },
    );
}

#[test]
fn undeliverable_event_can_be_redelivered() {
    local_test(
        |config| config.attempts_max = 2,
        |s, receiver| async move {
            let (id, _) = s.create_webhook_to(&receiver.url).await;
            receiver.respond_with(&[500, 418]);
            let files = s.upload_files(&["a", "b"]).await;
            s.deliver_all().await;
            s.clock.advance(Duration::minutes(1));
            assert_eq!(s.deliver_all().await, 2, "one became a dead letter, the next was delivered");
            let order = [&files[0], &files[0], &files[1]].map(String::clone);
            assert_eq!(receiver.received_file_ids(), order);

            let dead = s.list_failed_deliveries(&id).await;
            assert_eq!(dead.len(), 1);
            assert_eq!(
                (dead[0].state(), dead[0].attempt_count, &dead[0].file_id),
                (Delivery::Dead, 2, &files[0])
            );
            assert!(dead[0].last_error.contains("418"), "{}", dead[0].last_error);

            for (status, state, attempts) in [(500, Delivery::Dead, 3), (200, Delivery::Delivered, 4)] {
                receiver.respond_with(&[status]);
                s.redeliver(&id, &dead[0].position).await;
                assert_eq!(s.list_failed_deliveries(&id).await[0].state(), Delivery::Waiting);
                assert_eq!(s.deliver_all().await, 1);
                let letter = &s.list_failed_deliveries(&id).await[0];
                assert_eq!((letter.state(), letter.attempt_count), (state, attempts));
            }
            assert_eq!(receiver.received_file_ids().len(), 5);
        },
    );
}

#[test]
fn dead_letters_are_paged_and_dropped_with_events() {
    local_test(
        |config| config.attempts_max = 1,
        |s, receiver| async move {
            let (id, _) = s.create_webhook_to(&receiver.url).await;
            receiver.respond_with(&[500; 5]);
            let mut files = s.upload_files(&["a", "b", "c", "d", "e"]).await;
            assert_eq!(s.deliver_all().await, 5);
            let (mut listed, mut page_token) = (Vec::new(), String::new());
            loop {
                let request =
                    ListWebhookDeliveriesRequest { webhook_id: id.clone(), page_size: 2, page_token };
                let page = s.ada().webhooks.list_webhook_deliveries(request).await.unwrap().into_inner();
                assert!(page.deliveries.len() <= 2);
                listed.extend(page.deliveries.into_iter().map(|letter| letter.file_id));
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
            files.reverse();
            assert_eq!(listed, files, "newest first");
            s.clock.advance(Duration::days(31));
            strongroom::worker::run_round(&s.app).await;
            assert!(s.list_failed_deliveries(&id).await.is_empty());
        },
    );
}

#[test]
fn failing_endpoint_is_disabled_and_resumes_in_place() {
    local_test(
        |config| config.attempts_max = 100,
        |s, receiver| async move {
            let (id, _) = s.create_webhook_to(&receiver.url).await;
            receiver.respond_with(&[500, 500]);
            let files = s.upload_files(&["a"]).await;
            s.deliver_all().await;
            s.clock.advance(Duration::hours(120));
            s.deliver_all().await;
            let shown = s.get_webhook(&id).await;
            assert_eq!(shown.state(), State::Disabled);
            assert!(shown.state_reason.contains("set the state to ACTIVE"), "{}", shown.state_reason);
            s.clock.advance(Duration::hours(1));
            s.deliver_all().await;
            assert_eq!(receiver.received_file_ids().len(), 2, "a disabled webhook sends nothing");
            s.set_webhook_state(&id, State::Active).await;
            assert_eq!(s.deliver_all().await, 1);
            assert_eq!(receiver.received_file_ids()[2], files[0]);
            let shown = s.get_webhook(&id).await;
            assert_eq!((shown.state(), shown.state_reason.as_str()), (State::Active, ""));
        },
    );
}

#[test]
fn endpoint_that_missed_dropped_events_is_disabled() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let (id, _) = s.create_webhook_to(&receiver.url).await;
            s.set_webhook_state(&id, State::Paused).await;
            s.upload_files(&["a"]).await;
            s.clock.advance(Duration::days(62));
            strongroom::worker::run_round(&s.app).await;
            s.superuser.execute("UPDATE webhooks SET state = {webhook_state.active}").await;
            assert_eq!(s.deliver_all().await, 0);
            let shown = s.get_webhook(&id).await;
            assert_eq!(shown.state(), State::Disabled);
            assert!(shown.state_reason.contains("have been dropped"), "{}", shown.state_reason);
            s.set_webhook_state(&id, State::Active).await;
            let files = s.upload_files(&["b"]).await;
            assert_eq!(s.deliver_all().await, 1);
            assert_eq!(receiver.received_file_ids(), files);
        },
    );
}

#[test]
fn endpoint_gets_only_its_kinds_and_nothing_if_paused() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let webhook =
                Webhook { url: receiver.url.clone(), kinds: vec![Kind::Purged.into()], ..Webhook::default() };
            let (id, _) = s.create_webhook(webhook).await.unwrap();
            let files = s.upload_files(&["a", "b"]).await;
            s.set_webhook_state(&id, State::Paused).await;
            s.alice().purge(&files[0]).await.unwrap();
            assert_eq!(s.deliver_all().await, 0);
            s.set_webhook_state(&id, State::Active).await;
            assert_eq!(s.deliver_all().await, 1);
            assert_eq!(receiver.received_file_ids(), files[..1]);
            assert_eq!(receiver.messages()[0].json()["type"], "file.purged");
            // Events of another tenant are not delivered.
            s.mallory().upload(spec("c"), b"x").await.unwrap();
            assert_eq!(s.deliver_all().await, 0);
        },
    );
}

#[test]
fn two_replicas_deliver_each_event_once() {
    local_test(
        |_| {},
        |s, receiver| async move {
            s.create_webhook_to(&receiver.url).await;
            let other = s.start_replica(|_| {}).await;
            let names: Vec<String> = (0..30).map(|number| number.to_string()).collect();
            let files = s.upload_files(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
            while receiver.received_file_ids().len() < files.len() {
                let (one, two) = tokio::join!(deliver_webhooks(&s.app), deliver_webhooks(&other.app));
                one.unwrap();
                two.unwrap();
            }
            assert_eq!(s.deliver_all().await, 0);
            assert_eq!(receiver.received_file_ids(), files);
            other.stop().await;
        },
    );
}

#[test]
fn leased_webhook_is_not_delivered_until_expiry() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let (id, _) = s.create_webhook_to(&receiver.url).await;
            s.upload_files(&["a"]).await;
            // Simulates a lease of another worker.
            s.superuser
                .execute("UPDATE webhooks SET lease_epoch = 7, lease_expire_time = now() + interval '1 hour'")
                .await;
            assert_eq!(s.deliver_all().await, 0);
            assert!(receiver.received_file_ids().is_empty());
            s.clock.advance(Duration::hours(2));
            assert_eq!(s.deliver_all().await, 1, "an expired lease can be claimed");
            assert_eq!(
                s.superuser.query_number("SELECT max(lease_epoch) FROM webhooks").await,
                8,
                "{id} is claimed once"
            );
        },
    );
}

#[test]
fn replica_that_lost_its_lease_records_nothing() {
    local_test(
        |_| {},
        |s, receiver| async move {
            s.create_webhook_to(&receiver.url).await;
            s.upload_files(&["a"]).await;
            s.wait_until_events_are_readable().await;
            let held = receiver.hold_responses().await;
            let app = std::sync::Arc::clone(&s.app);
            let sending = tokio::spawn(async move { deliver_webhooks(&app).await.unwrap().done });
            s.wait_until("the message has arrived", || async { receiver.messages().len() == 1 }).await;
            s.superuser
                .execute("UPDATE webhooks SET lease_epoch = lease_epoch + 1, lease_expire_time = NULL")
                .await;
            drop(held);
            assert_eq!(sending.await.unwrap(), 0, "the lost lease forbids recording the delivery");
            assert_eq!(s.deliver_all().await, 1);
            let [first, second] = [0, 1].map(|index| receiver.messages()[index].header("webhook-id"));
            assert_eq!(first, second, "both messages have the same id");
        },
    );
}

#[test]
fn idle_endpoint_keeps_its_position() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let (id, _) = s.create_webhook_to(&receiver.url).await;
            for _ in 0..5 {
                s.clock.advance(Duration::days(20));
                assert_eq!(s.deliver_all().await, 0);
            }
            // Drops the partitions of the time in which it was created.
            strongroom::worker::run_round(&s.app).await;
            let files = s.upload_files(&["a"]).await;
            assert_eq!(s.deliver_all().await, 1);
            assert_eq!(
                (receiver.received_file_ids(), s.get_webhook(&id).await.state()),
                (files, State::Active)
            );
        },
    );
}
