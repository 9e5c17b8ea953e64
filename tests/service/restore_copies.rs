//! Objects that were moved in the lost hours: the restored database references the original, and does not know the copy.

use bytes::Bytes;
use chrono::Duration;
use strongroom::{
    app::restore::report::RestoreReport,
    domain::{object_label::copy_entries, storage_class::StorageClass},
    storage::{
        Payload, PutOptions,
        flaky::{Fault, Operation, Plan},
    },
    worker,
};

use crate::{
    damaged::replace_object,
    harness::{Service, file_id, service_test, spec},
    restore::{
        adopt, discard, list_keys, list_recovered, quarantine, readopt, restore_after, run_all_deletions,
        stop,
    },
    scrub::object_key,
    sweep::new_key,
};

/// Moves the blob of a file to the archive class.
async fn archive(s: &Service, id: &str) {
    s.alice().archive(id).await.unwrap();
    while worker::run_round(&s.app).await.done > 0 {}
    assert_eq!(list_keys(s).await.len(), 2, "the original and its copy");
}

#[test]
fn copy_of_a_stored_version_does_not_come_back_as_a_file() {
    service_test(|s| async move {
        s.faults.enable_storage_classes();
        let id = file_id(&s.alice().upload(spec("moved.txt"), b"moved").await.unwrap());
        let restored = restore_after(&s, async |s| archive(s, &id).await).await;
        adopt(&restored).await;
        let report = readopt(&restored).await;
        let counts = (report.lost_hours.count, report.readopted.count, report.discarded.count);
        assert_eq!((counts, report.has_findings()), ((1, 0, 1), false), "{report:#?}");
        assert!(list_recovered(&restored.ada()).await.is_empty());
        assert_eq!(restored.alice().read(&id).await.unwrap(), b"moved"[..]);
        stop(restored).await;
    });
}

#[test]
fn copy_replaces_an_original_that_was_deleted() {
    service_test(|s| async move {
        s.faults.enable_storage_classes();
        let id = file_id(&s.alice().upload(spec("moved.txt"), b"moved").await.unwrap());
        let restored = restore_after(&s, async |s| {
            archive(s, &id).await;
            s.clock.advance(Duration::hours(73));
            while worker::run_round(&s.app).await.done > 0 {}
            assert_eq!(list_keys(s).await.len(), 1, "the copy");
        })
        .await;
        adopt(&restored).await;
        restored.faults.enable_storage_classes();
        let report = readopt(&restored).await;
        let counts = (report.readopted.count, report.missing.count);
        assert_eq!((counts, report.has_findings()), ((1, 0), false), "{report:#?}");
        let archived = "SELECT count(*) FROM blobs WHERE storage_class = {storage_class.archive}";
        assert_eq!(restored.superuser.query_number(archived).await, 1, "the class of the copy");
        assert!(list_recovered(&restored.ada()).await.is_empty());
        assert_eq!(restored.alice().read(&id).await.unwrap(), b"moved"[..]);
        assert_eq!(restored.run_fsck().await.violations, []);
        // The file is not archived in the restored state.
        while worker::run_round(&restored.app).await.done > 0 {}
        assert_eq!(restored.superuser.query_number(archived).await, 0, "the class that the file requests");
        assert_eq!(restored.alice().read(&id).await.unwrap(), b"moved"[..]);
        stop(restored).await;
        // The original database has no row for the new object.
        s.allow_lost_objects();
        for object in s.store.list("", None, 10).await.unwrap().objects {
            s.store.delete(&object.key).await.unwrap();
        }
    });
}

/// Restores a state in which a copy was in progress, which ended since, and whose original has these bytes, or was
/// deleted since. Returns the restored service and the id of the file.
async fn restore_with_ended_move(s: &Service, original: Option<&[u8]>) -> (Service, String) {
    s.allow_lost_objects();
    let id = file_id(&s.alice().upload(spec("moved.txt"), b"moved").await.unwrap());
    let key = new_key(s, "live", None).await;
    let stray = format!(
        "INSERT INTO stray_objects (tenant_id, provider, storage_key, may_be_unfinished, delete_after)
         VALUES ('{}', 'memory', '{key}', false, '2020-01-01')",
        key.tenant()
    );
    s.superuser.execute(&stray).await;
    let restored = restore_after(s, async |s| {
        let blob = s.superuser.query_texts("SELECT id::text FROM blobs").await.remove(0).parse().unwrap();
        let original_key = object_key(s).await;
        let metadata = copy_entries(blob, StorageClass::Standard);
        let options = PutOptions { metadata, ..PutOptions::default() };
        s.store.put(&key, Payload::from(Bytes::from_static(b"moved")), &options).await.unwrap();
        match original {
            Some(bytes) => replace_object(s, &original_key, bytes).await,
            None => s.store.delete(&original_key).await.unwrap(),
        }
    })
    .await;
    adopt(&restored).await;
    (restored, id)
}

