//! Copies of blobs at the replica provider: they are made, verified, deleted with their blobs, never swept, and blobs
//! are repaired from them.

use bytes::Bytes;
use chrono::Duration;
use strongroom::{
    app::{
        integrity::sweep::{SweepOptions, sweep_stores},
        restore::{
            check::{RestoreOptions, RestoreProgress, check_restore},
            report::RestoreReport,
        },
        storage::{
            move_blobs::{BlobMover, MoveOptions, MoveProgress, MoveReport},
            status::{add_integrity_summaries, list_provider_statuses},
        },
    },
    config::{Config, provider::ProviderConfig},
    domain::{clock::SystemIds, object_key::ObjectKey},
    proto::v1::{FileState, FileStateReason},
    storage::{
        ObjectStorageExt as _, PutOptions, StorageErrorKind,
        flaky::{Fault, Operation, Plan},
    },
    worker::{self, schedule::run_ticks_now, tick::Tick},
};

use crate::{
    harness::{PART, Service, pattern, reason, service_test_with},
    scrub::{flip_bit, object_key, scrub, upload_file},
};

pub(crate) const COPIES: &str = "copies";

/// The time after which a claim, and the pause after a failure, have passed.
pub(crate) const CLAIM: Duration = Duration::hours(2);

pub(crate) fn configure_copies(config: &mut Config) {
    config.storage.providers.clear();
    config.storage.providers.insert(COPIES.to_owned(), ProviderConfig::Memory);
    config.storage.set_primary_provider("main", ProviderConfig::Memory);
    config.storage.replica_provider = Some(COPIES.to_owned());
}

pub(crate) async fn list_keys(s: &Service, provider: &str) -> Vec<ObjectKey> {
    let page = s.stores.get(provider).unwrap().list("", None, 100).await.unwrap();
    page.objects.into_iter().map(|object| object.key).collect()
}

/// Returns the number of originals and of copies.
async fn count_objects(s: &Service) -> (usize, usize) {
    (list_keys(s, "main").await.len(), list_keys(s, COPIES).await.len())
}

/// Runs one round. Returns the number of copies that it made.
pub(crate) async fn replicate(s: &Service) -> usize {
    run_ticks_now(&s.app, &[Tick::ReplicateBlobs]).await.done
}

pub(crate) async fn repair(s: &Service) -> usize {
    run_ticks_now(&s.app, &[Tick::RepairBlobs]).await.done
}

/// Returns the number of blobs without a copy, and the age of the oldest one in seconds.
async fn pending(s: &Service) -> (u64, u64) {
    let mut statuses = list_provider_statuses(&s.db, &s.stores, s.app.owners()).await.unwrap();
    add_integrity_summaries(&s.db, &mut statuses, 30, Some(COPIES)).await.unwrap();
    let summary = statuses.into_iter().find_map(|status| status.replication).unwrap();
    (summary.pending_blobs, summary.oldest_pending_seconds)
}

#[test]
fn copy_is_made_and_deleted_with_its_blob() {
    service_test_with(configure_copies, |s| async move {
        let sizes = [0, 10, 3 * PART + 1];
        let mut ids = Vec::new();
        for size in sizes {
            ids.push(upload_file(&s, size).await);
        }
        assert_eq!(replicate(&s).await, 3);
        assert_eq!(pending(&s).await, (3, 3), "counted before the copies were made");
        s.clock.advance(Duration::minutes(1));
        assert_eq!(replicate(&s).await, 0);
        assert_eq!(pending(&s).await, (0, 0));
        assert_eq!(count_objects(&s).await, (3, 3));
        let mut copied = Vec::new();
        let copies = s.stores.get(COPIES).unwrap();
        for key in list_keys(&s, COPIES).await {
            let size = copies.head(&key).await.unwrap().size_bytes;
            assert_eq!(copies.get_bytes(&key, 0..size).await.unwrap(), pattern(size as usize));
            copied.push(size as usize);
        }
        copied.sort_unstable();
        assert_eq!(copied, sizes);

        for id in ids {
            s.alice().purge(&id).await.unwrap();
        }
        s.clock.advance(Duration::hours(73));
        worker::run_round(&s.app).await;
        assert_eq!(count_objects(&s).await, (0, 0));
        let pending_deletion = "SELECT sum(pending_deletion_bytes) FROM quotas";
        assert_eq!(s.superuser.query_number(pending_deletion).await, 0);
    });
}

