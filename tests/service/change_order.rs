//! The events of a file have the order of its changes, also if transactions got their ids in another order
//! (`docs/decisions/0010-order-of-changes.md`). The invariants of every test check it in the database, too.

use std::collections::BTreeMap;

use strongroom::{
    db::migrate::replace_state_names,
    proto::v1::{
        BatchDeleteFilesRequest, CopyFileRequest, File, FileEvent, FileEventKind as Kind, FileState,
        UndeleteFileRequest, UploadSpec,
    },
};
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;

use crate::{
    harness::{Caller, Service, Superuser, Watcher, reason, service_test},
    ownership::transfer,
    scrub::{object_key, scrub},
    webhooks::local_test,
};

/// Locks a file until the transaction of the returned connection ends.
pub(crate) async fn hold_file(s: &Service, id: &str) -> Superuser {
    let holder = s.database.connect_as_superuser().await;
    holder.execute(&format!("BEGIN; SELECT FROM files WHERE id = '{id}' FOR UPDATE")).await;
    holder
}

/// Waits until this many transactions wait for a row. They get it in the order of their arrival.
pub(crate) async fn wait_for_waiters(s: &Service, count: i64) {
    let waiting = "SELECT count(*) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
        WHERE NOT l.granted AND l.locktype IN ('transactionid', 'tuple') AND a.datname = current_database()";
    let what = format!("{count} transactions wait");
    s.wait_until(&what, || async { s.superuser.query_number(waiting).await == count }).await;
}

/// Starts a call and waits until it waits for a file, as the last of `count` transactions.
pub(crate) async fn start_waiting<T: Send + 'static>(
    s: &Service,
    count: i64,
    call: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    let task = tokio::spawn(call);
    wait_for_waiters(s, count).await;
    task
}

/// Uploads two files of alice. They are locked in the order in which they are returned.
async fn upload_two_files(s: &Service) -> [String; 2] {
    let mut ids = s.upload_files(&["a", "b"]).await;
    ids.sort();
    ids.try_into().unwrap()
}

/// Renames a file. The transaction gets its id with the lock.
async fn rename(alice: Caller, id: String) {
    alice.rename(&id, "renamed").await.unwrap();
}

/// Starts a watch that gets none of the earlier events. It starts at the oldest transaction that is still running, also
/// in other databases of the server.
async fn watch_from_now(s: &Service) -> Watcher {
    s.wait_until_events_are_readable().await;
    s.bob().watch_files().await
}

async fn assert_next_events(watcher: &mut Watcher, expected: &[(Kind, &String, i64)]) {
    let mut received = Vec::new();
    for _ in expected {
        received.push(watcher.next_event().await);
    }
    let found: Vec<(Kind, &String, i64)> =
        received.iter().map(|event| (event.kind(), &event.file_id, event.revision)).collect();
    assert_eq!(found, expected);
    assert!(received.is_sorted_by(|a, b| a.position < b.position));
}

/// The batch locks the first file, and so gets its transaction id, before the undeletion gets the second one.
#[test]
fn deletion_is_heard_after_the_undeletion_before_it() {
    service_test(|s| async move {
        let alice = s.alice();
        let [first, second] = upload_two_files(&s).await;
        alice.delete(&second).await.unwrap();
        let mut watcher = watch_from_now(&s).await;
        let holder = hold_file(&s, &second).await;
        let (caller, id) = (alice.clone(), second.clone());
        let undeleted = start_waiting(&s, 1, async move { caller.undelete(&id).await }).await;
        let (caller, ids) = (alice.clone(), [first.clone(), second.clone()]);
        let deleted = async move { caller.batch_delete(&[&ids[0], &ids[1]]).await };
        let deleted = start_waiting(&s, 2, deleted).await;
        holder.execute("ROLLBACK").await;
        undeleted.await.unwrap().unwrap();
        deleted.await.unwrap().unwrap();
        let expected =
            [(Kind::Undeleted, &second, 3), (Kind::Deleted, &first, 2), (Kind::Deleted, &second, 4)];
        assert_next_events(&mut watcher, &expected).await;
        let file = alice.get(&second).await.unwrap();
        assert_eq!((file.state(), file.revision), (FileState::Deleted, 4));
        // The audit log has the same order.
        let unaudited = "SELECT count(*) FROM events AS e WHERE NOT EXISTS (
            SELECT FROM audit_entries AS a WHERE (a.file_id, a.epoch, a.xid) = (e.file_id, e.epoch, e.xid))";
        assert_eq!(s.superuser.query_number(unaudited).await, 0);
    });
}

