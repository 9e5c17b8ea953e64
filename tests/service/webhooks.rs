//! Webhooks: signed, in order, tried again, given up in the open.

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

/// A test whose endpoints are on this machine.
pub(crate) fn local_test<F, Fut>(configure: impl FnOnce(&mut strongroom::config::WebhooksConfig), test: F)
where
    F: FnOnce(Service, Receiver) -> Fut,
    Fut: Future<Output = ()>,
{
    service_test_with(
        |config| {
            config.webhooks.allow_private_addresses = true;
            configure(&mut config.webhooks);
        },
        |s| async move {
            let receiver = Receiver::start().await;
            test(s, receiver).await;
        },
    );
}

impl Service {
    /// Makes an endpoint; answers its id and its secret.
    pub(crate) async fn webhook(&self, webhook: Webhook) -> Result<(String, String), Status> {
        let request = CreateWebhookRequest { webhook: Some(webhook), request_id: String::new() };
        let made = self.ada().webhooks.create_webhook(request).await?.into_inner();
        Ok((made.webhook.unwrap().id, made.secret))
    }

    pub(crate) async fn webhook_to(&self, url: &str) -> (String, String) {
        self.webhook(Webhook { url: url.to_owned(), ..Webhook::default() }).await.unwrap()
    }

    pub(crate) async fn shown(&self, webhook_id: &str) -> Webhook {
        let request = GetWebhookRequest { webhook_id: webhook_id.to_owned() };
        self.ada().webhooks.get_webhook(request).await.unwrap().into_inner().webhook.unwrap()
    }

    async fn set_state(&self, id: &str, state: State) {
        let webhook = Some(Webhook { id: id.to_owned(), state: state.into(), ..Webhook::default() });
        let update_mask = Some(prost_types::FieldMask { paths: vec!["state".to_owned()] });
        let request = UpdateWebhookRequest { webhook, update_mask, ..UpdateWebhookRequest::default() };
        self.ada().webhooks.update_webhook(request).await.unwrap();
    }

    pub(crate) async fn failed(&self, webhook_id: &str) -> Vec<WebhookDelivery> {
        let request =
            ListWebhookDeliveriesRequest { webhook_id: webhook_id.to_owned(), ..Default::default() };
        self.ada().webhooks.list_webhook_deliveries(request).await.unwrap().into_inner().deliveries
    }

    pub(crate) async fn uploads(&self, names: &[&str]) -> Vec<String> {
        let mut ids = Vec::new();
        for name in names {
            ids.push(file_id(&self.alice().upload(spec(name), b"x").await.unwrap()));
        }
        ids
    }

    /// Waits until what was committed can be read: transactions of other tests hold it back, because they run on the same
    /// server.
    pub(crate) async fn settled(&self) {
        self.until("what was committed is safe to read", || async {
            let unsafe_yet =
                "SELECT count(*) FROM events WHERE xid >= pg_snapshot_xmin(pg_current_snapshot())";
            self.owner.number(unsafe_yet).await == 0
        })
        .await;
    }

    /// Rounds until nothing more is done; answers how much was.
    pub(crate) async fn delivered(&self) -> usize {
        self.settled().await;
        let mut all = 0;
        loop {
            let done = deliver_webhooks(&self.app).await.unwrap();
            all += done;
            if done == 0 {
                return all;
            }
        }
    }
}

#[test]
fn events_arrive_signed_and_in_order() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let (_, secret) = s.webhook_to(&receiver.url).await;
            let names: Vec<String> = (0..40).map(|number| number.to_string()).collect();
            let files = s.uploads(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
            assert_eq!(s.delivered().await, 40);
            assert_eq!(receiver.files(), files);
            for received in receiver.received() {
                assert!(received.is_signed_with(&secret));
                assert!(!received.is_signed_with("whsec_AAAA"));
            }
            let first = receiver.received().remove(0);
            let body = first.json();
            assert_eq!(body["type"], "file.created");
            assert_eq!((&body["data"]["actor_id"], &body["data"]["version"]), (&"alice".into(), &1.into()));
            let (id, position) = (first.header("webhook-id"), body["data"]["position"].as_str().unwrap());
            assert!(id.starts_with("evt_") && id.ends_with(&format!("_{position}")), "{id}");
            assert_eq!(first.header("webhook-timestamp"), s.clock.now().timestamp().to_string());
            assert_eq!(s.delivered().await, 0, "nothing is sent twice");
        },
    );
}

