//! Damage raises the same alert however it is found, and a running worker finds and repairs it.

use std::time::Duration as Seconds;

use bytes::Bytes;
use chrono::Duration;
use strongroom::{
    config::{Config, provider::ProviderConfig},
    proto::v1::{FileState, FileStateReason},
    storage::{
        PutOptions, StorageErrorKind,
        flaky::{Fault, Operation, Plan},
    },
    worker::{schedule::run_ticks_now, tick::Tick},
};

use crate::{
    change_order::{hold_file, start_waiting, wait_for_waiters},
    damaged::replace_object,
    harness::{PART, Service, pattern, service_test, service_test_with},
    replica::{CLAIM, COPIES, configure_copies, list_keys, repair, replicate},
    scrub::{flip_bit, object_key, scrub, upload_file},
    workers::Worker,
};

/// The counter of the alert `StrongroomBlobDamaged`.
const DAMAGED: &str = "strongroom_scrub_objects_total{outcome=\"damaged\"";

const REPAIRS: &str = "strongroom_replica_repairs_total";

async fn state(s: &Service, id: &str) -> FileState {
    s.alice().get(id).await.unwrap().state()
}

#[test]
fn damage_that_a_copy_finds_is_counted() {
    service_test_with(configure_copies, |s| async move {
        s.allow_logged_errors();
        let id = upload_file(&s, 3 * PART).await;
        flip_bit(&s, &object_key(&s).await, 3 * PART).await;
        assert_eq!(replicate(&s).await, 0);
        assert_eq!(s.alice().get(&id).await.unwrap().state_reason(), FileStateReason::ObjectDamaged);
        assert_eq!(s.read_metric(DAMAGED), 1);
        assert_eq!(scrub(&s).await, 0, "a lost object is not read again");
        assert_eq!(s.read_metric(DAMAGED), 1);
        run_ticks_now(&s.app, &[Tick::DeleteStrayObjects]).await;
    });
}

#[test]
fn damage_that_two_checks_find_is_counted_once() {
    service_test(|s| async move {
        s.allow_logged_errors();
        let id = upload_file(&s, 3 * PART).await;
        flip_bit(&s, &object_key(&s).await, 3 * PART).await;
        let holder = hold_file(&s, &id).await;
        // A download and a scrub confirm it, and both wait for the file.
        s.alice().read(&id).await.unwrap_err();
        wait_for_waiters(&s, 1).await;
        let scrubber = s.clone();
        let scrubbed = start_waiting(&s, 2, async move { scrub(&scrubber).await }).await;
        holder.execute("ROLLBACK").await;
        scrubbed.await.unwrap();
        s.wait_until("the check of the download ends", || async { s.app.is_idle() }).await;
        assert_eq!((state(&s, &id).await, s.read_metric(DAMAGED)), (FileState::Error, 1));
    });
}

/// The metrics of a command are not read, so workers count what it has marked.
#[test]
fn damage_that_fsck_marks_is_counted() {
    let configure = |config: &mut Config| config.worker.tick_seconds = 1;
    service_test_with(configure, |s| async move {
        s.allow_logged_errors();
        let id = upload_file(&s, 10).await;
        flip_bit(&s, &object_key(&s).await, 10).await;
        assert_eq!((s.run_fsck().await.violations.len(), s.read_metric(DAMAGED)), (1, 0));
        assert_eq!(s.run_fsck_with(true).await.marked_versions, 1);
        assert_eq!((state(&s, &id).await, s.read_metric(DAMAGED)), (FileState::Error, 1));
        let marked = "strongroom_damaged_blobs{provider=\"memory\"}";
        let worker = Worker::start(&s, Seconds::from_secs(60));
        s.wait_until("a worker counts it", || async { s.read_metric(marked) == 1 }).await;
        s.alice().purge(&id).await.unwrap();
        s.wait_until("it is no blob of a file any more", || async { s.read_metric(marked) == 0 }).await;
        worker.stop().await;
    });
}

