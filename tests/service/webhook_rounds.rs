//! Webhooks when something else changes meanwhile: the database, the tenant, the clock, the release.

use std::{sync::Arc, time::Duration as Seconds};

use chrono::Duration;
use strongroom::{
    app::webhooks::deliver::{claim_webhooks, deliver_webhooks},
    domain::clock::Clock as _,
    proto::v1::WebhookState as State,
};

use crate::{harness::Receiver, webhooks::local_test, workers::Worker};

/// As if the database had failed over.
const FAILOVER: &str = "CREATE OR REPLACE FUNCTION app.event_incarnation() RETURNS text LANGUAGE sql STABLE
                        RETURN 'another'";

#[test]
fn a_failover_of_the_database_leaves_an_endpoint_active_and_loses_no_event() {
    local_test(
        |config| config.attempts_max = 1,
        |s, receiver| async move {
            let (id, _) = s.webhook_to(&receiver.url).await;
            let long_ago = s.uploads(&["a"]).await;
            assert_eq!(s.delivered().await, 1);
            s.clock.advance(Duration::hours(3));
            receiver.answer(&[500, 500]);
            let before = s.uploads(&["b"]).await;
            assert_eq!(s.delivered().await, 1, "given up");
            let unsent = s.uploads(&["c"]).await;
            s.owner.run(FAILOVER).await;
            assert_eq!(s.delivered().await, 2, "what was sent within the last hour is sent again");
            let files = [&long_ago[0], &before[0], &before[0], &unsent[0]].map(String::clone);
            assert_eq!(receiver.files(), files);
            let ids: Vec<String> = receiver.received().iter().map(|sent| sent.header("webhook-id")).collect();
            assert_ne!(ids[1], ids[2], "another history, another id");
            assert_eq!(s.shown(&id).await.state(), State::Active);
            let next = s.uploads(&["d"]).await;
            assert_eq!(s.delivered().await, 1, "and then each once");
            assert_eq!(receiver.files()[4..], next);
        },
    );
}

#[test]
fn nothing_is_sent_for_a_suspended_tenant_and_everything_once_it_is_resumed() {
    local_test(
        |_| {},
        |s, receiver| async move {
            s.webhook_to(&receiver.url).await;
            let acme = s.alice().tenant_id().await;
            let files = s.uploads(&["a"]).await;
            s.operator().suspend(&acme).await.unwrap();
            s.clock.advance(Duration::hours(2));
            assert_eq!((s.delivered().await, receiver.files().len()), (0, 0));
            s.operator().resume(&acme).await.unwrap();
            assert_eq!(s.delivered().await, 1);
            assert_eq!(receiver.files(), files);
        },
    );
}

#[test]
fn an_endpoint_that_is_slow_to_answer_keeps_no_other_waiting() {
    local_test(
        |config| config.timeout_seconds = 60,
        |s, slow| async move {
            let quick = Receiver::start().await;
            s.webhook_to(&slow.url).await;
            s.webhook_to(&quick.url).await;
            let held = slow.hold().await;
            let worker = Worker::start(&s, Seconds::from_secs(60));
            let mut files = Vec::new();
            for name in ["a", "b", "c"] {
                files.extend(s.uploads(&[name]).await);
                s.until("it is there", || async { quick.files() == files }).await;
            }
            assert_eq!(slow.files(), files[..1]);
            drop(held);
            s.until("the slow one has all", || async { slow.files() == files }).await;
            worker.stop().await;
        },
    );
}

#[test]
fn a_tenant_takes_no_more_than_its_share_of_the_places() {
    local_test(
        |config| config.per_tenant_max = 10,
        |s, receiver| async move {
            for _ in 0..6 {
                s.webhook_to(&receiver.url).await;
            }
            s.uploads(&["a"]).await;
            s.settled().await;
            assert_eq!(claim_webhooks(&s.app, 16).await.unwrap().len(), 4);
            assert_eq!(claim_webhooks(&s.app, 16).await.unwrap().len(), 0, "while those are under way");
            s.clock.advance(Duration::minutes(2));
            assert_eq!(s.delivered().await, 6);
        },
    );
}