#[test]
fn transfer_is_heard_after_the_update_before_it() {
    service_test(|s| async move {
        let [first, second] = upload_two_files(&s).await;
        let mut watcher = watch_from_now(&s).await;
        let holder = hold_file(&s, &second).await;
        let renamed = start_waiting(&s, 1, rename(s.alice(), second.clone())).await;
        let admin = s.ada();
        let transferred = async move { transfer(&admin, ("alice", "bob"), |_| {}).await };
        let transferred = start_waiting(&s, 2, transferred).await;
        // When this one gets the files, they belong to bob.
        let admin = s.ada();
        let too_late = async move { transfer(&admin, ("alice", "carol"), |_| {}).await };
        let too_late = start_waiting(&s, 3, too_late).await;
        holder.execute("ROLLBACK").await;
        renamed.await.unwrap();
        assert_eq!(transferred.await.unwrap().unwrap().transferred_file_count, 2);
        assert_eq!(too_late.await.unwrap().unwrap().transferred_file_count, 0);
        assert_eq!(s.ada().get(&first).await.unwrap().owner_id, "bob");
        let expected =
            [(Kind::Updated, &second, 2), (Kind::OwnerChanged, &first, 2), (Kind::OwnerChanged, &second, 3)];
        assert_next_events(&mut watcher, &expected).await;
    });
}

#[test]
fn version_is_heard_after_the_update_before_it() {
    service_test(|s| async move {
        let (alice, ids) = (s.alice(), s.upload_files(&["a"]).await);
        let mut watcher = watch_from_now(&s).await;
        let holder = hold_file(&s, &ids[0]).await;
        let renamed = start_waiting(&s, 1, rename(alice.clone(), ids[0].clone())).await;
        let id = ids[0].clone();
        let version = start_waiting(&s, 2, async move { alice.upload_version(&id, b"y").await }).await;
        holder.execute("ROLLBACK").await;
        renamed.await.unwrap();
        assert_eq!(version.await.unwrap().unwrap().revision, 3);
        let expected = [(Kind::Updated, &ids[0], 2), (Kind::VersionCreated, &ids[0], 3)];
        assert_next_events(&mut watcher, &expected).await;
    });
}

#[test]
fn damage_is_heard_after_the_update_before_it() {
    service_test(|s| async move {
        s.allow_logged_errors();
        let id = crate::scrub::upload_file(&s, 10).await;
        s.store.delete(&object_key(&s).await).await.unwrap();
        let mut watcher = watch_from_now(&s).await;
        let holder = hold_file(&s, &id).await;
        let renamed = start_waiting(&s, 1, rename(s.alice(), id.clone())).await;
        let scrubber = s.clone();
        let scrubbed = start_waiting(&s, 2, async move { scrub(&scrubber).await }).await;
        holder.execute("ROLLBACK").await;
        renamed.await.unwrap();
        assert_eq!(scrubbed.await.unwrap(), 1);
        assert_next_events(&mut watcher, &[(Kind::Updated, &id, 2), (Kind::Damaged, &id, 3)]).await;
    });
}

#[test]
fn copy_waits_for_the_purge_before_it() {
    service_test(|s| async move {
        let (alice, ids) = (s.alice(), s.upload_files(&["a"]).await);
        let holder = hold_file(&s, &ids[0]).await;
        let (caller, id) = (alice.clone(), ids[0].clone());
        let purged = start_waiting(&s, 1, async move { caller.purge(&id).await }).await;
        let request = CopyFileRequest { file_id: ids[0].clone(), ..CopyFileRequest::default() };
        let copied = start_waiting(&s, 2, async move { alice.copy(request).await }).await;
        holder.execute("ROLLBACK").await;
        purged.await.unwrap().unwrap();
        assert_eq!(copied.await.unwrap().unwrap_err().code(), tonic::Code::NotFound);
        let unreferenced = "SELECT count(*) FROM blobs WHERE delete_after IS NOT NULL";
        assert_eq!(s.superuser.query_number(unreferenced).await, 1);
    });
}

