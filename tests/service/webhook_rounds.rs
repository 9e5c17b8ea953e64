//! Webhooks during other changes: failovers, suspended tenants, lease expiry, shutdown and upgrades.

use std::{sync::Arc, time::Duration as Seconds};

use chrono::Duration;
use strongroom::{
    app::webhooks::deliver::{claim_webhooks, deliver_webhooks},
    domain::clock::Clock as _,
    proto::v1::WebhookState as State,
};

use crate::{harness::Receiver, webhooks::local_test, workers::Worker};

/// Simulates a failover or a restore of the database.
pub(crate) const FAILOVER: &str =
    "CREATE OR REPLACE FUNCTION app.event_incarnation() RETURNS text LANGUAGE sql STABLE RETURN 'another'";

#[test]
fn failover_loses_no_event() {
    local_test(
        |config| config.attempts_max = 1,
        |s, receiver| async move {
            let (id, _) = s.create_webhook_to(&receiver.url).await;
            let first = s.upload_files(&["a"]).await;
            assert_eq!(s.deliver_all().await, 1);
            s.clock.advance(Duration::hours(3));
            receiver.respond_with(&[500]);
            let second = s.upload_files(&["b"]).await;
            assert_eq!(s.deliver_all().await, 1, "the event became a dead letter");
            let unsent = s.upload_files(&["c"]).await;
            s.superuser.execute(FAILOVER).await;
            assert_eq!(s.deliver_all().await, 1, "each event is sent once");
            let next = s.upload_files(&["d"]).await;
            assert_eq!(s.deliver_all().await, 1);
            let files = [&first[0], &second[0], &unsent[0], &next[0]].map(String::clone);
            assert_eq!(receiver.received_file_ids(), files);
            assert_eq!(s.get_webhook(&id).await.state(), State::Active);

            let dead = s.list_failed_deliveries(&id).await.remove(0).position;
            s.redeliver(&id, &dead).await;
            assert_eq!(s.deliver_all().await, 1);
            let ids: Vec<String> = receiver.messages().iter().map(|sent| sent.header("webhook-id")).collect();
            assert_eq!((ids.len(), &ids[4]), (5, &ids[1]), "the id of an event stays the same");
            let [sent, again] = [1, 4].map(|index| receiver.messages()[index].json()["data"].take());
            assert_eq!(sent, again);
            assert_eq!(again["revision"], 1);
        },
    );
}

/// The database failed over before its upgrade to the version with epochs.
#[test]
fn webhook_of_former_incarnation_continues_by_time() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let (id, _) = s.create_webhook_to(&receiver.url).await;
            let first = s.upload_files(&["a"]).await;
            assert_eq!(s.deliver_all().await, 1);
            s.clock.advance(Duration::hours(3));
            let second = s.upload_files(&["b"]).await;
            // The time of the position is later than that of the event.
            s.clock.advance(Duration::minutes(30));
            assert_eq!(s.deliver_all().await, 1);
            let unsent = s.upload_files(&["c"]).await;
            // No event is after its position.
            let former = "UPDATE webhooks SET incarnation = 'former', position_epoch = (SELECT max(epoch) FROM events),
                position_xid = '9000000000000'";
            s.superuser.execute(former).await;
            assert_eq!(s.deliver_all().await, 2, "events of the last hour are sent again");
            let files = [&first[0], &second[0], &second[0], &unsent[0]].map(String::clone);
            assert_eq!(receiver.received_file_ids(), files);
            let ids: Vec<String> = receiver.messages().iter().map(|sent| sent.header("webhook-id")).collect();
            assert_eq!(ids[1], ids[2], "with the same id");
            assert_eq!(s.get_webhook(&id).await.state(), State::Active);
            assert_eq!(s.deliver_all().await, 0);
        },
    );
}

#[test]
fn failure_after_quiet_weeks_disables_nothing() {
    local_test(
        // The rounds follow each other without a pause that would end the window.
        |config| (config.attempts_max, config.backoff_max_seconds) = (1, 24 * 3_600),
        |s, receiver| async move {
            let (id, _) = s.create_webhook_to(&receiver.url).await;
            receiver.respond_with(&[500, 500]);
            s.upload_files(&["a"]).await;
            assert_eq!(s.deliver_all().await, 1, "the event became a dead letter");
            // Longer than `webhooks.disable_after_hours`, and shorter than the retention of events.
            for _ in 0..21 {
                s.clock.advance(Duration::hours(23));
                s.deliver_all().await;
            }
            s.upload_files(&["b"]).await;
            assert_eq!(s.deliver_all().await, 1, "the second event became a dead letter");
            assert_eq!(s.get_webhook(&id).await.state(), State::Active);
        },
    );
}