#[test]
fn damaged_copy_is_counted_once() {
    service_test_with(configure_copies, |s| async move {
        s.allow_logged_errors();
        upload_file(&s, 10).await;
        replicate(&s).await;
        s.clock.advance(Duration::seconds(1));
        let (copies, damaged) = (s.stores.get(COPIES).unwrap(), list_keys(&s, COPIES).await.remove(0));
        copies.delete(&damaged).await.unwrap();
        copies.put(&damaged, Bytes::from_static(b"0123456789").into(), &PutOptions::default()).await.unwrap();
        assert_eq!(scrub(&s).await, 2, "the original and the copy");
        let of_copies = format!("{DAMAGED},provider=\"{COPIES}\"}}");
        assert_eq!((s.read_metric(&of_copies), s.read_metric(DAMAGED)), (1, 1));
    });
}

#[test]
fn running_worker_finds_damage_and_repairs_it() {
    let configure = |config: &mut Config| {
        configure_copies(config);
        config.worker.tick_seconds = 1;
    };
    service_test_with(configure, |s| async move {
        s.allow_logged_errors();
        let id = upload_file(&s, PART).await;
        assert_eq!(replicate(&s).await, 1);
        let damaged = object_key(&s).await;
        flip_bit(&s, &damaged, PART).await;
        s.clock.advance(Duration::seconds(1));
        let worker = Worker::start(&s, Seconds::from_secs(60));
        s.wait_until("the damage is found", || async { s.read_metric(DAMAGED) == 1 }).await;
        // The next run of the tick. This clock does not move by itself.
        s.clock.advance(Duration::seconds(1));
        s.wait_until("the blob is repaired", || async { state(&s, &id).await == FileState::Available }).await;
        worker.stop().await;
        assert_eq!(s.read_metric(REPAIRS), 1);
        assert_eq!(s.alice().read(&id).await.unwrap(), pattern(PART));
    });
}

#[test]
fn original_that_is_intact_again_is_not_replaced() {
    service_test_with(configure_copies, |s| async move {
        s.allow_logged_errors();
        let id = upload_file(&s, PART).await;
        replicate(&s).await;
        let key = object_key(&s).await;
        flip_bit(&s, &key, PART).await;
        scrub(&s).await;
        assert_eq!(state(&s, &id).await, FileState::Error);
        // An operator restores the object.
        replace_object(&s, &key, &pattern(PART)).await;
        // The failure of a store is no damage.
        let down = Fault::Before(StorageErrorKind::Unavailable);
        s.faults.set_plan(Plan::new().with_fault(Operation::Get, 1, down));
        assert_eq!(repair(&s).await, 0);
        assert_eq!(
            (state(&s, &id).await, list_keys(&s, "main").await),
            (FileState::Error, vec![key.clone()])
        );
        s.faults.set_plan(Plan::new());
        s.clock.advance(CLAIM);
        assert_eq!(repair(&s).await, 1);
        let stored = list_keys(&s, "main").await;
        assert_eq!((state(&s, &id).await, stored), (FileState::Available, vec![key]));
        assert_eq!(s.read_metric(REPAIRS), 0, "nothing was repaired");
    });
}

/// The provider of the originals in the test below; the copies are in the store with faults.
const ORIGINALS: &str = "originals";

#[test]
fn copy_that_reads_back_damaged_does_not_count() {
    let configure = |config: &mut Config| {
        configure_copies(config);
        config.storage.replica_provider = Some("main".to_owned());
        config.storage.providers.insert(ORIGINALS.to_owned(), ProviderConfig::Memory);
    };
    service_test_with(configure, |s| async move {
        let other = s.start_replica(|config| config.storage.provider = ORIGINALS.to_owned()).await;
        let mut ids = Vec::new();
        for size in [10, 3 * PART] {
            ids.push(upload_file(&other, size).await);
        }
        other.stop().await;
        s.faults.set_plan(Plan::new().with_fault_in_all(Operation::Get, Fault::FlipBit));
        assert_eq!(replicate(&s).await, 0);
        let copied = "SELECT count(*) FROM blobs WHERE replica_key IS NOT NULL";
        assert_eq!(s.superuser.query_number(copied).await, 0);
        for id in ids {
            assert_eq!(state(&s, &id).await, FileState::Available, "the originals are intact");
        }
        assert_eq!(s.read_metric(DAMAGED), 0);
        s.faults.set_plan(Plan::new());
        s.clock.advance(CLAIM);
        assert_eq!(replicate(&s).await, 2);
        run_ticks_now(&s.app, &[Tick::DeleteStrayObjects]).await;
        assert_eq!(list_keys(&s, "main").await.len(), 2);
    });
}
