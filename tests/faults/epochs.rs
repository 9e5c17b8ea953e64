//! Positions of events after a restore into another cluster, a failover, and a recovery to an earlier time: watches
//! and webhooks get each event once, in order.

use std::sync::Arc;

use chrono::Duration;
use strongroom::{
    app::webhooks::deliver::deliver_webhooks,
    proto::v1::{CreateWebhookRequest, Webhook},
};

use crate::{
    harness::{Receiver, Service, Setup, file_id, reason, service_test_in, spec},
    private_postgres::{PrivatePostgres, private_server_test, wait_until_serving},
};

fn allow_private_addresses(setup: &mut Setup) {
    setup.config.webhooks.allow_private_addresses = true;
}

/// Runs a test with a database server of its own and a webhook. The server fails, so errors are logged.
fn webhook_test<F, Fut>(test: F)
where
    F: FnOnce(Service, Arc<PrivatePostgres>, Receiver) -> Fut,
    Fut: Future<Output = ()>,
{
    private_server_test(allow_private_addresses, |s, postgres| async move {
        s.allow_logged_errors();
        let receiver = Receiver::start().await;
        create_webhook(&s, &receiver.url).await;
        test(s, postgres, receiver).await;
    });
}

async fn create_webhook(s: &Service, url: &str) {
    let webhook = Some(Webhook { url: url.to_owned(), ..Webhook::default() });
    s.ada().webhooks.create_webhook(CreateWebhookRequest { webhook, ..Default::default() }).await.unwrap();
}

async fn upload(s: &Service, name: &str) -> String {
    file_id(&s.alice().upload(spec(name), b"x").await.unwrap())
}

/// Delivers all events. Returns their number.
async fn deliver_all(s: &Service) -> usize {
    s.wait_until("committed events can be read", || async {
        let unreadable = "SELECT count(*) FROM events AS e
            WHERE (e.epoch, e.xid) >= (SELECT b.epoch, b.xid FROM app.event_bound() AS b)";
        s.superuser.query_number(unreadable).await == 0
    })
    .await;
    let mut total = 0;
    loop {
        let count = deliver_webhooks(&s.app).await.unwrap().done;
        total += count;
        if count == 0 {
            return total;
        }
    }
}

/// Returns the positions of all events, in order.
async fn list_positions(s: &Service) -> Vec<String> {
    let positions =
        "SELECT lpad(to_hex(epoch::bigint << 48 | xid::text::bigint), 16, '0') || lpad(to_hex(n), 16, '0')
                     FROM events ORDER BY epoch, xid, n";
    let positions = s.superuser.query_texts(positions).await;
    assert!(positions.is_sorted(), "{positions:?}");
    positions
}

fn received_positions(receiver: &Receiver) -> Vec<String> {
    let position = |body: serde_json::Value| body["data"]["position"].as_str().unwrap().to_owned();
    receiver.messages().iter().map(|message| position(message.json())).collect()
}

/// Uses up transaction ids of the server.
async fn use_transactions(s: &Service, count: usize) {
    let use_up = format!(
        "DO $$ BEGIN FOR i IN 1..{count} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
    );
    s.superuser.execute(&use_up).await;
}

/// Uses up transaction ids of transactions that are rolled back, whose ids the server stores late.
async fn roll_back_transactions(s: &Service, count: usize) {
    let use_up = format!(
        "DO $$ BEGIN FOR i IN 1..{count} LOOP PERFORM pg_current_xact_id(); ROLLBACK; END LOOP; END $$"
    );
    s.superuser.execute(&use_up).await;
}

async fn assert_too_old(s: &Service, cursor: &str) {
    let Err(error) = s.alice().watch_files_after(cursor).await else { panic!("accepted") };
    assert_eq!(reason(&error), "CURSOR_TOO_OLD");
    assert!(error.message().contains("list again"), "{}", error.message());
}

#[test]
fn fresh_cluster_continues_watches_and_webhooks() {
    let (former, fresh) = (PrivatePostgres::start(), PrivatePostgres::start());
    let fresh_url = fresh.url();
    service_test_in(Some(former.url()), allow_private_addresses, |s| async move {
        // The store belongs to the restored database from then on.
        s.allow_logged_errors();
        let receiver = Receiver::start().await;
        use_transactions(&s, 20_000).await;
        create_webhook(&s, &receiver.url).await;
        let mut watcher = s.alice().watch_files().await;
        let file = upload(&s, "delivered").await;
        assert_eq!(deliver_all(&s).await, 1);
        watcher.next_event().await;
        let cursor = watcher.cursor.clone();
        upload(&s, "undelivered").await;
        upload(&s, "also undelivered").await;

        let restored = s.start_copy_on(fresh_url).await;
        let counter = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text";
        assert!(
            restored.superuser.query_number(counter).await < s.superuser.query_number(counter).await,
            "the ids of the fresh cluster are lower"
        );
        restored.app.owners().adopt_store("memory").await.unwrap();
        restored.alice().rename(&file, "renamed").await.unwrap();
        assert_eq!(deliver_all(&restored).await, 3);
        let positions = list_positions(&restored).await;
        assert_eq!(received_positions(&receiver), positions, "each event once, in order");
        let mut resumed = restored.alice().watch_files_after(&cursor).await.unwrap();
        for position in &positions[1..] {
            assert_eq!(resumed.next_event().await.position, *position);
        }

        // The counter passes the ids of the events from the former cluster.
        use_transactions(&restored, 30_000).await;
        restored.alice().rename(&file, "renamed again").await.unwrap();
        assert_eq!(deliver_all(&restored).await, 1);
        let positions = list_positions(&restored).await;
        assert_eq!(received_positions(&receiver), positions, "no event is sent again");
        assert_eq!(resumed.next_event().await.position, positions[4]);
        let ids: std::collections::BTreeSet<String> =
            receiver.messages().iter().map(|sent| sent.header("webhook-id")).collect();
        assert_eq!(ids.len(), 5);
        drop(resumed);
        restored.stop().await;
    });
}

