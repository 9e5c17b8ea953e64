//! Moving files from one provider to another: nothing is lost, nothing is left over, and a second run goes on where the
//! first one stopped.

use std::{future::Future, pin::pin, sync::Arc, task::Poll};

use futures::{SinkExt, channel::mpsc};
use strongroom::{
    app::storage::{
        move_blobs::{BlobMover, MoveError, MoveOptions, MoveProgress, MoveReport},
        status::list_provider_statuses,
    },
    config::{Config, provider::ProviderConfig},
    db::{
        blobs,
        stray_objects::{self, StrayObject},
    },
    domain::{clock::SystemIds, storage_class::StorageClass},
    proto::v1::UploadSpec,
    storage::{
        Payload, PutOptions, StorageErrorKind, Stores,
        flaky::{Fault, Operation, Plan},
    },
    worker,
};

use crate::harness::{
    PART, Service, Site, file_id, service_test_in, service_test_with, sha256, spec, upload_messages,
};

struct Silent;

impl MoveProgress for Silent {
    fn report_progress(&mut self, _: &MoveReport) {}
}

/// New bytes go to `old`; the faults are those of `old`.
fn old_and_new(config: &mut Config) {
    config.storage.providers.clear();
    config.storage.set_primary_provider("new", ProviderConfig::Memory);
    config.storage.set_primary_provider("old", ProviderConfig::Memory);
}

/// New bytes go to `new`, and so do the faults.
fn new_and_old(config: &mut Config) {
    old_and_new(config);
    config.storage.provider = "new".to_owned();
}

fn mover(s: &Service) -> BlobMover {
    let faulty = s.faults.clone() as Arc<dyn strongroom::storage::ObjectStorage>;
    let others = s.stores.iter().filter(|store| store.provider() != faulty.provider()).cloned();
    let stores: Vec<_> = others.chain([Arc::clone(&faulty)]).collect();
    BlobMover {
        db: s.db.clone(),
        stores: Stores::new(stores, faulty.provider()).unwrap(),
        clock: s.clock.clone(),
        ids: Arc::new(SystemIds),
        part_size_bytes: PART as u64,
        blob_deletion_delay_hours: 72,
    }
}

fn options(from: &str, to: &str) -> MoveOptions {
    let (from, to) = (from.to_owned(), to.to_owned());
    MoveOptions { from, to, concurrency: 2, reads_back: false, is_dry_run: false }
}

async fn move_to_new(s: &Service) -> MoveReport {
    mover(s).move_blobs(&options("old", "new"), &mut Silent).await.unwrap()
}

const SIZES: [usize; 4] = [0, 10, PART, 3 * PART + 1];

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|n| (n * 7 % 251) as u8).collect()
}

/// Files of all sizes on `old`; their ids.
async fn stored(s: &Service) -> Vec<String> {
    let before = s.replica(|config| config.storage.provider = "old".to_owned()).await;
    let mut ids = Vec::new();
    for size in SIZES {
        let uploaded = before.alice().upload(spec(&size.to_string()), &content(size)).await.unwrap();
        ids.push(file_id(&uploaded));
    }
    before.stopped().await;
    ids
}

async fn assert_readable(s: &Service, ids: &[String]) {
    for (id, size) in ids.iter().zip(SIZES) {
        assert!(s.alice().read(id).await.unwrap() == content(size), "{size} bytes");
    }
}

async fn objects(s: &Service, provider: &str) -> usize {
    s.stores.get(provider).unwrap().list("", None, 100).await.unwrap().objects.len()
}

async fn rounds(s: &Service) {
    while worker::run_round(&s.app).await > 0 {}
}

/// After the undelete window nothing is where it should not be.
async fn assert_only_new_has_objects(s: &Service) {
    s.clock.advance(chrono::Duration::hours(73));
    rounds(s).await;
    assert_eq!((objects(s, "old").await, objects(s, "new").await), (0, SIZES.len()));
    assert_eq!(s.owner.number("SELECT count(*) FROM stray_objects").await, 0);
}

