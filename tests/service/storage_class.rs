//! Storage classes of archived files. The class of the bytes follows the last change of the file, and no
//! failure on the way loses bytes or leaves unused objects.

use std::{future::Future, pin::pin, task::Poll};

use strongroom::{
    app::storage::{apply_storage_class::apply_storage_class, status::list_provider_statuses},
    domain::{
        ids::{BlobId, TenantId},
        object_key::ObjectKey,
        storage_class::StorageClass::{self, Archive, Standard},
    },
    proto::v1::{self, CopyFileRequest, FileState},
    storage::{
        ObjectStorage, PutOptions, StorageErrorKind,
        flaky::{Fault, Operation, Plan},
    },
    worker,
};

use crate::harness::{PART, Service, file_id, pattern, service_test, service_test_with, sha256, spec};

const JOBS: &str = "SELECT count(*) FROM jobs WHERE kind = 'apply_storage_class'";

/// Runs a test with a store that supports an archive class.
fn archiving_test<F, Fut>(test: F)
where
    F: FnOnce(Service) -> Fut,
    Fut: Future<Output = ()>,
{
    service_test(|s| async move {
        s.faults.enable_storage_classes();
        test(s).await;
    });
}

async fn upload_file(s: &Service, data: &[u8]) -> String {
    file_id(&s.alice().upload(spec("a"), data).await.unwrap())
}

async fn copy_file(s: &Service, id: &str) -> String {
    s.alice().copy(CopyFileRequest { file_id: id.to_owned(), ..Default::default() }).await.unwrap().id
}

async fn run_all_rounds(s: &Service) {
    while worker::run_round(&s.app).await.done > 0 {}
}

/// Returns the classes in the rows of all blobs, oldest first. Asserts that their objects have the same
/// class.
async fn list_classes(s: &Service) -> Vec<StorageClass> {
    let rows = s
        .superuser
        .query_rows("SELECT storage_key, storage_class FROM blobs ORDER BY create_time, id", &[])
        .await;
    let class = |row: &tokio_postgres::Row| {
        let class = StorageClass::from_number(row.get(1)).unwrap();
        let put = s.faults.storage_class(row.get(0)).expect("no object with the key of the blob");
        assert_eq!(put, class, "the object has the class of its row");
        class
    };
    rows.iter().map(class).collect()
}

async fn count_objects(s: &Service) -> usize {
    s.store.list("", None, 100).await.unwrap().objects.len()
}

/// Asserts that after the deletion delay each blob has one object, and no other object exists.
async fn assert_no_extra_objects(s: &Service) {
    s.clock.advance(chrono::Duration::hours(73));
    run_all_rounds(s).await;
    assert_eq!(s.superuser.query_number("SELECT count(*) FROM stray_objects").await, 0);
    assert_eq!(count_objects(s).await as i64, s.superuser.query_number("SELECT count(*) FROM blobs").await);
}

async fn tenant_id(s: &Service) -> TenantId {
    s.alice().tenant_id().await.parse().unwrap()
}