#[test]
fn copies_are_neither_swept_nor_reported() {
    service_test_with(configure_copies, |s| async move {
        upload_file(&s, 10).await;
        replicate(&s).await;
        for _ in 0..2 {
            s.clock.advance(Duration::hours(25));
            for report in sweep_stores(&s.app, SweepOptions::from_config(&s.app)).await.unwrap() {
                assert_eq!((report.found.count, report.deleted.count), (0, 0), "{report:?}");
            }
        }
        assert_eq!(s.run_fsck().await.violations, []);
        let options = RestoreOptions { provider: None, decision: None, entries_max: 10 };
        let reports = check_restore(&s.app, &options, &mut NoProgress).await.unwrap();
        assert_eq!(reports.len(), 2);
        for report in reports {
            assert_eq!((report.listed_objects, report.objects), (1, vec![]), "{}", report.provider);
        }
        assert_eq!(count_objects(&s).await, (1, 1));
    });
}

#[test]
fn failed_copy_is_made_again_and_leaves_no_object() {
    service_test_with(configure_copies, |s| async move {
        upload_file(&s, 3 * PART).await;
        for fault in [
            Fault::Before(StorageErrorKind::Unavailable),
            Fault::CutStream { after_bytes: 100 },
            Fault::FlipBit,
        ] {
            s.faults.set_plan(Plan::new().with_fault(Operation::Get, 1, fault));
            assert_eq!(replicate(&s).await, 0, "{fault:?}");
            assert_eq!(
                s.superuser.query_number("SELECT count(*) FROM blobs WHERE replica_key IS NULL").await,
                1
            );
            s.clock.advance(CLAIM);
        }
        s.faults.set_plan(Plan::new());
        assert_eq!(replicate(&s).await, 1);
        worker::run_round(&s.app).await;
        assert_eq!(count_objects(&s).await, (1, 1));
        assert_eq!(s.superuser.query_number("SELECT count(*) FROM stray_objects").await, 0);
    });
}

#[test]
fn nothing_is_copied_without_a_replica_provider() {
    let configure = |config: &mut Config| {
        configure_copies(config);
        config.storage.replica_provider = None;
    };
    service_test_with(configure, |s| async move {
        upload_file(&s, 10).await;
        assert_eq!((replicate(&s).await, count_objects(&s).await), (0, (1, 0)));
    });
}

#[test]
fn outage_delays_copies_by_the_shortest_pause() {
    let configure = |config: &mut Config| {
        configure_copies(config);
        config.worker.backoff_base_seconds = 5;
    };
    service_test_with(configure, |s| async move {
        upload_file(&s, 10).await;
        let down = Fault::Before(StorageErrorKind::Unavailable);
        s.faults.set_plan(Plan::new().with_fault_in_all(Operation::Get, down));
        for _ in 0..3 {
            assert_eq!(replicate(&s).await, 0);
            assert_eq!(s.superuser.query_number("SELECT sum(failure_count) FROM blob_claims").await, 0);
            s.clock.advance(Duration::seconds(6));
        }
        assert_eq!(s.faults.call_count(Operation::Get), 3, "it was attempted after each pause");
        s.faults.set_plan(Plan::new());
        assert_eq!(replicate(&s).await, 1);
    });
}

#[test]
fn panic_of_a_copy_delays_no_other_copy() {
    service_test_with(configure_copies, |s| async move {
        s.allow_logged_errors();
        upload_file(&s, 10).await;
        upload_file(&s, 20).await;
        s.faults.set_plan(Plan::new().with_fault(Operation::Get, 1, Fault::Panic));
        assert_eq!(replicate(&s).await, 1);
        let copied = "SELECT sum(size_bytes) FROM blobs WHERE replica_key IS NOT NULL";
        assert_eq!(s.superuser.query_number(copied).await, 20);
        s.clock.advance(CLAIM);
        assert_eq!(replicate(&s).await, 1);
    });
}

