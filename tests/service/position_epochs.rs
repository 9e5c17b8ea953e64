//! Positions of events in several incarnations of the database: copies, failovers, and cursors of former versions.
//! `tests/faults/epochs.rs` has restores into other clusters.

use chrono::Duration;
use strongroom::proto::v1::FileEventKind as Kind;

use crate::{
    harness::{Service, reason, service_test, spec},
    watch::{assert_cursor_too_old, upload_file},
    webhook_rounds::FAILOVER,
    webhooks::local_test,
};

const EPOCHS: &str = "SELECT count(DISTINCT epoch) FROM app.position_epochs";

#[test]
fn watch_continues_in_new_incarnation() {
    service_test(|s| async move {
        let mut open = s.bob().watch_files().await;
        let start = open.cursor.clone();
        let file = upload_file(&s.alice(), spec("a")).await;
        assert_eq!(open.next_kind_and_file().await, (Kind::Created, file.clone()));
        let after_first = open.cursor.clone();
        s.superuser.execute(FAILOVER).await;
        // Nothing has been written since.
        let mut resumed = s.bob().watch_files_after(&start).await.unwrap();
        let created = resumed.next_event().await;
        s.alice().rename(&file, "b").await.unwrap();
        for watcher in [&mut open, &mut resumed] {
            let renamed = watcher.next_event().await;
            assert_eq!((renamed.kind(), &renamed.file_id), (Kind::Updated, &file));
            assert!(renamed.position > created.position, "positions ascend over epochs");
        }
        let mut resumed = s.bob().watch_files_after(&after_first).await.unwrap();
        assert_eq!(resumed.next_kind_and_file().await, (Kind::Updated, file.clone()));
        // A cursor of the new epoch.
        let mut resumed = s.bob().watch_files_after(&open.cursor).await.unwrap();
        s.alice().delete(&file).await.unwrap();
        assert_eq!(resumed.next_kind_and_file().await, (Kind::Deleted, file));
    });
}

#[test]
fn events_with_lower_transaction_ids_are_sent_once() {
    local_test(
        |_| {},
        |s, receiver| async move {
            s.create_webhook_to(&receiver.url).await;
            let mut files = s.upload_files(&["a"]).await;
            assert_eq!(s.deliver_all().await, 1);
            files.extend(s.upload_files(&["b"]).await);
            raise_transaction_ids(&s).await;
            s.superuser.execute(FAILOVER).await;
            let mut watcher = s.bob().watch_files().await;
            s.alice().rename(&files[0], "c").await.unwrap();
            assert_eq!(s.deliver_all().await, 2);
            files.push(files[0].clone());
            assert_eq!(receiver.received_file_ids(), files);
            assert_eq!(watcher.next_kind_and_file().await, (Kind::Updated, files[0].clone()));
        },
    );
}

/// Makes the stored positions look as if the former server had used many more transaction ids than this one.
async fn raise_transaction_ids(s: &Service) {
    for (table, column) in
        [("events", "xid"), ("webhooks", "position_xid"), ("webhook_deliveries", "position_xid")]
    {
        let raise =
            format!("UPDATE {table} SET {column} = ({column}::text::bigint + 100000000000000)::text::xid8");
        s.superuser.execute(&raise).await;
    }
}

#[test]
fn events_and_dead_letters_have_the_order_of_their_epochs() {
    local_test(
        |config| config.attempts_max = 1,
        |s, receiver| async move {
            let (id, _) = s.create_webhook_to(&receiver.url).await;
            receiver.respond_with(&[500, 500, 500]);
            let mut files = s.upload_files(&["a"]).await;
            assert_eq!(s.deliver_all().await, 1, "the event became a dead letter");
            files.extend(s.upload_files(&["b"]).await);
            raise_transaction_ids(&s).await;
            s.superuser.execute(FAILOVER).await;
            s.db.begin_position_epoch().await.unwrap();
            assert_eq!(s.deliver_all().await, 1, "due before anything is written in the new epoch");
            s.alice().rename(&files[1], "c").await.unwrap();
            files.push(files[1].clone());
            assert_eq!(s.deliver_all().await, 1);
            assert_eq!(receiver.received_file_ids(), files);

            let positions: Vec<String> =
                s.list_failed_deliveries(&id).await.into_iter().map(|letter| letter.position).collect();
            assert!(positions.len() == 3 && positions.is_sorted_by(|a, b| a > b), "{positions:?}");
            for position in &positions {
                s.redeliver(&id, position).await;
            }
            assert_eq!(s.deliver_all().await, 3);
            assert_eq!(receiver.received_file_ids()[3..], files, "oldest first");
        },
    );
}