#[test]
fn copy_of_a_move_in_progress_outlives_the_decision() {
    async fn check(s: Service, original: Option<&[u8]>) {
        let (restored, id) = restore_with_ended_move(&s, original).await;
        let keys = list_keys(&s).await;
        run_all_deletions(&restored).await;
        assert_eq!(list_keys(&s).await, keys, "undecided");
        let report = readopt(&restored).await;
        let counts = (report.readopted.count, report.missing.count);
        assert_eq!((counts, report.has_findings()), ((1, 0), false), "{report:#?}");
        assert_eq!(restored.alice().read(&id).await.unwrap(), b"moved"[..]);
        let audited = "SELECT details ->> 'readopted_key' FROM audit_entries
                       WHERE action = {audit_action.storage_move}";
        let current = "SELECT storage_key FROM blobs";
        let current = restored.superuser.query_texts(current).await;
        assert_eq!(
            restored.superuser.query_texts(audited).await,
            current,
            "the audit log has the new object"
        );
        run_all_deletions(&restored).await;
        assert_eq!(restored.alice().read(&id).await.unwrap(), b"moved"[..]);
        assert_eq!(list_keys(&s).await, current, "a truncated original is not kept");
        assert_eq!(restored.superuser.query_number("SELECT count(*) FROM stray_objects").await, 0);
        assert_eq!(restored.run_fsck().await.violations, []);
        stop(restored).await;
    }
    service_test(|s| check(s, None));
    service_test(|s| check(s, Some(b"mov")));
}

#[test]
fn copy_of_a_move_in_progress_is_deleted_if_its_original_exists() {
    service_test(|s| async move {
        let (restored, id) = restore_with_ended_move(&s, Some(b"moved")).await;
        let report = readopt(&restored).await;
        let counts = (report.readopted.count, report.discarded.count, report.left.count);
        assert_eq!((counts, report.has_findings()), ((0, 0, 0), false), "{report:#?}");
        run_all_deletions(&restored).await;
        assert_eq!(list_keys(&s).await.len(), 1, "the original");
        assert_eq!(restored.alice().read(&id).await.unwrap(), b"moved"[..]);
        stop(restored).await;
    });
}

#[test]
fn copy_of_a_lost_file_comes_back_in_its_class() {
    for has_classes in [true, false] {
        service_test(move |s| async move {
            s.faults.enable_storage_classes();
            s.alice().upload(spec("kept.txt"), b"kept").await.unwrap();
            let restored = restore_after(&s, async |s| {
                let id = file_id(&s.alice().upload(spec("lost.txt"), b"lost").await.unwrap());
                s.alice().archive(&id).await.unwrap();
                while worker::run_round(&s.app).await.done > 0 {}
                s.clock.advance(Duration::hours(73));
                while worker::run_round(&s.app).await.done > 0 {}
                assert_eq!(list_keys(s).await.len(), 2, "the original was deleted");
            })
            .await;
            adopt(&restored).await;
            if has_classes {
                restored.faults.enable_storage_classes();
            }
            let report = readopt(&restored).await;
            assert_eq!((report.readopted.count, report.has_findings()), (1, false), "{report:#?}");
            let archived = "SELECT count(*) FROM blobs WHERE storage_class = {storage_class.archive}";
            let archived = restored.superuser.query_number(archived).await;
            assert_eq!(archived, i64::from(has_classes), "a store without classes has only one");
            let files = list_recovered(&restored.ada()).await;
            assert_eq!(restored.ada().read(&files["lost.txt"]).await.unwrap(), b"lost"[..]);
            stop(restored).await;
        });
    }
}

#[test]
fn each_decision_keeps_the_copy_of_a_move_in_progress() {
    async fn check(s: Service, decide: impl AsyncFn(&Service) -> RestoreReport) {
        let (restored, id) = restore_with_ended_move(&s, None).await;
        assert!(!decide(&restored).await.has_findings());
        run_all_deletions(&restored).await;
        assert_eq!(restored.alice().read(&id).await.unwrap(), b"moved"[..]);
        stop(restored).await;
    }
    service_test(|s| check(s, quarantine));
    service_test(|s| check(s, discard));
}

#[test]
fn copy_of_a_move_that_is_not_read_completely_is_left() {
    for fault in [Fault::EndStream { after_bytes: 2 }, Fault::FlipBit] {
        service_test(move |s| async move {
            let (restored, id) = restore_with_ended_move(&s, None).await;
            restored.faults.set_plan(Plan::new().with_fault_in_all(Operation::Get, fault));
            let report = readopt(&restored).await;
            assert_eq!((report.left.count, report.readopted.count), (1, 0), "{fault:?}: {report:#?}");
            run_all_deletions(&restored).await;
            restored.faults.set_plan(Plan::new());
            assert_eq!(readopt(&restored).await.readopted.count, 1, "{fault:?}");
            assert_eq!(restored.alice().read(&id).await.unwrap(), b"moved"[..]);
            stop(restored).await;
        });
    }
}