#[test]
fn archived_bytes_move_to_archive_class_and_back() {
    archiving_test(|s| async move {
        let data = pattern(3 * PART + 1);
        let id = upload_file(&s, &data).await;
        s.alice().upload_version(&id, b"second").await.unwrap();
        let quota = s.alice().quota().await.unwrap().used_bytes;
        s.alice().archive(&id).await.unwrap();
        assert_eq!(
            (s.superuser.query_number(JOBS).await, list_classes(&s).await),
            (1, vec![Standard, Standard])
        );
        run_all_rounds(&s).await;
        assert_eq!(list_classes(&s).await, [Archive, Archive], "all versions");
        let versions = s.alice().list_versions(&id, 0).await.unwrap();
        assert!(
            versions.iter().all(|version| version.storage_class() == v1::StorageClass::Archive),
            "{versions:?}"
        );
        let provider_status = &list_provider_statuses(&s.db, &s.stores, s.app.owners()).await.unwrap()[0];
        assert_eq!((provider_status.bytes, provider_status.archived_bytes), (quota as u64, quota as u64));
        s.clock.advance(chrono::Duration::hours(71));
        run_all_rounds(&s).await;
        assert_eq!(count_objects(&s).await, 4, "the originals stay until the deletion delay has passed");
        assert_no_extra_objects(&s).await;
        assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Archived);
        assert_eq!(
            s.alice().quota().await.unwrap().used_bytes,
            quota,
            "archived files count against the quota"
        );

        s.alice().unarchive(&id).await.unwrap();
        assert_eq!(sha256(&s.alice().read_version(&id, 1).await.unwrap()), sha256(&data), "readable at once");
        run_all_rounds(&s).await;
        assert_eq!(list_classes(&s).await, [Standard, Standard]);
        let versions = s.alice().list_versions(&id, 0).await.unwrap();
        assert!(
            versions.iter().all(|version| version.storage_class() == v1::StorageClass::Standard),
            "{versions:?}"
        );
        assert_no_extra_objects(&s).await;
        assert_eq!(sha256(&s.alice().read_version(&id, 1).await.unwrap()), sha256(&data));
        assert_eq!(s.alice().read(&id).await.unwrap(), b"second"[..]);
        assert_eq!(s.alice().quota().await.unwrap().used_bytes, quota);
        let audited = "SELECT count(*) FROM audit_entries WHERE action = {audit_action.storage_move}
            AND details ->> 'storage_class' = ";
        for class in ["'archive'", "'standard'"] {
            assert_eq!(s.superuser.query_number(&format!("{audited}{class}")).await, 2, "{class}");
        }
    });
}

#[test]
fn store_without_archive_class_gets_no_jobs() {
    service_test(|s| async move {
        let id = upload_file(&s, b"bytes").await;
        s.alice().archive(&id).await.unwrap();
        assert_eq!(s.superuser.query_number(JOBS).await, 0);
        s.alice().unarchive(&id).await.unwrap();
        assert_eq!(s.superuser.query_number(JOBS).await, 0);
        let standard = "SELECT count(*) FROM blobs WHERE storage_class = {storage_class.standard}";
        assert_eq!((s.superuser.query_number(standard).await, count_objects(&s).await), (1, 1));

        // The store had an archive class, and its operator disabled it.
        s.alice().archive(&id).await.unwrap();
        s.superuser.execute("UPDATE blobs SET storage_class = {storage_class.archive}").await;
        s.alice().unarchive(&id).await.unwrap();
        assert_eq!(s.superuser.query_number(JOBS).await, 1);
        run_all_rounds(&s).await;
        assert_eq!(s.superuser.query_number(standard).await, 1, "archived bytes still move back");
        assert_eq!(s.alice().read(&id).await.unwrap(), b"bytes"[..]);
    });
}

#[test]
fn file_with_many_versions_moves_completely() {
    archiving_test(|s| async move {
        let id = upload_file(&s, b"first").await;
        for n in 0..24_u8 {
            s.alice().upload_version(&id, &[n]).await.unwrap();
        }
        s.alice().archive(&id).await.unwrap();
        run_all_rounds(&s).await;
        assert_eq!(list_classes(&s).await, [Archive; 25]);
        assert_no_extra_objects(&s).await;
    });
}

#[test]
fn shared_bytes_move_after_all_files_are_archived() {
    archiving_test(|s| async move {
        let one = upload_file(&s, b"shared").await;
        let two = copy_file(&s, &one).await;
        for (id, archive, expected) in [
            (&one, true, Standard),
            (&two, true, Archive),
            (&one, false, Standard),
            (&one, true, Archive),
            (&two, false, Standard),
        ] {
            match archive {
                true => s.alice().archive(id).await.unwrap(),
                false => s.alice().unarchive(id).await.unwrap(),
            };
            run_all_rounds(&s).await;
            assert_eq!(list_classes(&s).await, [expected], "{archive}");
        }
        assert_eq!(s.alice().read(&two).await.unwrap(), b"shared"[..]);
        assert_no_extra_objects(&s).await;
    });
}