#[test]
fn copy_rejects_cursor_of_event_that_it_lacks() {
    service_test(|s| async move {
        // The copy logs that the store is not its own.
        s.allow_logged_errors();
        let mut watcher = s.alice().watch_files().await;
        let file = upload_file(&s.alice(), spec("a")).await;
        watcher.next_event().await;
        let known = watcher.cursor.clone();
        let copy = s.start_copy().await;
        s.alice().rename(&file, "b").await.unwrap();
        watcher.next_event().await;
        assert_cursor_too_old(&copy, &watcher.cursor).await;
        let mut open = copy.alice().watch_files_after(&known).await.unwrap();
        // Also after the copy has begun an epoch of its own.
        let epochs = copy.superuser.query_number(EPOCHS).await;
        let epoch = copy.db.begin_position_epoch().await.unwrap();
        assert_eq!(copy.db.begin_position_epoch().await.unwrap(), epoch);
        assert_eq!(copy.superuser.query_number(EPOCHS).await, epochs + 1);
        assert_cursor_too_old(&copy, &watcher.cursor).await;
        copy.alice().watch_files_after(&known).await.unwrap();

        // A cursor of an epoch that begins with the same number in the original.
        let of_copy = {
            copy.app.owners().adopt_store("memory").await.unwrap();
            copy.alice().rename(&file, "c").await.unwrap();
            open.next_event().await;
            open.cursor
        };
        s.superuser.execute(FAILOVER).await;
        assert_eq!(s.db.begin_position_epoch().await.unwrap(), epoch);
        assert_cursor_too_old(&s, &of_copy).await;
        s.alice().watch_files_after(&watcher.cursor).await.unwrap();
        copy.stop().await;
        copy.database.drop_database().await;
    });
}

#[test]
fn open_watch_of_lost_event_ends() {
    service_test(|s| async move {
        let mut watcher = s.alice().watch_files().await;
        upload_file(&s.alice(), spec("kept")).await;
        watcher.next_event().await;
        let lost = upload_file(&s.alice(), spec("lost")).await;
        watcher.next_event().await;
        // Simulates a recovery to the time between the two. The file stays, for the invariants.
        let event = format!("SELECT to_jsonb(e)::text FROM events AS e WHERE file_id = '{lost}'");
        let event = s.superuser.query_texts(&event).await.remove(0);
        s.superuser.execute(&format!("DELETE FROM events WHERE file_id = '{lost}'")).await;
        s.superuser.execute(FAILOVER).await;
        s.db.begin_position_epoch().await.unwrap();
        assert_eq!(reason(&watcher.wait_for_end().await), "CURSOR_TOO_OLD");
        assert_cursor_too_old(&s, &watcher.cursor).await;
        let restore = "INSERT INTO events SELECT * FROM jsonb_populate_record(NULL::events, $1::text::jsonb)";
        s.superuser.query_rows(restore, &[&event]).await;
    });
}

/// Makes the database look as if it had been migrated with the events in it.
const FIRST_EPOCH: &str = "UPDATE events SET epoch = 0; DELETE FROM app.position_epochs WHERE epoch > 0;
    UPDATE app.position_epochs SET incarnation = '7-00000001-5';
    CREATE OR REPLACE FUNCTION app.event_incarnation() RETURNS text LANGUAGE sql STABLE RETURN '7-00000001-5'";

/// Waits until readers read all events of transactions with lower ids.
async fn wait_until_readable(s: &Service, xid: i64) {
    s.wait_until("no earlier transaction is running", || async {
        let running = format!("SELECT (pg_snapshot_xmin(pg_current_snapshot())::text::bigint < {xid})::int");
        // Only a transaction that writes takes an id.
        s.superuser.query_number("SELECT pg_current_xact_id()::text").await;
        s.superuser.query_number(&running).await == 0
    })
    .await;
}