#[test]
fn the_next_event_waits_for_the_one_in_front_of_it() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let (id, _) = s.webhook_to(&receiver.url).await;
            receiver.answer(&[500, 503]);
            let files = s.uploads(&["a", "b"]).await;
            assert_eq!(s.delivered().await, 0);
            assert_eq!(receiver.files(), files[..1]);
            let shown = s.shown(&id).await;
            assert_eq!((shown.failed_attempt_count, shown.state()), (1, State::Active));
            assert!(shown.last_error.contains("500"), "{}", shown.last_error);
            assert_eq!(s.delivered().await, 0, "not before its time");
            assert_eq!(receiver.files().len(), 1);

            s.clock.advance(Duration::seconds(10));
            assert_eq!(s.delivered().await, 0);
            s.clock.advance(Duration::seconds(20));
            assert_eq!(s.delivered().await, 2);
            let order = [&files[0], &files[0], &files[0], &files[1]].map(String::clone);
            assert_eq!(receiver.files(), order);
            let ids: Vec<String> =
                receiver.received().iter().map(|received| received.header("webhook-id")).collect();
            assert!(ids[0] == ids[1] && ids[1] == ids[2] && ids[2] != ids[3], "a repetition can be told");
            assert_eq!(s.shown(&id).await.failed_attempt_count, 0);
        },
    );
}

#[test]
fn waits_grow_and_differ() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let (id, _) = s.webhook_to(&receiver.url).await;
            receiver.answer(&[500; 4]);
            s.uploads(&["a"]).await;
            for most in [10, 20, 40, 80] {
                s.delivered().await;
                let next = s.shown(&id).await.next_attempt_time.unwrap();
                let wait_ms = next.seconds * 1_000 + i64::from(next.nanos) / 1_000_000
                    - s.clock.now().timestamp_millis();
                assert!((most * 500..=most * 1_000).contains(&wait_ms), "{wait_ms} ms of {most} s");
                s.clock.advance(Duration::seconds(most));
            }
        },
    );
}

#[test]
fn what_cannot_be_delivered_is_a_dead_letter_that_can_be_sent_again() {
    local_test(
        |config| config.attempts_max = 2,
        |s, receiver| async move {
            let (id, _) = s.webhook_to(&receiver.url).await;
            receiver.answer(&[500, 418]);
            let files = s.uploads(&["a", "b"]).await;
            s.delivered().await;
            s.clock.advance(Duration::minutes(1));
            assert_eq!(s.delivered().await, 2, "one given up, and the next one delivered");
            let order = [&files[0], &files[0], &files[1]].map(String::clone);
            assert_eq!(receiver.files(), order);

            let dead = s.failed(&id).await;
            assert_eq!(dead.len(), 1);
            assert_eq!(
                (dead[0].state(), dead[0].attempt_count, &dead[0].file_id),
                (Delivery::Dead, 2, &files[0])
            );
            assert!(dead[0].last_error.contains("418"), "{}", dead[0].last_error);

            for (answer, state, attempts) in [(500, Delivery::Dead, 3), (200, Delivery::Delivered, 4)] {
                receiver.answer(&[answer]);
                let request = RedeliverWebhookRequest {
                    webhook_id: id.clone(),
                    position: dead[0].position.clone(),
                    request_id: String::new(),
                };
                s.ada().webhooks.redeliver_webhook(request).await.unwrap();
                assert_eq!(s.failed(&id).await[0].state(), Delivery::Waiting);
                assert_eq!(s.delivered().await, 1);
                let letter = &s.failed(&id).await[0];
                assert_eq!((letter.state(), letter.attempt_count), (state, attempts));
            }
            assert_eq!(receiver.files().len(), 5);
        },
    );
}

#[test]
fn dead_letters_are_listed_a_page_at_a_time_and_kept_as_long_as_events() {
    local_test(
        |config| config.attempts_max = 1,
        |s, receiver| async move {
            let (id, _) = s.webhook_to(&receiver.url).await;
            receiver.answer(&[500; 5]);
            let mut files = s.uploads(&["a", "b", "c", "d", "e"]).await;
            assert_eq!(s.delivered().await, 5);
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
            assert_eq!(listed, files, "the newest first");
            s.clock.advance(Duration::days(31));
            strongroom::worker::run_round(&s.app).await;
            assert!(s.failed(&id).await.is_empty());
        },
    );
}

#[test]
fn an_endpoint_that_fails_for_long_is_disabled_and_goes_on_where_it_stood() {
    local_test(
        |config| config.attempts_max = 100,
        |s, receiver| async move {
            let (id, _) = s.webhook_to(&receiver.url).await;
            receiver.answer(&[500, 500]);
            let files = s.uploads(&["a"]).await;
            s.delivered().await;
            s.clock.advance(Duration::hours(120));
            s.delivered().await;
            let shown = s.shown(&id).await;
            assert_eq!(shown.state(), State::Disabled);
            assert!(shown.state_reason.contains("set the state to ACTIVE"), "{}", shown.state_reason);
            s.clock.advance(Duration::hours(1));
            s.delivered().await;
            assert_eq!(receiver.files().len(), 2, "nothing is sent any more");
            s.set_state(&id, State::Active).await;
            assert_eq!(s.delivered().await, 1);
            assert_eq!(receiver.files()[2], files[0]);
            let shown = s.shown(&id).await;
            assert_eq!((shown.state(), shown.state_reason.as_str()), (State::Active, ""));
        },
    );
}