#[test]
fn last_of_several_archive_changes_wins() {
    archiving_test(|s| async move {
        let id = upload_file(&s, b"bytes").await;
        for (turns, expected) in [(3, Archive), (3, Standard), (4, Standard)] {
            for _ in 0..turns {
                match s.alice().get(&id).await.unwrap().state() {
                    FileState::Archived => s.alice().unarchive(&id).await.unwrap(),
                    _ => s.alice().archive(&id).await.unwrap(),
                };
            }
            assert_eq!(s.superuser.query_number(JOBS).await, 1, "the changes share a job");
            run_all_rounds(&s).await;
            assert_eq!(list_classes(&s).await, [expected], "after {turns} changes");
        }
        assert_no_extra_objects(&s).await;
        assert_eq!(s.alice().read(&id).await.unwrap(), b"bytes"[..]);
    });
}

/// Polls a future until a condition holds, and leaves it pending.
async fn poll_until<T>(work: &mut (impl Future<Output = T> + Unpin), has_happened: impl Fn() -> bool) {
    std::future::poll_fn(|context| {
        assert!(
            std::pin::Pin::new(&mut *work).poll(context).is_pending(),
            "the future completed before the condition held"
        );
        if has_happened() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[test]
fn file_unarchived_during_move_gets_its_bytes_back() {
    archiving_test(|s| async move {
        let one = upload_file(&s, b"shared").await;
        let two = copy_file(&s, &one).await;
        s.alice().archive(&one).await.unwrap();
        s.alice().archive(&two).await.unwrap();
        let tenant = tenant_id(&s).await;
        let mut moving = pin!(apply_storage_class(&s.app, tenant, one.parse().unwrap()));
        poll_until(&mut moving, || s.faults.call_count(Operation::Copy) == 1).await;
        // Its own job does nothing, because the bytes are not in the archive yet.
        s.alice().unarchive(&two).await.unwrap();
        apply_storage_class(&s.app, tenant, two.parse().unwrap()).await.unwrap();
        moving.await.unwrap();
        assert_eq!(list_classes(&s).await, [Standard], "the first job checked again");
        assert_eq!(s.alice().read(&two).await.unwrap(), b"shared"[..]);
        run_all_rounds(&s).await;
        assert_eq!(count_objects(&s).await, 1, "the copy was deleted");
    });
}

#[test]
fn class_change_waits_for_uncommitted_move() {
    archiving_test(|s| async move {
        let id = upload_file(&s, b"bytes").await;
        s.alice().archive(&id).await.unwrap();
        run_all_rounds(&s).await;
        assert_eq!(list_classes(&s).await, [Archive]);
        let key = s.superuser.query_texts("SELECT storage_key FROM blobs").await.remove(0);
        // Simulates a move to the archive class that is not committed yet.
        s.superuser.execute("UPDATE blobs SET storage_class = {storage_class.standard}").await;
        let other = s.database.connect_as_superuser().await;
        other.execute("BEGIN; UPDATE blobs SET storage_class = {storage_class.archive}").await;
        s.alice().unarchive(&id).await.unwrap();
        let task = tokio::spawn({
            let (app, tenant, file) = (s.app.clone(), tenant_id(&s).await, id.parse().unwrap());
            async move { apply_storage_class(&app, tenant, file).await }
        });
        let waiting = "SELECT count(*) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
            WHERE NOT l.granted AND l.locktype = 'transactionid' AND a.datname = current_database()";
        s.wait_until("the job waits for the row", || async { s.superuser.query_number(waiting).await > 0 })
            .await;
        other.execute("COMMIT").await;
        task.await.unwrap().unwrap();
        assert_eq!(list_classes(&s).await, [Standard]);
        assert_ne!(s.superuser.query_texts("SELECT storage_key FROM blobs").await, [key]);
        assert_no_extra_objects(&s).await;
    });
}

#[test]
fn next_attempt_succeeds_after_storage_fault() {
    archiving_test(|s| async move {
        use {Fault::*, Operation::*, StorageErrorKind::*};
        let data = pattern(2 * PART);
        let id = upload_file(&s, &data).await;
        for (operation, fault) in [
            (Copy, Before(NoSpace)),
            (Copy, After(Unavailable)),
            (Get, Before(Unavailable)),
            (Get, EndStream { after_bytes: 7 }),
            (Get, CutStream { after_bytes: PART as u64 }),
        ] {
            s.faults.set_plan(Plan::new().with_fault(operation, 1, fault));
            s.alice().archive(&id).await.unwrap();
            run_all_rounds(&s).await;
            assert_eq!(list_classes(&s).await, [Standard], "{operation:?} {fault:?}");
            let failed = "SELECT count(*) FROM jobs WHERE last_error <> ''";
            assert_eq!(s.superuser.query_number(failed).await, 1, "{operation:?} {fault:?}");
            s.faults.set_plan(Plan::new());
            s.clock.advance(chrono::Duration::hours(1));
            run_all_rounds(&s).await;
            assert_eq!(list_classes(&s).await, [Archive], "{operation:?} {fault:?}");
            s.alice().unarchive(&id).await.unwrap();
            run_all_rounds(&s).await;
        }
        assert!(s.alice().read(&id).await.unwrap() == data);
        assert_no_extra_objects(&s).await;
    });
}

/// Polls a future at most the given number of times, then drops it. Returns whether it completed.
async fn completes_within(polls: usize, work: impl Future) -> bool {
    let mut work = pin!(work);
    let mut polls_left = polls;
    std::future::poll_fn(move |context| {
        if work.as_mut().poll(context).is_ready() {
            return Poll::Ready(true);
        }
        polls_left -= 1;
        if polls_left == 0 { Poll::Ready(false) } else { Poll::Pending }
    })
    .await
}

#[test]
fn aborted_class_change_loses_and_leaves_nothing() {
    archiving_test(|s| async move {
        let data = pattern(2 * PART);
        let id = upload_file(&s, &data).await;
        let (tenant, file) = (tenant_id(&s).await, id.parse().unwrap());
        s.alice().archive(&id).await.unwrap();
        let mut polls = 1;
        while !completes_within(polls, apply_storage_class(&s.app, tenant, file)).await {
            polls += 1;
        }
        assert!(polls > 5, "it was aborted only {polls} times");
        run_all_rounds(&s).await;
        assert_eq!(list_classes(&s).await, [Archive]);
        assert_no_extra_objects(&s).await;
        s.alice().unarchive(&id).await.unwrap();
        assert!(s.alice().read(&id).await.unwrap() == data);
        run_all_rounds(&s).await;
        assert_eq!(list_classes(&s).await, [Standard]);
    });
}

#[test]
fn purge_deletes_bytes_in_any_class() {
    archiving_test(|s| async move {
        let id = upload_file(&s, b"bytes").await;
        s.alice().archive(&id).await.unwrap();
        run_all_rounds(&s).await;
        s.alice().unarchive(&id).await.unwrap();
        s.alice().purge(&id).await.unwrap();
        run_all_rounds(&s).await;
        assert_eq!(s.superuser.query_number(JOBS).await, 0, "a purged file needs no job");
        assert_no_extra_objects(&s).await;
        assert_eq!(count_objects(&s).await, 0);
    });
}

#[test]
fn blob_moved_during_copy_is_handled_by_next_job() {
    archiving_test(|s| async move {
        let id = upload_file(&s, b"bytes").await;
        s.alice().archive(&id).await.unwrap();
        s.superuser.execute("DELETE FROM jobs").await;
        let mut moving = pin!(apply_storage_class(&s.app, tenant_id(&s).await, id.parse().unwrap()));
        poll_until(&mut moving, || s.faults.call_count(Operation::Copy) == 1).await;
        // Simulates a move to another key in the same class.
        let key =
            ObjectKey::parse(&s.superuser.query_texts("SELECT storage_key FROM blobs").await[0]).unwrap();
        let other = key.with_new_blob(key.day(), BlobId::from_uuid(uuid::Uuid::from_u128(7))).unwrap();
        s.faults.copy(&key, &other, &PutOptions::default()).await.unwrap();
        s.superuser.execute(&format!("UPDATE blobs SET storage_key = '{other}'")).await;
        moving.await.unwrap();
        assert_eq!(list_classes(&s).await, [Standard]);
        s.store.delete(&key).await.unwrap();
        run_all_rounds(&s).await;
        assert_eq!(list_classes(&s).await, [Archive]);
        assert_no_extra_objects(&s).await;
    });
}

#[test]
fn unconfigured_provider_does_not_block_other_versions() {
    archiving_test(|s| async move {
        let id = upload_file(&s, b"first").await;
        s.alice().upload_version(&id, b"second").await.unwrap();
        s.alice().archive(&id).await.unwrap();
        let provider = s.superuser.query_texts("SELECT DISTINCT provider FROM blobs").await.remove(0);
        s.superuser
            .execute("UPDATE blobs SET provider = 'gone' WHERE id = (SELECT min(id::text)::uuid FROM blobs)")
            .await;
        apply_storage_class(&s.app, tenant_id(&s).await, id.parse().unwrap()).await.unwrap_err();
        let archived = "SELECT count(*) FROM blobs WHERE storage_class = {storage_class.archive}";
        assert_eq!(s.superuser.query_number(archived).await, 1);
        s.superuser.execute(&format!("UPDATE blobs SET provider = '{provider}'")).await;
        run_all_rounds(&s).await;
        assert_eq!(list_classes(&s).await, [Archive, Archive]);
    });
}

#[test]
fn failing_blobs_do_not_block_later_ones() {
    archiving_test(|s| async move {
        let id = upload_file(&s, b"first").await;
        for n in 0..24_u8 {
            s.alice().upload_version(&id, &[n]).await.unwrap();
        }
        s.alice().archive(&id).await.unwrap();
        let down = Fault::Before(StorageErrorKind::Unavailable);
        s.faults
            .set_plan((1..=20).fold(Plan::new(), |plan, nth| plan.with_fault(Operation::Copy, nth, down)));
        apply_storage_class(&s.app, tenant_id(&s).await, id.parse().unwrap()).await.unwrap_err();
        let archived = "SELECT count(*) FROM blobs WHERE storage_class = {storage_class.archive}";
        assert_eq!(s.superuser.query_number(archived).await, 5);
        s.faults.set_plan(Plan::new());
        run_all_rounds(&s).await;
        assert_eq!(list_classes(&s).await, [Archive; 25]);
    });
}

#[test]
fn original_stays_an_hour_without_deletion_delay() {
    service_test_with(
        |config| config.retention.blob_deletion_delay_hours = 0,
        |s| async move {
            s.faults.enable_storage_classes();
            let id = upload_file(&s, b"bytes").await;
            s.alice().archive(&id).await.unwrap();
            run_all_rounds(&s).await;
            assert_eq!((list_classes(&s).await, count_objects(&s).await), (vec![Archive], 2));
            s.clock.advance(chrono::Duration::minutes(59));
            run_all_rounds(&s).await;
            assert_eq!(count_objects(&s).await, 2);
            s.clock.advance(chrono::Duration::minutes(2));
            run_all_rounds(&s).await;
            assert_eq!(count_objects(&s).await, 1);
        },
    );
}