#[test]
fn damaged_blob_is_repaired_from_its_copy() {
    service_test_with(configure_copies, |s| async move {
        s.allow_logged_errors();
        let id = upload_file(&s, 3 * PART).await;
        replicate(&s).await;
        let damaged = object_key(&s).await;
        flip_bit(&s, &damaged, 3 * PART).await;
        assert_eq!(repair(&s).await, 0, "nothing is known to be damaged");
        scrub(&s).await;
        let state = || async { s.alice().get(&id).await.unwrap().state() };
        assert_eq!(state().await, FileState::Error);
        // The store takes no objects: nothing changes, and the repair is tried again.
        s.faults.set_plan(
            Plan::new()
                .with_fault_in_all(Operation::StartMultipart, Fault::Before(StorageErrorKind::Unavailable)),
        );
        assert_eq!(repair(&s).await, 0);
        assert_eq!(state().await, FileState::Error);
        s.faults.set_plan(Plan::new());
        s.clock.advance(CLAIM);
        assert_eq!(repair(&s).await, 1);
        assert_eq!(state().await, FileState::Available);
        assert_eq!(s.alice().read(&id).await.unwrap(), pattern(3 * PART));
        let records = "SELECT count(*) FROM events AS e JOIN audit_entries AS a USING (file_id, version)
                    WHERE e.kind = {event_kind.file_repaired} AND a.action = {audit_action.file_repair}";
        assert_eq!(s.superuser.query_number(records).await, 1);
        assert_eq!(s.read_metric("strongroom_replica_repairs_total{provider=\"main\"}"), 1);
        assert_eq!(repair(&s).await, 0);

        s.clock.advance(Duration::hours(73));
        worker::run_round(&s.app).await;
        assert_eq!(count_objects(&s).await, (1, 1), "the damaged object is deleted");
        assert!(!list_keys(&s, "main").await.contains(&damaged));
        let metadata = s.store.read_metadata(&object_key(&s).await).await.unwrap();
        assert!(metadata.contains(&("file-id".to_owned(), id)), "the label of the copy: {metadata:?}");
    });
}

#[test]
fn repair_changes_each_version_of_a_blob_in_its_order() {
    service_test_with(configure_copies, |s| async move {
        s.allow_logged_errors();
        let id = upload_file(&s, 10).await;
        let shared = object_key(&s).await;
        s.alice().upload_version(&id, b"second version").await.unwrap();
        s.alice().restore_version(&id, 1).await.unwrap();
        assert_eq!(replicate(&s).await, 2);
        flip_bit(&s, &shared, 10).await;
        scrub(&s).await;
        let before = s.alice().get(&id).await.unwrap();
        assert_eq!(before.state(), FileState::Error);
        assert_eq!(repair(&s).await, 1);
        let after = s.alice().get(&id).await.unwrap();
        assert_eq!((after.state(), after.revision), (FileState::Available, before.revision + 2));
        let repaired = "SELECT version || ' ' || revision FROM events WHERE kind = {event_kind.file_repaired}
                        ORDER BY xid, n";
        let expected = [(1, before.revision + 1), (3, before.revision + 2)];
        let expected = expected.map(|(version, revision)| format!("{version} {revision}"));
        assert_eq!(s.superuser.query_texts(repaired).await, expected);
    });
}

#[test]
fn blob_that_a_download_misses_is_repaired() {
    service_test_with(configure_copies, |s| async move {
        s.allow_logged_errors();
        let id = upload_file(&s, 10).await;
        replicate(&s).await;
        s.store.delete(&object_key(&s).await).await.unwrap();
        assert_eq!(reason(&s.alice().read(&id).await.unwrap_err()), "OBJECT_MISSING");
        s.wait_until("the file is marked", || async {
            s.alice().get(&id).await.unwrap().state_reason() == FileStateReason::ObjectMissing
        })
        .await;
        assert_eq!(repair(&s).await, 1);
        assert_eq!(s.alice().read(&id).await.unwrap(), pattern(10));
    });
}

#[test]
fn damaged_copy_is_made_again_from_the_original() {
    service_test_with(configure_copies, |s| async move {
        s.allow_logged_errors();
        let id = upload_file(&s, 10).await;
        replicate(&s).await;
        s.clock.advance(Duration::seconds(1));
        let (copies, damaged) = (s.stores.get(COPIES).unwrap(), list_keys(&s, COPIES).await.remove(0));
        copies.delete(&damaged).await.unwrap();
        copies.put(&damaged, Bytes::from_static(b"0123456789").into(), &PutOptions::default()).await.unwrap();
        assert_eq!(scrub(&s).await, 2, "the original and the copy");
        assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Available);
        let without_copy = "SELECT count(*) FROM blobs WHERE replica_key IS NULL";
        assert_eq!(s.superuser.query_number(without_copy).await, 1);
        assert_eq!(replicate(&s).await, 1);
        s.clock.advance(Duration::hours(73));
        worker::run_round(&s.app).await;
        let keys = list_keys(&s, COPIES).await;
        assert_eq!((keys.len(), keys.contains(&damaged)), (1, false));
        assert_eq!(copies.get_bytes(&keys[0], 0..10).await.unwrap(), pattern(10));
    });
}