#[test]
fn moved_files_read_the_same_and_the_originals_stay_for_the_undelete_window() {
    service_test_with(old_and_new, |s| async move {
        let ids = stored(&s).await;
        let report = move_to_new(&s).await;
        assert_eq!((report.blobs, report.bytes), (4, SIZES.iter().sum::<usize>() as u64));
        assert_eq!((report.failures.len(), report.overtaken, report.released), (0, 0, 0));
        assert_readable(&s, &ids).await;
        s.clock.advance(chrono::Duration::hours(71));
        rounds(&s).await;
        assert_eq!((objects(&s, "old").await, objects(&s, "new").await), (4, 4));
        let again = MoveReport { is_written_to: true, ..MoveReport::default() };
        assert_eq!(move_to_new(&s).await, again, "there is nothing left to move");
        let audited = "SELECT count(*) FROM audit_entries WHERE action = 9 AND details ->> 'to' = 'new'";
        assert_eq!(s.owner.number(audited).await, 4);
        assert_only_new_has_objects(&s).await;
        assert_readable(&s, &ids).await;
    });
}

#[test]
fn a_dry_run_counts_and_moves_nothing() {
    service_test_with(old_and_new, |s| async move {
        stored(&s).await;
        let options = MoveOptions { is_dry_run: true, ..options("old", "new") };
        let report = mover(&s).move_blobs(&options, &mut Silent).await.unwrap();
        assert_eq!((report.is_dry_run, report.blobs, report.left_blobs), (true, 4, 4));
        assert!(report.is_done());
        assert_eq!((objects(&s, "old").await, objects(&s, "new").await), (4, 0));
    });
}

#[test]
fn a_copy_says_whose_it_is_and_who_brought_it_as_the_original_does() {
    service_test_with(old_and_new, |s| async move {
        s.alice().upload(spec("a"), &content(10)).await.unwrap();
        s.bob().upload(spec("b"), &content(10)).await.unwrap();
        let mut tx = s.db.system_tx().await.unwrap();
        let movable = blobs::list_movable(&mut tx, "old", None, 10).await.unwrap();
        tx.commit().await.unwrap();
        let mut users: Vec<_> = movable.iter().filter_map(|blob| blob.created_by.as_deref()).collect();
        users.sort_unstable();
        assert_eq!(users, ["alice", "bob"]);
        let tenant = movable[0].tenant_blob.tenant;
        let said = PutOptions::for_blob(tenant, Some("alice")).metadata;
        let names = ["tenant-id", "user-id"].map(str::to_owned);
        assert_eq!(said, names.into_iter().zip([tenant.to_string(), "alice".to_owned()]).collect::<Vec<_>>());
    });
}

#[test]
fn what_is_archived_stays_so_where_the_new_provider_has_a_class_for_it() {
    service_test_with(new_and_old, |s| async move {
        let ids = stored(&s).await;
        s.owner.run("UPDATE blobs SET storage_class = 2 WHERE size_bytes <> 10").await;
        s.faults.enable_storage_classes();
        assert_eq!(move_to_new(&s).await.blobs, 4);
        let rows =
            s.owner.rows("SELECT storage_key, storage_class FROM blobs ORDER BY size_bytes", &[]).await;
        let told: Vec<_> =
            rows.iter().map(|row| (s.faults.storage_class(row.get(0)), row.get::<_, i16>(1))).collect();
        let (archive, standard) = ((Some(StorageClass::Archive), 2), (Some(StorageClass::Standard), 1));
        assert_eq!(told, [archive, standard, archive, archive], "whole and in parts");
        assert_readable(&s, &ids).await;
        mover(&s).move_blobs(&options("new", "old"), &mut Silent).await.unwrap();
        let standard = "SELECT count(*) FROM blobs WHERE storage_class = 1";
        assert_eq!(s.owner.number(standard).await, 4, "there is no such class there");
    });
}