#[test]
fn failover_keeps_cursors_and_webhooks() {
    webhook_test(|s, postgres, receiver| async move {
        let mut watcher = s.alice().watch_files().await;
        let before_all = watcher.cursor.clone();
        let file = upload(&s, "delivered").await;
        assert_eq!(deliver_all(&s).await, 1);
        watcher.next_event().await;
        let after_first = watcher.cursor.clone();
        upload(&s, "undelivered").await;
        drop(watcher);

        postgres.operate(PrivatePostgres::fail_over).await;
        wait_until_serving(&s).await;
        for skipped in [0, 1] {
            let cursor = [&before_all, &after_first][skipped];
            let mut resumed = s.alice().watch_files_after(cursor).await.unwrap();
            let written = list_positions(&s).await;
            for position in &written[skipped..] {
                assert_eq!(resumed.next_event().await.position, *position);
            }
            s.alice().rename(&file, &format!("renamed {skipped}")).await.unwrap();
            let renamed = list_positions(&s).await.pop().unwrap();
            assert_eq!(resumed.next_event().await.position, renamed);
            assert!(renamed.starts_with("0001"), "a new epoch: {renamed}");
        }
        assert_eq!(deliver_all(&s).await, 3);
        assert_eq!(received_positions(&receiver), list_positions(&s).await);
    });
}

#[test]
fn recovery_rejects_cursors_of_lost_events() {
    webhook_test(|s, postgres, receiver| async move {
        let mut watcher = s.alice().watch_files().await;
        let file = upload(&s, "a").await;
        watcher.next_event().await;
        let kept = watcher.cursor.clone();
        postgres.operate(PrivatePostgres::back_up).await;
        s.alice().rename(&file, "lost").await.unwrap();
        let lost = watcher.next_event().await;
        let ahead = watcher.cursor.clone();
        assert_eq!(deliver_all(&s).await, 2);
        let lost_id = receiver.messages()[1].header("webhook-id");
        drop(watcher);

        postgres.operate(PrivatePostgres::restore_backup).await;
        wait_until_serving(&s).await;
        assert_too_old(&s, &ahead).await;
        let mut resumed = s.alice().watch_files_after(&kept).await.unwrap();
        // Also when the counter has passed the ids of the lost transactions, and the new epoch has begun.
        use_transactions(&s, 1_000).await;
        s.alice().rename(&file, "renamed").await.unwrap();
        let renamed = resumed.next_event().await;
        assert!(renamed.position > lost.position);
        assert_too_old(&s, &ahead).await;
        assert_eq!(deliver_all(&s).await, 2, "the restored state has delivered neither");
        let ids: Vec<String> = receiver.messages().iter().map(|sent| sent.header("webhook-id")).collect();
        assert_eq!(ids[2], ids[0], "the same event has the same id");
        assert_ne!(ids[3], lost_id, "another event has another id");
    });
}

#[test]
fn crash_that_assigns_ids_again_skips_no_event() {
    webhook_test(|s, postgres, receiver| async move {
        let mut watcher = s.alice().watch_files().await;
        upload(&s, "a").await;
        watcher.next_event().await;
        let cursor = watcher.cursor.clone();
        drop(watcher);
        assert_eq!(deliver_all(&s).await, 1);
        s.superuser.execute("ALTER SYSTEM SET wal_writer_delay = '10s'").await;
        s.superuser.execute("SELECT pg_reload_conf()").await;
        // Without events, the webhook advances to the bound of a snapshot.
        roll_back_transactions(&s, 1_000).await;
        s.clock.advance(Duration::hours(2));
        assert_eq!(deliver_all(&s).await, 0);
        let incarnation = s.superuser.query_texts("SELECT app.event_incarnation()").await.remove(0);
        roll_back_transactions(&s, 1_000).await;
        let bound = s.superuser.query_number("SELECT pg_snapshot_xmax(pg_current_snapshot())::text").await;
        let former = s.seal_former_cursor(bound, &incarnation).await;

        postgres.operate(|postgres| postgres.restart("immediate")).await;
        wait_until_serving(&s).await;
        s.clock.advance(Duration::seconds(1));
        upload(&s, "b").await;
        let written = list_positions(&s).await.pop().unwrap();
        assert_eq!(deliver_all(&s).await, 1);
        assert_eq!(received_positions(&receiver).pop().unwrap(), written);
        // The counter passes the bound of the cursor, which is ahead of the database until then.
        use_transactions(&s, 3_000).await;
        for cursor in [cursor, former] {
            let mut resumed = s.alice().watch_files_after(&cursor).await.unwrap();
            assert_eq!(resumed.next_event().await.position, written);
        }
    });
}