/// A commit of several versions can get its transaction id before it gets the last file.
#[test]
fn version_has_the_position_of_its_event() {
    const COMMIT: &str = "SELECT c.event_positions ->> '00000000-0000-7000-8000-0000000000bb'
        FROM files AS f JOIN versions AS v ON v.file_id = f.id JOIN blobs AS b ON b.id = v.blob_id,
            app.commit_uploads(jsonb_build_array(to_jsonb(b) || to_jsonb(v) || jsonb_build_object(
                'blob_id', '00000000-0000-7000-8000-0000000000bb', 'storage_key', b.storage_key || '0',
                'category', f.category, 'is_version', true, 'if_etag', '', 'version_count_max', 9,
                'event_kind', {event_kind.file_version_created}, 'audit_action', {audit_action.file_upload},
                'actor_kind', {actor_kind.system}, 'actor_id', 'alice', 'audit_call_id', '', 'audit_address', '',
                'audit_details', '{}'::jsonb)), 1) AS c";
    const STORED: &str = "SELECT lpad(to_hex(e.epoch::bigint << 48 | e.xid::text::bigint), 16, '0')
            || lpad(to_hex(e.n), 16, '0')
        FROM events AS e ORDER BY e.revision DESC LIMIT 1";
    service_test(|s| async move {
        let (alice, ids) = (s.alice(), s.upload_files(&["a"]).await);
        let tenant = alice.tenant_id().await;
        let mut writer = s.database.connect_as_app().await;
        let writer = writer.transaction().await.unwrap();
        let begin = format!(
            "SET LOCAL app.tenant_id = '{tenant}'; SET LOCAL app.audience_min = '1'; SELECT pg_current_xact_id()"
        );
        writer.batch_execute(&begin).await.unwrap();
        alice.rename(&ids[0], "b").await.unwrap();
        let renamed: String = writer.query_one(STORED, &[]).await.unwrap().get(0);
        let commit = replace_state_names(COMMIT).unwrap();
        let returned: String = writer.query_one(&*commit, &[]).await.unwrap().get(0);
        let stored: String = writer.query_one(STORED, &[]).await.unwrap().get(0);
        assert_eq!(returned, stored);
        assert!(stored > renamed, "{stored} {renamed}");
        writer.rollback().await.unwrap();
    });
}

/// A row keeps the lower 32 bits of the id that wrote it. An old one looks as if a transaction of the future had.
#[test]
fn change_of_an_old_row_is_accepted() {
    service_test(|s| async move {
        // Rows that any transaction can have written.
        let view =
            "CREATE VIEW written AS SELECT NULL::uuid AS id, current_setting('test.xmin')::xid AS xmin;
            CREATE TRIGGER change_order INSTEAD OF DELETE ON written FOR EACH ROW
                EXECUTE FUNCTION app.guard_change_order();
            GRANT SELECT, DELETE ON written TO strongroom_app";
        s.superuser.execute(view).await;
        let writer = s.database.connect_as_app().await;
        writer.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
        let later = s.superuser.query_number("SELECT pg_current_xact_id()::text").await;
        let delete = |xid: i64| format!("SET LOCAL test.xmin = '{xid}'; DELETE FROM written");
        writer.batch_execute(&delete(later + 1_000_000_000)).await.unwrap();
        let error = writer.batch_execute(&delete(later)).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE), "{error:?}");
        writer.batch_execute("ROLLBACK").await.unwrap();
    });
}

/// A writer that takes its transaction id before it locks the file.
#[test]
fn change_with_an_earlier_position_is_rejected() {
    service_test(|s| async move {
        let (alice, ids) = (s.alice(), s.upload_files(&["a"]).await);
        let (id, tenant) = (&ids[0], alice.tenant_id().await);
        let mut watcher = watch_from_now(&s).await;
        let begin = format!(
            "BEGIN; SET LOCAL app.tenant_id = '{tenant}'; SET LOCAL app.audience_min = '1';
             SELECT pg_current_xact_id()"
        );
        let change = format!("UPDATE files SET revision = revision + 1 WHERE id = '{id}'");
        let event = format!(
            "INSERT INTO events (tenant_id, create_time, kind, file_id, version, revision, actor_id, owner_id, audience,
                readers)
             VALUES ('{tenant}', app.now(), {{event_kind.file_updated}}, '{id}', 1, 5, 'alice', 'alice',
                {{visibility.organization}}, '{{}}')"
        );
        let event = replace_state_names(&event).unwrap();

        let writer = s.database.connect_as_app().await;
        let purge = format!("DELETE FROM files WHERE id = '{id}'");
        for (refused, name) in [(&change, "b"), (&purge, "b again")] {
            writer.batch_execute(&begin).await.unwrap();
            alice.rename(id, name).await.unwrap();
            let error = writer.batch_execute(refused).await.unwrap_err();
            assert_eq!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE), "{refused}: {error:?}");
            writer.batch_execute("ROLLBACK").await.unwrap();
        }

        // With the function for locks, the same writer gets a later position.
        writer.batch_execute(&begin).await.unwrap();
        alice.rename(id, "c").await.unwrap();
        let lock = format!("SELECT app.lock_files('{tenant}', ARRAY['{id}']::uuid[])");
        writer.batch_execute(&format!("{lock}; {change}; {event}; COMMIT")).await.unwrap();
        alice.rename(id, "d").await.unwrap();
        let expected = [2, 3, 4, 5, 6].map(|revision| (Kind::Updated, id, revision));
        assert_next_events(&mut watcher, &expected).await;
    });
}