struct NoProgress;

impl RestoreProgress for NoProgress {
    fn report_progress(&mut self, _: &RestoreReport) {}
}

impl MoveProgress for NoProgress {
    fn report_progress(&mut self, _: &MoveReport) {}
}

#[test]
fn copy_is_removed_if_its_blob_moves_to_the_same_provider() {
    service_test_with(configure_copies, |s| async move {
        let id = upload_file(&s, 10).await;
        replicate(&s).await;
        let mover = BlobMover {
            db: s.db.clone(),
            stores: s.stores.clone(),
            clock: s.clock.clone(),
            ids: std::sync::Arc::new(SystemIds),
            part_size_bytes: PART as u64,
            blob_deletion_delay_hours: 72,
        };
        let (from, to) = ("main".to_owned(), COPIES.to_owned());
        let options = MoveOptions { from, to, concurrency: 1, reads_back: false, is_dry_run: false };
        assert_eq!(mover.move_blobs(&options, &mut NoProgress).await.unwrap().blobs, 1);
        s.clock.advance(Duration::hours(73));
        assert_eq!(replicate(&s).await, 0, "a copy beside the original protects from nothing");
        assert_eq!(pending(&s).await, (0, 0), "a blob that gets no copy does not wait for one");
        worker::run_round(&s.app).await;
        assert_eq!(count_objects(&s).await, (0, 1));
        assert_eq!(s.alice().read(&id).await.unwrap(), pattern(10));
    });
}

#[test]
fn unreadable_blobs_do_not_keep_others_from_being_copied() {
    service_test_with(configure_copies, |s| async move {
        for _ in 0..21 {
            upload_file(&s, 10).await;
        }
        // A full page of blobs that cannot be read, older than the one that can.
        let first = "UPDATE blobs SET provider = 'gone' WHERE id IN (SELECT id FROM blobs ORDER BY create_time LIMIT 20)";
        s.superuser.execute(first).await;
        assert_eq!(replicate(&s).await, 1);
        s.superuser.execute("UPDATE blobs SET provider = 'main'").await;
        let mut copied = 0;
        while copied < 20 {
            let round = replicate(&s).await;
            assert!(round > 0, "no attempt has failed");
            copied += round;
        }
    });
}

#[test]
fn repaired_object_is_read_back() {
    service_test_with(configure_copies, |s| async move {
        s.allow_logged_errors();
        let id = upload_file(&s, 3 * PART).await;
        replicate(&s).await;
        flip_bit(&s, &object_key(&s).await, 3 * PART).await;
        scrub(&s).await;
        // The store damages whatever is read from it.
        s.faults.set_plan(Plan::new().with_fault_in_all(Operation::Get, Fault::FlipBit));
        assert_eq!(repair(&s).await, 0);
        assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Error);
        s.faults.set_plan(Plan::new());
        s.clock.advance(CLAIM);
        assert_eq!(repair(&s).await, 1);
        assert_eq!(s.alice().read(&id).await.unwrap(), pattern(3 * PART));
    });
}

#[test]
fn copy_of_a_blob_is_not_deleted_as_stray_object() {
    service_test_with(configure_copies, |s| async move {
        upload_file(&s, 10).await;
        replicate(&s).await;
        let stray =
            "INSERT INTO stray_objects (tenant_id, provider, storage_key, may_be_unfinished, delete_after)
            SELECT tenant_id, replica_provider, replica_key, false, '2000-01-01Z' FROM blobs";
        s.superuser.execute(stray).await;
        run_ticks_now(&s.app, &[Tick::DeleteStrayObjects]).await;
        assert_eq!(count_objects(&s).await, (1, 1));
        s.superuser.execute("DELETE FROM stray_objects").await;
    });
}