#[test]
fn files_can_be_moved_back_before_their_originals_are_gone() {
    service_test_with(old_and_new, |s| async move {
        let ids = stored(&s).await;
        move_to_new(&s).await;
        let back = mover(&s).move_blobs(&options("new", "old"), &mut Silent).await.unwrap();
        assert_eq!(back.blobs, 4);
        s.clock.advance(chrono::Duration::hours(73));
        rounds(&s).await;
        assert_eq!((objects(&s, "old").await, objects(&s, "new").await), (4, 0));
        assert_readable(&s, &ids).await;
    });
}

#[test]
fn whatever_the_target_does_a_second_run_finishes_the_move() {
    service_test_with(new_and_old, |s| async move {
        use {Fault::*, Operation::*, StorageErrorKind::*};
        let ids = stored(&s).await;
        for (operation, nth, fault) in [
            (Put, 1, Before(NoSpace)),
            (Put, 2, After(Unavailable)),
            (StartMultipart, 1, After(Unavailable)),
            (PutPart, 2, Before(Unavailable)),
            (CompleteMultipart, 1, Before(Unavailable)),
            (CompleteMultipart, 1, After(Unavailable)),
        ] {
            let plan = Plan::new().with_fault(operation, nth, fault).with_fault(
                AbortMultipart,
                1,
                Before(Unavailable),
            );
            s.faults.set_plan(plan);
            let report = move_to_new(&s).await;
            assert_eq!((report.blobs, report.failures.len()), (3, 1), "{operation:?} {fault:?}");
            assert!(report.failures[0].why.contains("object store"), "{report:?}");
            s.faults.set_plan(Plan::new());
            assert_eq!(move_to_new(&s).await.blobs, 1, "{operation:?} {fault:?}");
            assert_readable(&s, &ids).await;
            mover(&s).move_blobs(&options("new", "old"), &mut Silent).await.unwrap();
        }
        move_to_new(&s).await;
        assert_only_new_has_objects(&s).await;
        assert_readable(&s, &ids).await;
    });
}

#[test]
fn a_source_that_breaks_off_is_not_taken_for_a_shorter_file() {
    service_test_with(old_and_new, |s| async move {
        let ids = stored(&s).await;
        for (nth, fault) in [
            (2, Fault::EndStream { after_bytes: 5 }),
            (4, Fault::EndStream { after_bytes: PART as u64 }),
            (4, Fault::CutStream { after_bytes: PART as u64 + 7 }),
        ] {
            s.faults.set_plan(Plan::new().with_fault(Operation::Get, nth, fault));
            let one_by_one = MoveOptions { concurrency: 1, ..options("old", "new") };
            let report = mover(&s).move_blobs(&one_by_one, &mut Silent).await.unwrap();
            assert_eq!((report.blobs, report.failures.len()), (3, 1), "{fault:?}");
            s.faults.set_plan(Plan::new());
            assert_eq!(move_to_new(&s).await.blobs, 1);
            assert_readable(&s, &ids).await;
            mover(&s).move_blobs(&options("new", "old"), &mut Silent).await.unwrap();
        }
        move_to_new(&s).await;
        assert_only_new_has_objects(&s).await;
    });
}

