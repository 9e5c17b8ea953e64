//! Archived files and the class of storage that their bytes are in: it follows the archive, of any number of changes the last
//! one counts, and on the way nothing is lost and nothing left over.

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

/// Runs a test against a service whose store has a class for archives.
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

async fn stored(s: &Service, data: &[u8]) -> String {
    file_id(&s.alice().upload(spec("a"), data).await.unwrap())
}

async fn copied(s: &Service, id: &str) -> String {
    s.alice().copy(CopyFileRequest { file_id: id.to_owned(), ..Default::default() }).await.unwrap().id
}

async fn rounds(s: &Service) {
    while worker::run_round(&s.app).await > 0 {}
}

/// The classes that the rows of all blobs say, in the order of their age; the objects that they point to are in these classes.
async fn classes(s: &Service) -> Vec<StorageClass> {
    let rows =
        s.owner.rows("SELECT storage_key, storage_class FROM blobs ORDER BY create_time, id", &[]).await;
    let class = |row: &tokio_postgres::Row| {
        let class = StorageClass::from_number(row.get(1)).unwrap();
        let put = s.faults.storage_class(row.get(0)).expect("an object that nobody put");
        assert_eq!(put, class, "the object of a row is in the class that the row says");
        class
    };
    rows.iter().map(class).collect()
}

async fn objects(s: &Service) -> usize {
    s.store.list("", None, 100).await.unwrap().objects.len()
}

/// After the undelete window there is one object a blob.
async fn assert_nothing_is_left_over(s: &Service) {
    s.clock.advance(chrono::Duration::hours(73));
    rounds(s).await;
    assert_eq!(s.owner.number("SELECT count(*) FROM stray_objects").await, 0);
    assert_eq!(objects(s).await as i64, s.owner.number("SELECT count(*) FROM blobs").await);
}

/// The id of the only file's tenant.
async fn tenant(s: &Service) -> TenantId {
    s.alice().tenant_id().await.parse().unwrap()
}

#[test]
fn the_bytes_of_an_archived_file_move_to_the_class_for_it_and_back() {
    archiving_test(|s| async move {
        let data = pattern(3 * PART + 1);
        let id = stored(&s, &data).await;
        s.alice().upload_version(&id, b"second").await.unwrap();
        let quota = s.alice().quota().await.unwrap().used_bytes;
        s.alice().archive(&id).await.unwrap();
        assert_eq!((s.owner.number(JOBS).await, classes(&s).await), (1, vec![Standard, Standard]));
        rounds(&s).await;
        assert_eq!(classes(&s).await, [Archive, Archive], "all versions");
        let told = s.alice().versions(&id, 0).await.unwrap();
        assert!(told.iter().all(|version| version.storage_class() == v1::StorageClass::Archive), "{told:?}");
        let of_provider = &list_provider_statuses(&s.db, &s.stores).await.unwrap()[0];
        assert_eq!((of_provider.bytes, of_provider.archived_bytes), (quota as u64, quota as u64));
        s.clock.advance(chrono::Duration::hours(71));
        rounds(&s).await;
        assert_eq!(objects(&s).await, 4, "the originals stay for the undelete window");
        assert_nothing_is_left_over(&s).await;
        assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Archived);
        assert_eq!(s.alice().quota().await.unwrap().used_bytes, quota, "it goes on counting");

        s.alice().unarchive(&id).await.unwrap();
        assert_eq!(sha256(&s.alice().read_version(&id, 1).await.unwrap()), sha256(&data), "readable at once");
        rounds(&s).await;
        assert_eq!(classes(&s).await, [Standard, Standard]);
        let told = s.alice().versions(&id, 0).await.unwrap();
        assert!(told.iter().all(|version| version.storage_class() == v1::StorageClass::Standard), "{told:?}");
        assert_nothing_is_left_over(&s).await;
        assert_eq!(sha256(&s.alice().read_version(&id, 1).await.unwrap()), sha256(&data));
        assert_eq!(s.alice().read(&id).await.unwrap(), b"second"[..]);
        assert_eq!(s.alice().quota().await.unwrap().used_bytes, quota);
        let audited =
            "SELECT count(*) FROM audit_entries WHERE action = 9 AND details ->> 'storage_class' = ";
        for class in ["'archive'", "'standard'"] {
            assert_eq!(s.owner.number(&format!("{audited}{class}")).await, 2, "{class}");
        }
    });
}