#[test]
fn cursor_of_former_version_stays_valid() {
    service_test(|s| async move {
        let file = upload_file(&s.alice(), spec("a")).await;
        s.superuser.execute(FIRST_EPOCH).await;
        let next = s.superuser.query_number("SELECT pg_snapshot_xmax(pg_current_snapshot())::text").await;
        let idle = s.seal_former_cursor(next, "7-00000001-5").await;
        let first = s.seal_former_cursor(3, "7-00000001-5").await;
        let ahead = s.seal_former_cursor(next + 1_000_000_000, "7-00000001-5").await;
        let former = s.seal_former_cursor(3, "6-00000001-5").await;
        wait_until_readable(&s, next).await;
        assert_cursor_too_old(&s, &ahead).await;
        assert_cursor_too_old(&s, &former).await;
        s.alice().watch_files_after(&idle).await.unwrap();

        // A failover: the same server on another timeline.
        s.superuser
            .execute(
                "CREATE OR REPLACE FUNCTION app.event_incarnation() RETURNS text LANGUAGE sql STABLE
                 RETURN '7-00000002-5'",
            )
            .await;
        s.alice().watch_files_after(&idle).await.unwrap();
        s.alice().rename(&file, "b").await.unwrap();
        assert_cursor_too_old(&s, &ahead).await;
        let mut resumed = s.alice().watch_files_after(&idle).await.unwrap();
        assert_eq!(resumed.next_kind_and_file().await, (Kind::Updated, file.clone()));
        let mut resumed = s.alice().watch_files_after(&first).await.unwrap();
        assert_eq!(resumed.next_kind_and_file().await, (Kind::Created, file.clone()));
        assert_eq!(resumed.next_kind_and_file().await, (Kind::Updated, file));

        // Another server, whose ids are unrelated, or another database of the server, which lacks later changes of the
        // original: only positions before a stored event are known.
        for other in ["8-00000001-5", "7-00000001-6"] {
            let set = format!("UPDATE app.position_epochs SET incarnation = '{other}' WHERE epoch > 0");
            s.superuser.execute(&set).await;
            assert_cursor_too_old(&s, &idle).await;
            s.alice().watch_files_after(&first).await.unwrap();
        }
    });
}

#[test]
fn cursor_of_former_version_skips_no_reassigned_id() {
    service_test(|s| async move {
        let file = upload_file(&s.alice(), spec("a")).await;
        s.superuser.execute(FIRST_EPOCH).await;
        // A transaction without events.
        let reassigned = s.superuser.query_number("SELECT pg_current_xact_id()::text").await;
        let cursor = s.seal_former_cursor(reassigned + 1, "7-00000001-5").await;
        s.clock.advance(Duration::seconds(1));
        s.alice().rename(&file, "b").await.unwrap();
        let reassign =
            format!("UPDATE events SET xid = '{reassigned}' WHERE kind = {{event_kind.file_updated}}");
        s.superuser.execute(&reassign).await;
        wait_until_readable(&s, reassigned + 1).await;
        let mut resumed = s.alice().watch_files_after(&cursor).await.unwrap();
        let updated = (Kind::Updated, file);
        assert_eq!(resumed.next_kind_and_file().await, updated, "and not the event before it");
        // Its cursor names an event, like those of this version.
        s.alice().rename(&updated.1, "c").await.unwrap();
        assert_eq!(resumed.next_kind_and_file().await, updated);
        let mut resumed = s.alice().watch_files_after(&resumed.cursor).await.unwrap();
        s.alice().delete(&updated.1).await.unwrap();
        assert_eq!(resumed.next_kind_and_file().await, (Kind::Deleted, updated.1));
    });
}

#[test]
fn concurrent_writers_begin_one_epoch_without_waiting() {
    service_test(|s| async move {
        s.superuser.execute(FAILOVER).await;
        let (one, two) = (s.database.connect_as_app().await, s.database.connect_as_app().await);
        let mut epochs = Vec::new();
        for writer in [&one, &two] {
            writer.batch_execute("BEGIN; SET LOCAL lock_timeout = '1ms'").await.unwrap();
            let row = writer.query_one("SELECT app.position_epoch()", &[]).await.unwrap();
            epochs.push(row.get::<_, i32>(0));
        }
        assert_eq!(epochs[0], epochs[1]);
        one.batch_execute("ROLLBACK").await.unwrap();
        two.batch_execute("COMMIT").await.unwrap();
        assert_eq!(s.db.begin_position_epoch().await.unwrap(), epochs[0]);
        let rows = format!("SELECT count(*) FROM app.position_epochs WHERE epoch = {}", epochs[0]);
        assert_eq!(s.superuser.query_number(&rows).await, 1);
        // A row of another transaction cannot be forged.
        let forged = "INSERT INTO app.position_epochs VALUES (9, 'forged', '3', now())";
        assert!(one.batch_execute(forged).await.is_err());
    });
}

#[test]
fn audit_entries_have_the_epoch_of_their_transaction() {
    service_test(|s| async move {
        let file = upload_file(&s.alice(), spec("a")).await;
        s.superuser.execute(FAILOVER).await;
        s.alice().rename(&file, "b").await.unwrap();
        let differing = "SELECT count(*) FROM audit_entries AS a JOIN events AS e USING (tenant_id, xid)
                         WHERE a.epoch <> e.epoch";
        assert_eq!(s.superuser.query_number(differing).await, 0);
        let ascending =
            "SELECT count(*) FROM audit_entries AS a JOIN audit_entries AS b USING (tenant_id, file_id)
                         WHERE a.epoch < b.epoch";
        assert_eq!(s.superuser.query_number(ascending).await, 1);
    });
}
