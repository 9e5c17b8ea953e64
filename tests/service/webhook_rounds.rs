//! Webhooks when something else changes meanwhile: the database, the tenant, the clock, the release.

use chrono::Duration;
use strongroom::proto::v1::WebhookState as State;

use crate::webhooks::local_test;

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
            let (acme, operator) = (s.alice().tenant_id().await, s.operator());
            let files = s.uploads(&["a"]).await;
            operator.suspend(&acme).await.unwrap();
            s.clock.advance(Duration::hours(2));
            assert_eq!((s.delivered().await, receiver.files().len()), (0, 0));
            operator.resume(&acme).await.unwrap();
            assert_eq!(s.delivered().await, 1);
            assert_eq!(receiver.files(), files);
        },
    );
}