#[test]
fn where_the_store_has_no_classes_nothing_is_asked_for() {
    service_test(|s| async move {
        let id = stored(&s, b"bytes").await;
        s.alice().archive(&id).await.unwrap();
        assert_eq!(s.owner.number(JOBS).await, 0);
        s.alice().unarchive(&id).await.unwrap();
        assert_eq!(s.owner.number(JOBS).await, 0);
        let standard = "SELECT count(*) FROM blobs WHERE storage_class = 1";
        assert_eq!((s.owner.number(standard).await, objects(&s).await), (1, 1));

        // It had one, and its operator took it away.
        s.alice().archive(&id).await.unwrap();
        s.owner.run("UPDATE blobs SET storage_class = 2").await;
        s.alice().unarchive(&id).await.unwrap();
        assert_eq!(s.owner.number(JOBS).await, 1);
        rounds(&s).await;
        assert_eq!(
            s.owner.number(standard).await,
            1,
            "what is in a class comes back from there all the same"
        );
        assert_eq!(s.alice().read(&id).await.unwrap(), b"bytes"[..]);
    });
}

#[test]
fn a_file_of_many_versions_moves_in_pieces_and_as_a_whole() {
    archiving_test(|s| async move {
        let id = stored(&s, b"first").await;
        for n in 0..24_u8 {
            s.alice().upload_version(&id, &[n]).await.unwrap();
        }
        s.alice().archive(&id).await.unwrap();
        rounds(&s).await;
        assert_eq!(classes(&s).await, [Archive; 25]);
        assert_nothing_is_left_over(&s).await;
    });
}

#[test]
fn bytes_that_several_files_have_wait_until_all_of_them_are_archived() {
    archiving_test(|s| async move {
        let one = stored(&s, b"shared").await;
        let two = copied(&s, &one).await;
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
            rounds(&s).await;
            assert_eq!(classes(&s).await, [expected], "{archive}");
        }
        assert_eq!(s.alice().read(&two).await.unwrap(), b"shared"[..]);
        assert_nothing_is_left_over(&s).await;
    });
}

#[test]
fn of_archiving_and_unarchiving_in_turn_the_last_one_counts() {
    archiving_test(|s| async move {
        let id = stored(&s, b"bytes").await;
        for (turns, expected) in [(3, Archive), (3, Standard), (4, Standard)] {
            for _ in 0..turns {
                match s.alice().get(&id).await.unwrap().state() {
                    FileState::Archived => s.alice().unarchive(&id).await.unwrap(),
                    _ => s.alice().archive(&id).await.unwrap(),
                };
            }
            assert_eq!(s.owner.number(JOBS).await, 1, "one job is enough");
            rounds(&s).await;
            assert_eq!(classes(&s).await, [expected], "after {turns}");
        }
        assert_nothing_is_left_over(&s).await;
        assert_eq!(s.alice().read(&id).await.unwrap(), b"bytes"[..]);
    });
}