#[test]
fn an_endpoint_whose_events_are_gone_says_so_and_begins_anew() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let (id, _) = s.webhook_to(&receiver.url).await;
            s.set_state(&id, State::Paused).await;
            s.uploads(&["a"]).await;
            s.clock.advance(Duration::days(40));
            s.owner.run("UPDATE webhooks SET state = 1").await;
            assert_eq!(s.delivered().await, 0);
            let shown = s.shown(&id).await;
            assert_eq!(shown.state(), State::Disabled);
            assert!(shown.state_reason.contains("no longer kept"), "{}", shown.state_reason);
            s.set_state(&id, State::Active).await;
            let files = s.uploads(&["b"]).await;
            assert_eq!(s.delivered().await, 1);
            assert_eq!(receiver.files(), files);
        },
    );
}

#[test]
fn an_endpoint_hears_only_of_its_kinds_and_not_while_it_is_paused() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let webhook =
                Webhook { url: receiver.url.clone(), kinds: vec![Kind::Purged.into()], ..Webhook::default() };
            let (id, _) = s.webhook(webhook).await.unwrap();
            let files = s.uploads(&["a", "b"]).await;
            s.set_state(&id, State::Paused).await;
            s.alice().purge(&files[0]).await.unwrap();
            assert_eq!(s.delivered().await, 0);
            s.set_state(&id, State::Active).await;
            assert_eq!(s.delivered().await, 1);
            assert_eq!(receiver.files(), files[..1]);
            assert_eq!(receiver.received()[0].json()["type"], "file.purged");
            // Another tenant's files are nobody's business here.
            s.mallory().upload(spec("c"), b"x").await.unwrap();
            assert_eq!(s.delivered().await, 0);
        },
    );
}

#[test]
fn two_replicas_at_once_deliver_everything_once() {
    local_test(
        |_| {},
        |s, receiver| async move {
            s.webhook_to(&receiver.url).await;
            let other = s.replica(|_| {}).await;
            let names: Vec<String> = (0..30).map(|number| number.to_string()).collect();
            let files = s.uploads(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
            while receiver.files().len() < files.len() {
                let (one, two) = tokio::join!(deliver_webhooks(&s.app), deliver_webhooks(&other.app));
                one.unwrap();
                two.unwrap();
            }
            assert_eq!(s.delivered().await, 0);
            assert_eq!(receiver.files(), files);
            other.stopped().await;
        },
    );
}

#[test]
fn whoever_lost_the_lease_changes_nothing() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let (id, _) = s.webhook_to(&receiver.url).await;
            s.uploads(&["a"]).await;
            // Somebody else has it, for a while.
            s.owner
                .run("UPDATE webhooks SET lease_epoch = 7, lease_expire_time = now() + interval '1 hour'")
                .await;
            assert_eq!(s.delivered().await, 0);
            assert!(receiver.files().is_empty());
            s.clock.advance(Duration::hours(2));
            assert_eq!(s.delivered().await, 1, "a lease that ran out stands in nobody's way");
            assert_eq!(
                s.owner.number("SELECT max(lease_epoch) FROM webhooks").await,
                8,
                "{id} is claimed once"
            );
        },
    );
}

#[test]
fn a_replica_that_loses_its_lease_while_it_sends_writes_nothing() {
    local_test(
        |_| {},
        |s, receiver| async move {
            s.webhook_to(&receiver.url).await;
            s.uploads(&["a"]).await;
            s.settled().await;
            let held = receiver.hold().await;
            let app = std::sync::Arc::clone(&s.app);
            let sending = tokio::spawn(async move { deliver_webhooks(&app).await.unwrap() });
            s.until("the message is there", || async { receiver.received().len() == 1 }).await;
            s.owner.run("UPDATE webhooks SET lease_epoch = lease_epoch + 1, lease_expire_time = NULL").await;
            drop(held);
            assert_eq!(sending.await.unwrap(), 0, "it was not its to say");
            assert_eq!(s.delivered().await, 1);
            let [first, second] = [0, 1].map(|place| receiver.received()[place].header("webhook-id"));
            assert_eq!(first, second, "the receiver can tell");
        },
    );
}

#[test]
fn an_endpoint_that_hears_nothing_for_long_keeps_its_place() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let (id, _) = s.webhook_to(&receiver.url).await;
            for _ in 0..3 {
                s.clock.advance(Duration::days(20));
                assert_eq!(s.delivered().await, 0);
            }
            let files = s.uploads(&["a"]).await;
            assert_eq!(s.delivered().await, 1);
            assert_eq!((receiver.files(), s.shown(&id).await.state()), (files, State::Active));
        },
    );
}