/// Transactions get their ids while they wait for the file, so they get it in another order.
#[test]
fn concurrent_changes_of_one_file_are_accepted() {
    service_test(|s| async move {
        let ids = s.upload_files(&["a"]).await;
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                let (alice, id) = (s.alice(), ids[0].clone());
                tokio::spawn(async move {
                    for _ in 0..CHANGES_PER_WRITER {
                        rename(alice.clone(), id.clone()).await;
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        let changes = i64::try_from(WRITERS * CHANGES_PER_WRITER).unwrap();
        assert_eq!(s.alice().get(&ids[0]).await.unwrap().revision, 1 + changes);
        let positions = "SELECT (SELECT array_agg(revision ORDER BY epoch, xid, n) FROM events)
            = (SELECT array_agg(revision ORDER BY revision) FROM events)";
        assert_eq!(s.superuser.query_number(&format!("({positions})::int")).await, 1);
    });
}

const FILES: usize = 6;
const WRITERS: usize = 8;
const CHANGES_PER_WRITER: usize = 12;

/// Makes the change with this number: a batch of overlapping files, or a change of one file. Returns the position of
/// its event, which is empty if nothing changed.
async fn change_files(alice: &Caller, ids: &[String], number: usize) -> String {
    let id = |offset: usize| ids[(number * 5 + offset) % FILES].clone();
    let mut files = alice.files.clone();
    let changed = match number % 5 {
        0 | 1 => {
            let file_ids = vec![id(4), id(0), id(1)];
            let request = BatchDeleteFilesRequest { file_ids, request_id: String::new() };
            files.batch_delete_files(request).await.map(|response| response.into_inner().event_position)
        }
        2 | 3 => {
            let request = UndeleteFileRequest { file_id: id(0), ..UndeleteFileRequest::default() };
            files.undelete_file(request).await.map(|response| response.into_inner().event_position)
        }
        _ => {
            let spec = UploadSpec { file_id: id(3), ..UploadSpec::default() };
            alice.upload(spec, b"y").await.map(|response| response.event_position)
        }
    };
    changed.unwrap_or_else(|error| {
        // A file in the trash rejects a version.
        assert_eq!((reason(&error).as_str(), number % 5), ("FILE_DELETED", 4), "{error:?}");
        String::new()
    })
}

/// Asserts that the last event that moves the file to or from the trash agrees with its state.
fn assert_final_state(events: &[&FileEvent], file: &File) {
    let mut kinds = events.iter().rev().map(|event| event.kind());
    let last = kinds.find(|kind| matches!(kind, Kind::Deleted | Kind::Undeleted));
    assert_eq!(file.state() == FileState::Deleted, last == Some(Kind::Deleted), "{}", file.id);
}

/// Batches and single changes of overlapping files. A watch and a webhook must have the order of the changes.
#[test]
fn concurrent_batches_keep_the_order_of_each_file() {
    local_test(
        |_| {},
        |s, receiver| async move {
            s.create_webhook_to(&receiver.url).await;
            let names: Vec<String> = (0..FILES).map(|number| number.to_string()).collect();
            let ids = s.upload_files(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
            let mut watcher = watch_from_now(&s).await;
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let (alice, ids) = (s.alice(), ids.clone());
                    tokio::spawn(async move {
                        let mut positions = Vec::new();
                        for change in 0..CHANGES_PER_WRITER {
                            positions.push(change_files(&alice, &ids, writer + change * WRITERS).await);
                        }
                        positions.retain(|position| !position.is_empty());
                        positions
                    })
                })
                .collect();
            for writer in writers {
                let positions = writer.await.unwrap();
                assert!(
                    positions.is_sorted_by(|a, b| a < b),
                    "a later change has a later position: {positions:?}"
                );
            }

            let count = s.superuser.query_number("SELECT count(*) FROM events").await as usize - FILES;
            let mut watched = Vec::new();
            while watched.len() < count {
                watched.push(watcher.next_event().await);
            }
            assert!(watched.is_sorted_by(|a, b| a.position < b.position), "{watched:?}");
            let mut by_file: BTreeMap<&String, Vec<&FileEvent>> = BTreeMap::new();
            for event in &watched {
                by_file.entry(&event.file_id).or_default().push(event);
            }
            for id in &ids {
                let (file, events) =
                    (s.alice().get(id).await.unwrap(), by_file.remove(id).unwrap_or_default());
                // Each of these changes has one event, so no revision is missing.
                let revisions: Vec<i64> = events.iter().map(|event| event.revision).collect();
                assert_eq!(revisions, (2..=file.revision).collect::<Vec<_>>(), "{id}");
                assert_final_state(&events, &file);
            }

            assert_eq!(s.deliver_all().await, FILES + count);
            let messages: Vec<serde_json::Value> =
                receiver.messages().iter().map(|message| message.json()["data"].take()).collect();
            for (sent, event) in messages[FILES..].iter().zip(&watched) {
                assert_eq!(
                    (&sent["position"], &sent["file_id"], &sent["revision"]),
                    (&event.position.as_str().into(), &event.file_id.as_str().into(), &event.revision.into()),
                );
            }
        },
    );
}