#[test]
fn events_without_a_partition_are_delivered() {
    local_test(
        |_| {},
        |s, receiver| async move {
            // Past the ends of the current and the next month, for which partitions exist.
            s.clock.advance(Duration::days(75));
            let (id, _) = s.create_webhook_to(&receiver.url).await;
            let files = s.upload_files(&["a"]).await;
            // Into the next month, and less than the retention of events.
            s.clock.advance(Duration::days(29));
            // Drops all partitions of the past, and creates the current and the next one.
            strongroom::worker::run_round(&s.app).await;
            assert_eq!(s.deliver_all().await, 1);
            assert_eq!(receiver.received_file_ids(), files);
            assert_eq!(s.get_webhook(&id).await.state(), State::Active);
        },
    );
}

#[test]
fn endpoint_that_fails_events_in_a_row_is_disabled() {
    local_test(
        |config| config.attempts_max = 2,
        |s, receiver| async move {
            let (id, _) = s.create_webhook_to(&receiver.url).await;
            receiver.respond_with(&[500; 4]);
            s.upload_files(&["a", "b"]).await;
            for hours in [60, 60] {
                s.deliver_all().await;
                assert_eq!(s.get_webhook(&id).await.state(), State::Active);
                s.clock.advance(Duration::hours(hours));
            }
            // The first event became a dead letter while the second one was waiting.
            s.deliver_all().await;
            assert_eq!(receiver.messages().len(), 4);
            assert_eq!(s.get_webhook(&id).await.state(), State::Disabled);
        },
    );
}

#[test]
fn suspended_tenant_gets_its_events_after_resumption() {
    local_test(
        |_| {},
        |s, receiver| async move {
            s.create_webhook_to(&receiver.url).await;
            let acme = s.alice().tenant_id().await;
            let files = s.upload_files(&["a"]).await;
            s.operator().suspend_tenant(&acme).await.unwrap();
            s.clock.advance(Duration::hours(2));
            assert_eq!((s.deliver_all().await, receiver.received_file_ids().len()), (0, 0));
            s.operator().resume_tenant(&acme).await.unwrap();
            assert_eq!(s.deliver_all().await, 1);
            assert_eq!(receiver.received_file_ids(), files);
        },
    );
}

#[test]
fn slow_endpoint_does_not_delay_others() {
    local_test(
        |config| config.timeout_seconds = 60,
        |s, slow| async move {
            let fast = Receiver::start().await;
            s.create_webhook_to(&slow.url).await;
            s.create_webhook_to(&fast.url).await;
            let guard = slow.hold_responses().await;
            let worker = Worker::start(&s, Seconds::from_secs(60));
            let mut files = Vec::new();
            for name in ["a", "b", "c"] {
                files.extend(s.upload_files(&[name]).await);
                s.wait_until("the fast endpoint has the event", || async {
                    fast.received_file_ids() == files
                })
                .await;
            }
            s.wait_until("the slow endpoint has an event", || async { !slow.messages().is_empty() }).await;
            assert_eq!(slow.received_file_ids(), files[..1]);
            drop(guard);
            s.wait_until("the slow endpoint has all events", || async { slow.received_file_ids() == files })
                .await;
            worker.stop().await;
        },
    );
}

#[test]
fn concurrent_deliveries_per_tenant_are_limited() {
    local_test(
        |config| config.per_tenant_max = 10,
        |s, receiver| async move {
            for _ in 0..6 {
                s.create_webhook_to(&receiver.url).await;
            }
            s.upload_files(&["a"]).await;
            s.wait_until_events_are_readable().await;
            assert_eq!(claim_webhooks(&s.app, 16).await.unwrap().len(), 4);
            assert_eq!(claim_webhooks(&s.app, 16).await.unwrap().len(), 0, "the limit is reached");
            s.clock.advance(Duration::minutes(2));
            assert_eq!(s.deliver_all().await, 6);
        },
    );
}

#[test]
fn delivery_releases_lease_after_twenty_seconds() {
    local_test(
        |_| {},
        |s, receiver| async move {
            s.create_webhook_to(&receiver.url).await;
            let files = s.upload_files(&["a", "b"]).await;
            s.wait_until_events_are_readable().await;
            let guard = receiver.hold_responses().await;
            let app = Arc::clone(&s.app);
            let sending = tokio::spawn(async move { deliver_webhooks(&app).await.unwrap().done });
            s.wait_until("the message has arrived", || async { receiver.messages().len() == 1 }).await;
            s.clock.advance(Duration::seconds(20));
            drop(guard);
            assert_eq!(sending.await.unwrap(), 1);
            assert_eq!(s.deliver_all().await, 1, "the lease was released, so the next round can claim it");
            assert_eq!(receiver.received_file_ids(), files);
        },
    );
}