#[test]
fn an_endpoint_gives_its_place_back_after_twenty_seconds() {
    local_test(
        |_| {},
        |s, receiver| async move {
            s.webhook_to(&receiver.url).await;
            let files = s.uploads(&["a", "b"]).await;
            s.settled().await;
            let held = receiver.hold().await;
            let app = Arc::clone(&s.app);
            let sending = tokio::spawn(async move { deliver_webhooks(&app).await.unwrap() });
            s.until("the message is there", || async { receiver.received().len() == 1 }).await;
            s.clock.advance(Duration::seconds(20));
            drop(held);
            assert_eq!(sending.await.unwrap(), 1);
            assert_eq!(s.delivered().await, 1, "at once, because the lease was given back");
            assert_eq!(receiver.files(), files);
        },
    );
}

#[test]
fn a_worker_that_is_told_to_stop_sends_nothing_new() {
    local_test(
        |config| config.timeout_seconds = 60,
        |s, receiver| async move {
            s.webhook_to(&receiver.url).await;
            let files = s.uploads(&["a", "b"]).await;
            s.settled().await;
            let held = receiver.hold().await;
            let worker = Worker::start(&s, Seconds::from_secs(60));
            s.until("the message is there", || async { receiver.received().len() == 1 }).await;
            let ended = worker.told();
            drop(held);
            ended.await.unwrap();
            assert_eq!(receiver.files(), files[..1]);
            assert_eq!(s.delivered().await, 1, "another one goes on at once");
        },
    );
}

#[test]
fn a_worker_cuts_a_delivery_that_outlasts_the_drain_and_it_is_sent_again() {
    local_test(
        |config| config.timeout_seconds = 60,
        |s, receiver| async move {
            s.webhook_to(&receiver.url).await;
            let files = s.uploads(&["a"]).await;
            let held = receiver.hold().await;
            let worker = Worker::start(&s, Seconds::ZERO);
            s.until("the message is there", || async { receiver.received().len() == 1 }).await;
            worker.stop().await;
            drop(held);
            s.clock.advance(Duration::minutes(2));
            assert_eq!(s.delivered().await, 1);
            assert_eq!(receiver.files(), [&files[0], &files[0]].map(String::clone));
        },
    );
}

#[test]
fn a_wait_counts_from_the_failure_and_not_from_the_beginning_of_the_round() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let (id, _) = s.webhook_to(&receiver.url).await;
            s.uploads(&["a"]).await;
            s.settled().await;
            receiver.answer(&[500]);
            let held = receiver.hold().await;
            let app = Arc::clone(&s.app);
            let sending = tokio::spawn(async move { deliver_webhooks(&app).await.unwrap() });
            s.until("the message is there", || async { receiver.received().len() == 1 }).await;
            s.clock.advance(Duration::seconds(19));
            drop(held);
            assert_eq!(sending.await.unwrap(), 0);
            let next = s.shown(&id).await.next_attempt_time.unwrap();
            assert!(next.seconds >= s.clock.now().timestamp() + 4, "half of ten seconds, from now");
        },
    );
}

#[test]
fn a_kind_of_a_newer_release_is_sent_as_an_update() {
    local_test(
        |_| {},
        |s, receiver| async move {
            let (id, _) = s.webhook_to(&receiver.url).await;
            let files = s.uploads(&["a", "b"]).await;
            s.owner.run("UPDATE events SET kind = 999 WHERE n = (SELECT min(n) FROM events)").await;
            assert_eq!(s.delivered().await, 2);
            assert_eq!(receiver.files(), files);
            assert_eq!(receiver.received()[0].json()["type"], "file.updated");
            assert_eq!(s.shown(&id).await.failed_attempt_count, 0);
        },
    );
}