#[test]
fn what_comes_to_the_old_provider_meanwhile_is_told_of_until_a_later_run_has_moved_it() {
    service_test_with(new_and_old, |s| async move {
        stored(&s).await;
        // A server that was not told yet where new bytes go.
        let before = s.replica(|config| config.storage.provider = "old".to_owned()).await;
        let data = content(4 * PART);
        let told = UploadSpec { size_bytes: Some(data.len() as i64), ..spec("slow") };
        let mut messages = upload_messages(told, &data, PART);
        let rest = messages.split_off(3);
        let (mut sender, stream) = mpsc::channel(1);
        let mut files = before.alice().files.clone();
        let running = tokio::spawn(async move { files.upload_file(stream).await });
        for message in messages {
            sender.send(message).await.unwrap();
        }
        let open = "SELECT count(*) FROM uploads WHERE state = 1";
        s.until("the upload is open", || async { s.owner.number(open).await == 1 }).await;
        let report = move_to_new(&s).await;
        assert_eq!((report.blobs, report.left_blobs, report.open_uploads), (4, 0, 1));
        assert!(!report.is_done() && !report.is_written_to, "{report:?}");

        for message in rest {
            sender.send(message).await.unwrap();
        }
        drop(sender);
        running.await.unwrap().unwrap();
        before.stopped().await;
        // What the walk could not move, or has not come across, counts all the same.
        s.faults.set_plan(Plan::new().with_fault(
            Operation::StartMultipart,
            1,
            Fault::Before(StorageErrorKind::Unavailable),
        ));
        let report = move_to_new(&s).await;
        assert_eq!((report.blobs, report.left_blobs, report.open_uploads), (0, 1, 0));
        assert!(!report.is_done(), "{report:?}");
        s.faults.set_plan(Plan::new());
        let report = move_to_new(&s).await;
        assert_eq!((report.blobs, report.left_blobs, report.open_uploads), (1, 0, 0));
        assert!(report.is_done(), "{report:?}");
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
fn a_move_that_dies_anywhere_loses_nothing_and_leaves_nothing() {
    service_test_with(old_and_new, |s| async move {
        let ids = stored(&s).await;
        let mut polls = 1;
        while !is_done_in(polls, move_to_new(&s)).await {
            assert_readable(&s, &ids).await;
            polls += 1;
        }
        assert!(polls > 5, "it died only {polls} times");
        assert_only_new_has_objects(&s).await;
        assert_readable(&s, &ids).await;
    });
}

#[test]
fn a_damaged_original_is_named_and_stays_where_it_is() {
    service_test_with(old_and_new, |s| async move {
        stored(&s).await;
        s.expect_lost_objects();
        let old = s.stores.get("old").unwrap();
        let whole = old.list("", None, 10).await.unwrap().objects;
        let damaged = whole.iter().find(|object| object.size_bytes == 10).unwrap();
        old.delete(&damaged.key).await.unwrap();
        let other = Payload::from(bytes::Bytes::from_static(b"0123456789"));
        old.put(&damaged.key, other, &PutOptions::default()).await.unwrap();
        let report = move_to_new(&s).await;
        assert_eq!((report.blobs, report.failures.len()), (3, 1));
        assert_eq!(report.failures[0].key, damaged.key.to_string());
        assert!(report.failures[0].why.contains("damaged"), "{report:?}");
        rounds(&s).await;
        assert_eq!((objects(&s, "old").await, objects(&s, "new").await), (4, 3));
    });
}

#[test]
fn a_file_that_is_purged_while_it_is_moved_is_not_moved_and_its_copy_goes() {
    service_test_with(old_and_new, |s| async move {
        stored(&s).await;
        let purge = s.database.owner().await;
        purge
            .run("BEGIN; UPDATE blobs SET delete_after = now() + interval '1 day' WHERE size_bytes = 10")
            .await;
        let moving = tokio::spawn({
            let s = s.clone();
            async move { move_to_new(&s).await }
        });
        let waiting = "SELECT count(*) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
            WHERE NOT l.granted AND l.locktype = 'transactionid' AND a.datname = current_database()";
        s.until("the move waits for the purge", || async { s.owner.number(waiting).await > 0 }).await;
        purge.run("COMMIT").await;
        let report = moving.await.unwrap();
        assert_eq!((report.blobs, report.overtaken, report.released), (3, 1, 1));
        rounds(&s).await;
        assert_eq!((objects(&s, "old").await, objects(&s, "new").await), (4, 3), "the copy is gone");
        purge.run("UPDATE blobs SET delete_after = NULL").await;
    });
}

#[test]
fn an_object_that_is_being_removed_is_never_taken_up_by_a_blob() {
    service_test_with(old_and_new, |s| async move {
        stored(&s).await;
        let key = s.stores.get("old").unwrap().list("", None, 1).await.unwrap().objects[0].key.clone();
        let key = key
            .with_new_blob(key.day(), strongroom::domain::ids::BlobId::from_uuid(uuid::Uuid::nil()))
            .unwrap();
        let copy =
            StrayObject { tenant: key.tenant(), provider: "new".to_owned(), key, may_be_unfinished: false };
        let mut tx = s.db.system_tx().await.unwrap();
        stray_objects::insert(&mut tx, &copy, 24).await.unwrap();
        assert!(!stray_objects::claim(&mut tx, &copy).await.unwrap(), "it is not due");
        stray_objects::make_due(&mut tx, &copy).await.unwrap();
        assert!(stray_objects::claim(&mut tx, &copy).await.unwrap());
        assert!(!stray_objects::adopt(&mut tx, &copy).await.unwrap());
        tx.commit().await.unwrap();
    });
}

#[test]
fn moves_that_make_no_sense_are_refused() {
    service_test_with(old_and_new, |s| async move {
        for (from, to) in [("old", "gone"), ("gone", "new")] {
            let refused = mover(&s).move_blobs(&options(from, to), &mut Silent).await.unwrap_err();
            assert!(matches!(&refused, MoveError::UnknownProvider(name) if name.0 == "gone"), "{refused}");
        }
        let refused = mover(&s).move_blobs(&options("old", "old"), &mut Silent).await.unwrap_err();
        assert!(matches!(refused, MoveError::SameProvider(_)), "{refused}");
    });
}

#[test]
fn the_status_tells_of_every_provider_that_is_configured_or_in_use() {
    service_test_with(old_and_new, |s| async move {
        stored(&s).await;
        s.alice().upload(spec("more"), &content(20)).await.unwrap();
        let stores = mover(&s).stores;
        let down = Fault::Before(StorageErrorKind::Unavailable);
        s.faults.set_plan(Plan::new().with_fault(Operation::Check, 3, down));
        let found = list_provider_statuses(&s.db, &stores).await.unwrap();
        let told: Vec<_> = found
            .iter()
            .map(|p| (p.name.as_str(), p.is_written_to, p.is_reachable, p.objects, p.bytes))
            .collect();
        let bytes = SIZES.iter().sum::<usize>() as u64 + 20;
        assert_eq!(told, [("new", false, true, 0, 0), ("old", true, false, 5, bytes)]);
        assert!(found[0].latency_milliseconds.is_some() && found[1].problem.is_some(), "{found:?}");

        let only_new = Stores::new([Arc::clone(stores.get("new").unwrap())], "new").unwrap();
        let found = list_provider_statuses(&s.db, &only_new).await.unwrap();
        let old = found.iter().find(|provider| provider.name == "old").unwrap();
        assert!(!old.is_reachable && old.problem.as_ref().unwrap().contains("not configured"), "{old:?}");
    });
}

#[test]
fn what_nobody_has_verified_yet_keeps_a_move_from_being_done_and_what_was_refused_is_told_of() {
    let arrange = |site: &mut Site| {
        site.has_urls = true;
        old_and_new(&mut site.config);
    };
    service_test_in(None, arrange, |s| async move {
        let alice = s.alice();
        let mut ids = Vec::new();
        for sha256 in [None, Some(sha256(b"other bytes"))] {
            let declared = UploadSpec { size_bytes: Some(10), sha256, ..spec("a") };
            let direct = alice.create_direct(declared).await.unwrap();
            let sent = s.send(&direct, &content(10)).await;
            ids.push(alice.complete_direct(&direct.id, &sent).await.unwrap().file.unwrap().id);
        }
        let report = move_to_new(&s).await;
        assert!(!report.is_done(), "{report:?}");
        assert_eq!((report.blobs, report.left_blobs, report.unverified, report.refused), (0, 0, 2, 0));
        worker::run_due_jobs(&s.app).await;
        let report = move_to_new(&s).await;
        assert_eq!((report.blobs, report.left_blobs, report.unverified, report.refused), (1, 0, 0, 1));
        assert!(report.is_done(), "{report:?}");
        assert_eq!(alice.read(&ids[0]).await.unwrap(), content(10));
        alice.purge(&ids[1]).await.unwrap();
        let report = move_to_new(&s).await;
        assert_eq!((report.refused, report.released), (0, 1));
    });
}