#[test]
fn stopping_worker_sends_no_new_event() {
    local_test(
        |config| config.timeout_seconds = 60,
        |s, receiver| async move {
            s.create_webhook_to(&receiver.url).await;
            let files = s.upload_files(&["a", "b"]).await;
            s.wait_until_events_are_readable().await;
            let guard = receiver.hold_responses().await;
            let worker = Worker::start(&s, Seconds::from_secs(60));
            s.wait_until("the message has arrived", || async { receiver.messages().len() == 1 }).await;
            let task = worker.start_shutdown();
            drop(guard);
            task.await.unwrap();
            assert_eq!(receiver.received_file_ids(), files[..1]);
            assert_eq!(s.deliver_all().await, 1, "another worker continues at once");
        },
    );
}

#[test]
fn delivery_cut_by_drain_timeout_is_sent_again() {
    local_test(
        |config| config.timeout_seconds = 60,
        |s, receiver| async move {
            s.create_webhook_to(&receiver.url).await;
            let files = s.upload_files(&["a"]).await;
            let guard = receiver.hold_responses().await;
            let worker = Worker::start(&s, Seconds::ZERO);
            s.wait_until("the message has arrived", || async { receiver.messages().len() == 1 }).await;
            worker.stop().await;
            drop(guard);
            s.clock.advance(Duration::minutes(2));
            assert_eq!(s.deliver_all().await, 1);
            assert_eq!(receiver.received_file_ids(), [&files[0], &files[0]].map(String::clone));
        },
    );
}

#[test]
fn retry_delay_starts_at_the_failure() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let (id, _) = s.create_webhook_to(&receiver.url).await;
            s.upload_files(&["a"]).await;
            s.wait_until_events_are_readable().await;
            receiver.respond_with(&[500]);
            let guard = receiver.hold_responses().await;
            let app = Arc::clone(&s.app);
            let sending = tokio::spawn(async move { deliver_webhooks(&app).await.unwrap().done });
            s.wait_until("the message has arrived", || async { receiver.messages().len() == 1 }).await;
            s.clock.advance(Duration::seconds(19));
            drop(guard);
            assert_eq!(sending.await.unwrap(), 0);
            let next = s.get_webhook(&id).await.next_attempt_time.unwrap();
            assert!(next.seconds >= s.clock.now().timestamp() + 4, "at least half of ten seconds from now");
        },
    );
}

#[test]
fn unknown_event_kind_is_sent_as_update() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let (id, _) = s.create_webhook_to(&receiver.url).await;
            let files = s.upload_files(&["a", "b"]).await;
            let unknown_kind = 999_i16;
            let set_kind = "UPDATE events SET kind = $1 WHERE n = (SELECT min(n) FROM events)";
            s.superuser.query_rows(set_kind, &[&unknown_kind]).await;
            assert_eq!(s.deliver_all().await, 2);
            assert_eq!(receiver.received_file_ids(), files);
            assert_eq!(receiver.messages()[0].json()["type"], "file.updated");
            assert_eq!(s.get_webhook(&id).await.failed_attempt_count, 0);
        },
    );
}

#[test]
fn weeks_without_a_worker_are_no_failure() {
    local_test(
        |config| config.attempts_max = 1,
        |s, receiver| async move {
            let (id, _) = s.create_webhook_to(&receiver.url).await;
            s.upload_files(&["a", "b"]).await;
            s.wait_until_events_are_readable().await;
            receiver.respond_with(&[500, 500]);
            let guard = receiver.hold_responses().await;
            let app = Arc::clone(&s.app);
            let sending = tokio::spawn(async move { deliver_webhooks(&app).await.unwrap().done });
            s.wait_until("the message has arrived", || async { receiver.messages().len() == 1 }).await;
            // The time of the endpoint in this round.
            s.clock.advance(Duration::seconds(20));
            drop(guard);
            assert_eq!(
                sending.await.unwrap(),
                1,
                "the first event became a dead letter, and the second one waits"
            );
            // Longer than `webhooks.disable_after_hours`, and shorter than the retention of events.
            s.clock.advance(Duration::days(20));
            assert_eq!(s.deliver_all().await, 1, "the second event became a dead letter");
            assert_eq!(s.get_webhook(&id).await.state(), State::Active);
        },
    );
}