/// Drives a future until something has happened, then leaves it where it is.
async fn until<T>(work: &mut (impl Future<Output = T> + Unpin), has_happened: impl Fn() -> bool) {
    std::future::poll_fn(|context| {
        assert!(std::pin::Pin::new(&mut *work).poll(context).is_pending(), "it is done already");
        if has_happened() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[test]
fn a_file_that_comes_out_while_its_bytes_move_is_not_left_behind_in_the_archive() {
    archiving_test(|s| async move {
        let one = stored(&s, b"shared").await;
        let two = copied(&s, &one).await;
        s.alice().archive(&one).await.unwrap();
        s.alice().archive(&two).await.unwrap();
        let tenant = tenant(&s).await;
        let mut moving = pin!(apply_storage_class(&s.app, tenant, one.parse().unwrap()));
        until(&mut moving, || s.faults.call_count(Operation::Copy) == 1).await;
        // Its own job sees nothing to do: the bytes are not in the archive yet.
        s.alice().unarchive(&two).await.unwrap();
        apply_storage_class(&s.app, tenant, two.parse().unwrap()).await.unwrap();
        moving.await.unwrap();
        assert_eq!(classes(&s).await, [Standard], "the first one looked once more");
        assert_eq!(s.alice().read(&two).await.unwrap(), b"shared"[..]);
        rounds(&s).await;
        assert_eq!(objects(&s).await, 1, "and its copy is gone");
    });
}

#[test]
fn whoever_looks_while_a_row_is_being_pointed_elsewhere_waits_for_it() {
    archiving_test(|s| async move {
        let id = stored(&s, b"bytes").await;
        s.alice().archive(&id).await.unwrap();
        rounds(&s).await;
        assert_eq!(classes(&s).await, [Archive]);
        let key = s.owner.texts("SELECT storage_key FROM blobs").await.remove(0);
        // As somebody who moves it there and has not committed yet.
        s.owner.run("UPDATE blobs SET storage_class = 1").await;
        let other = s.database.owner().await;
        other.run("BEGIN; UPDATE blobs SET storage_class = 2").await;
        s.alice().unarchive(&id).await.unwrap();
        let looking = tokio::spawn({
            let (app, tenant, file) = (s.app.clone(), tenant(&s).await, id.parse().unwrap());
            async move { apply_storage_class(&app, tenant, file).await }
        });
        let waiting = "SELECT count(*) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
            WHERE NOT l.granted AND l.locktype = 'transactionid' AND a.datname = current_database()";
        s.until("it waits", || async { s.owner.number(waiting).await > 0 }).await;
        other.run("COMMIT").await;
        looking.await.unwrap().unwrap();
        assert_eq!(classes(&s).await, [Standard]);
        assert_ne!(s.owner.texts("SELECT storage_key FROM blobs").await, [key]);
        assert_nothing_is_left_over(&s).await;
    });
}

#[test]
fn whatever_the_store_does_the_next_attempt_brings_the_bytes_to_their_class() {
    archiving_test(|s| async move {
        use {Fault::*, Operation::*, StorageErrorKind::*};
        let data = pattern(2 * PART);
        let id = stored(&s, &data).await;
        for (operation, fault) in [
            (Copy, Before(NoSpace)),
            (Copy, After(Unavailable)),
            (Get, Before(Unavailable)),
            (Get, EndStream { after_bytes: 7 }),
            (Get, CutStream { after_bytes: PART as u64 }),
        ] {
            s.faults.set_plan(Plan::new().with_fault(operation, 1, fault));
            s.alice().archive(&id).await.unwrap();
            rounds(&s).await;
            assert_eq!(classes(&s).await, [Standard], "{operation:?} {fault:?}");
            let failed = "SELECT count(*) FROM jobs WHERE last_error <> ''";
            assert_eq!(s.owner.number(failed).await, 1, "{operation:?} {fault:?}");
            s.faults.set_plan(Plan::new());
            s.clock.advance(chrono::Duration::hours(1));
            rounds(&s).await;
            assert_eq!(classes(&s).await, [Archive], "{operation:?} {fault:?}");
            s.alice().unarchive(&id).await.unwrap();
            rounds(&s).await;
        }
        assert!(s.alice().read(&id).await.unwrap() == data);
        assert_nothing_is_left_over(&s).await;
    });
}

/// Drives a future for so many polls, then drops it; whether it came to its end.
async fn is_done_in(polls: usize, work: impl Future) -> bool {
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
fn a_move_to_a_class_that_dies_anywhere_loses_nothing_and_leaves_nothing() {
    archiving_test(|s| async move {
        let data = pattern(2 * PART);
        let id = stored(&s, &data).await;
        let (tenant, file) = (tenant(&s).await, id.parse().unwrap());
        s.alice().archive(&id).await.unwrap();
        let mut polls = 1;
        while !is_done_in(polls, apply_storage_class(&s.app, tenant, file)).await {
            polls += 1;
        }
        assert!(polls > 5, "it died only {polls} times");
        rounds(&s).await;
        assert_eq!(classes(&s).await, [Archive]);
        assert_nothing_is_left_over(&s).await;
        s.alice().unarchive(&id).await.unwrap();
        assert!(s.alice().read(&id).await.unwrap() == data);
        rounds(&s).await;
        assert_eq!(classes(&s).await, [Standard]);
    });
}

#[test]
fn a_file_that_is_purged_takes_its_bytes_along_from_whatever_class() {
    archiving_test(|s| async move {
        let id = stored(&s, b"bytes").await;
        s.alice().archive(&id).await.unwrap();
        rounds(&s).await;
        s.alice().unarchive(&id).await.unwrap();
        s.alice().purge(&id).await.unwrap();
        rounds(&s).await;
        assert_eq!(s.owner.number(JOBS).await, 0, "there is nothing to do for it");
        assert_nothing_is_left_over(&s).await;
        assert_eq!(objects(&s).await, 0);
    });
}

#[test]
fn a_blob_that_goes_elsewhere_while_it_is_copied_is_looked_at_again() {
    archiving_test(|s| async move {
        let id = stored(&s, b"bytes").await;
        s.alice().archive(&id).await.unwrap();
        s.owner.run("DELETE FROM jobs").await;
        let mut moving = pin!(apply_storage_class(&s.app, tenant(&s).await, id.parse().unwrap()));
        until(&mut moving, || s.faults.call_count(Operation::Copy) == 1).await;
        // As somebody who moves it to another place in the same class.
        let key = ObjectKey::parse(&s.owner.texts("SELECT storage_key FROM blobs").await[0]).unwrap();
        let other = key.with_new_blob(key.day(), BlobId::from_uuid(uuid::Uuid::from_u128(7))).unwrap();
        s.faults.copy(&key, &other, &PutOptions::default()).await.unwrap();
        s.owner.run(&format!("UPDATE blobs SET storage_key = '{other}'")).await;
        moving.await.unwrap();
        assert_eq!(classes(&s).await, [Standard]);
        s.store.delete(&key).await.unwrap();
        rounds(&s).await;
        assert_eq!(classes(&s).await, [Archive]);
        assert_nothing_is_left_over(&s).await;
    });
}

#[test]
fn a_version_with_a_provider_that_is_not_configured_does_not_keep_back_the_others() {
    archiving_test(|s| async move {
        let id = stored(&s, b"first").await;
        s.alice().upload_version(&id, b"second").await.unwrap();
        s.alice().archive(&id).await.unwrap();
        let provider = s.owner.texts("SELECT DISTINCT provider FROM blobs").await.remove(0);
        s.owner
            .run("UPDATE blobs SET provider = 'gone' WHERE id = (SELECT min(id::text)::uuid FROM blobs)")
            .await;
        apply_storage_class(&s.app, tenant(&s).await, id.parse().unwrap()).await.unwrap_err();
        let archived = "SELECT count(*) FROM blobs WHERE storage_class = 2";
        assert_eq!(s.owner.number(archived).await, 1);
        s.owner.run(&format!("UPDATE blobs SET provider = '{provider}'")).await;
        rounds(&s).await;
        assert_eq!(classes(&s).await, [Archive, Archive]);
    });
}

#[test]
fn blobs_that_fail_do_not_keep_back_the_ones_behind_them() {
    archiving_test(|s| async move {
        let id = stored(&s, b"first").await;
        for n in 0..24_u8 {
            s.alice().upload_version(&id, &[n]).await.unwrap();
        }
        s.alice().archive(&id).await.unwrap();
        let down = Fault::Before(StorageErrorKind::Unavailable);
        s.faults
            .set_plan((1..=20).fold(Plan::new(), |plan, nth| plan.with_fault(Operation::Copy, nth, down)));
        apply_storage_class(&s.app, tenant(&s).await, id.parse().unwrap()).await.unwrap_err();
        let archived = "SELECT count(*) FROM blobs WHERE storage_class = 2";
        assert_eq!(s.owner.number(archived).await, 5);
        s.faults.set_plan(Plan::new());
        rounds(&s).await;
        assert_eq!(classes(&s).await, [Archive; 25]);
    });
}

#[test]
fn without_an_undelete_window_an_original_stays_for_those_who_read_it() {
    service_test_with(
        |config| config.retention.blob_deletion_delay_hours = 0,
        |s| async move {
            s.faults.enable_storage_classes();
            let id = stored(&s, b"bytes").await;
            s.alice().archive(&id).await.unwrap();
            rounds(&s).await;
            assert_eq!((classes(&s).await, objects(&s).await), (vec![Archive], 2));
            s.clock.advance(chrono::Duration::minutes(59));
            rounds(&s).await;
            assert_eq!(objects(&s).await, 2);
            s.clock.advance(chrono::Duration::minutes(2));
            rounds(&s).await;
            assert_eq!(objects(&s).await, 1);
        },
    );
}
