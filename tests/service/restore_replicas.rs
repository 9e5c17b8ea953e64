//! Objects that were copied to the replica provider in the lost hours: a blob comes back once, however many objects it
//! has, and with or without a label.

use bytes::Bytes;
use strongroom::{
    app::restore::{
        check::{RestoreDecision, RestoreOptions, check_restore},
        report::RestoreReport,
    },
    domain::{
        ids::BlobId,
        object_key::ObjectKey,
        object_label::{copy_entries, label_entries},
        storage_class::StorageClass,
    },
    storage::{ObjectStorageExt as _, Payload, PutOptions},
};

use crate::{
    damaged::replace_object,
    harness::{Service, file_id, service_test_with, spec},
    replica::{COPIES, configure_copies, list_keys, replicate},
    restore::{NoProgress, list_recovered, options, restore_after, run_all_deletions, stop},
    scrub::object_key,
    sweep::new_key,
};

/// Makes the restored database the owner of both stores.
async fn adopt(restored: &Service) {
    for provider in ["main", COPIES] {
        restored.app.owners().adopt_store(provider).await.unwrap();
    }
}

/// Compares both stores. The report of the copies is the second one.
async fn run_check(restored: &Service, decision: Option<RestoreDecision>) -> [RestoreReport; 2] {
    let reports = check_restore(&restored.app, &options(decision), &mut NoProgress).await.unwrap();
    let reports: [RestoreReport; 2] = reports.try_into().unwrap();
    assert_eq!(reports[1].provider, COPIES, "the copies come last");
    reports
}

/// The counts of the unknown objects of the lost hours, and of those that were readopted, discarded and left.
fn counts(report: &RestoreReport) -> [u64; 4] {
    [report.lost_hours, report.readopted, report.discarded, report.left].map(|totals| totals.count)
}

/// Adopts both stores, and readopts their objects.
async fn adopt_and_readopt(restored: &Service, main_counts: [u64; 4], copies_counts: [u64; 4]) {
    adopt(restored).await;
    readopt(restored, main_counts, copies_counts).await;
}

/// Readopts the objects of both stores, and compares [`counts`] of each report.
async fn readopt(restored: &Service, main_counts: [u64; 4], copies_counts: [u64; 4]) -> [RestoreReport; 2] {
    let [main, copies] = run_check(restored, Some(RestoreDecision::Readopt)).await;
    assert_eq!((counts(&main), counts(&copies)), (main_counts, copies_counts), "{main:#?} {copies:#?}");
    [main, copies]
}

async fn upload(s: &Service, name: &str, data: &[u8]) -> String {
    file_id(&s.alice().upload(spec(name), data).await.unwrap())
}

async fn put(s: &Service, provider: &str, data: &'static [u8], metadata: Vec<(String, String)>) -> ObjectKey {
    let (key, options) = (new_key(s, "live", None).await, PutOptions { metadata, ..PutOptions::default() });
    let body = Payload::from(Bytes::from_static(data));
    s.stores.get(provider).unwrap().put(&key, body, &options).await.unwrap();
    key
}

/// Deletes all objects, some of which have no row in the original database.
async fn empty_stores(s: &Service) {
    for provider in ["main", COPIES] {
        for key in list_keys(s, provider).await {
            s.stores.get(provider).unwrap().delete(&key).await.unwrap();
        }
    }
}

async fn blob_id(s: &Service) -> BlobId {
    s.superuser.query_texts("SELECT id::text FROM blobs").await.remove(0).parse().unwrap()
}

/// A new file and a later version, each with a copy.
async fn replicate_lost_files(s: &Service, kept: &str) {
    s.alice().upload_version(kept, b"second version").await.unwrap();
    upload(s, "new.txt", b"new").await;
    assert_eq!(replicate(s).await, 2);
}

#[test]
fn replicated_versions_come_back_once() {
    service_test_with(configure_copies, |s| async move {
        s.allow_lost_objects();
        let kept = upload(&s, "kept.txt", b"kept").await;
        assert_eq!(replicate(&s).await, 1);
        let restored = restore_after(&s, async |s| replicate_lost_files(s, &kept).await).await;
        adopt(&restored).await;
        let [main, copies] = run_check(&restored, None).await;
        assert_eq!((main.listed_objects, main.lost_hours.count, main.missing.count), (3, 2, 0), "{main:#?}");
        assert_eq!((copies.listed_objects, copies.lost_hours.count, copies.recent.count), (3, 2, 0));
        let looked_up = (main.checked_blobs, copies.checked_blobs, copies.missing.count);
        assert_eq!(looked_up, (1, 0, 0), "the blob is at its own provider: {copies:#?}");

        readopt(&restored, [2, 2, 0, 0], [2, 0, 2, 0]).await;
        let files = list_recovered(&restored.ada()).await;
        assert_eq!(files.keys().collect::<Vec<_>>(), ["kept.txt", "new.txt"]);
        let charged = restored.quota_row(&restored.ada()).await.used_bytes;
        assert_eq!(charged, 4 + 14 + 3, "each version is charged once");
        let former = "SELECT metadata ->> 'recovered_file_id' FROM files
                      WHERE metadata ->> 'recovered_is_first_version' = 'false'";
        assert_eq!(restored.superuser.query_texts(former).await, [kept]);
        // Sweeps delete the copies that are left over, and the blobs get others.
        run_all_deletions(&restored).await;
        assert_eq!(restored.run_fsck().await.violations, []);
        stop(restored).await;
        empty_stores(&s).await;
    });
}

#[test]
fn decision_about_one_store_leaves_the_other_undecided() {
    service_test_with(configure_copies, |s| async move {
        upload(&s, "kept.txt", b"kept").await;
        assert_eq!(replicate(&s).await, 1);
        let restored = restore_after(&s, async |_| {}).await;
        adopt(&restored).await;
        let of_main =
            RestoreOptions { provider: Some("main".to_owned()), ..options(Some(RestoreDecision::Discard)) };
        check_restore(&restored.app, &of_main, &mut NoProgress).await.unwrap();
        let undecided = "SELECT provider FROM restore_windows WHERE decide_time IS NULL";
        assert_eq!(restored.superuser.query_texts(undecided).await, [COPIES]);
        stop(restored).await;
    });
}

#[test]
fn copies_come_back_if_their_originals_are_gone() {
    service_test_with(configure_copies, |s| async move {
        s.allow_lost_objects();
        let kept = upload(&s, "kept.txt", b"kept").await;
        assert_eq!(replicate(&s).await, 1);
        let original = object_key(&s).await;
        let restored = restore_after(&s, async |s| {
            replicate_lost_files(s, &kept).await;
            for key in list_keys(s, "main").await.into_iter().filter(|key| *key != original) {
                s.store.delete(&key).await.unwrap();
            }
        })
        .await;
        adopt_and_readopt(&restored, [0; 4], [2, 2, 0, 0]).await;
        let files = list_recovered(&restored.ada()).await;
        assert_eq!(restored.ada().read(&files["kept.txt"]).await.unwrap(), b"second version"[..]);
        assert_eq!(restored.ada().read(&files["new.txt"]).await.unwrap(), b"new"[..]);
        stop(restored).await;
    });
}

#[test]
fn copies_without_a_label_are_recognized() {
    service_test_with(configure_copies, |s| async move {
        s.allow_lost_objects();
        // As an object from before labels existed. Its copies have no label either.
        let id = upload(&s, "old.txt", b"old bytes").await;
        let original = object_key(&s).await;
        replace_object(&s, &original, b"old bytes").await;
        let restored = restore_after(&s, async |s| {
            assert_eq!(replicate(s).await, 1);
            let of_former_version = vec![("replica-of".to_owned(), blob_id(s).await.to_string())];
            put(s, COPIES, b"old bytes", of_former_version).await;
            put(s, "main", b"old bytes", Vec::new()).await;
            put(s, "main", b"other bytes", Vec::new()).await;
        })
        .await;
        adopt_and_readopt(&restored, [2, 1, 1, 0], [2, 0, 2, 0]).await;
        let files = list_recovered(&restored.ada()).await;
        let other = files.values().next().unwrap();
        assert_eq!((files.len(), restored.ada().read(other).await.unwrap()), (1, b"other bytes"[..].into()));
        assert_eq!(restored.alice().read(&id).await.unwrap(), b"old bytes"[..]);
        stop(restored).await;
        empty_stores(&s).await;
    });
}

#[test]
fn copy_without_a_label_replaces_its_missing_original() {
    service_test_with(configure_copies, |s| async move {
        s.allow_lost_objects();
        let id = upload(&s, "old.txt", b"old bytes").await;
        let original = object_key(&s).await;
        replace_object(&s, &original, b"old bytes").await;
        let restored = restore_after(&s, async |s| {
            assert_eq!(replicate(s).await, 1);
            s.store.delete(&original).await.unwrap();
        })
        .await;
        adopt(&restored).await;
        // As step 4 of the runbook recommends.
        restored.run_fsck_with(true).await;
        restored.alice().read(&id).await.unwrap_err();
        let [main, copies] = readopt(&restored, [0; 4], [1, 1, 0, 0]).await;
        assert_eq!((main.missing.count, copies.missing.count), (0, 0));
        assert!(list_recovered(&restored.ada()).await.is_empty());
        assert_eq!(restored.alice().read(&id).await.unwrap(), b"old bytes"[..]);
        assert_eq!(restored.run_fsck().await.violations, []);
        stop(restored).await;
    });
}

#[test]
fn relinked_blob_has_no_copy_beside_it() {
    service_test_with(configure_copies, |s| async move {
        s.allow_lost_objects();
        let id = upload(&s, "moved.txt", b"moved").await;
        assert_eq!(replicate(&s).await, 1);
        let former = list_keys(&s, COPIES).await.remove(0);
        let labels =
            [(s.store.as_ref(), object_key(&s).await), (s.stores.get(COPIES).unwrap().as_ref(), former)];
        let mut read = Vec::new();
        for (store, key) in &labels {
            read.push(label_entries(store.read_metadata(key).await.unwrap()));
        }
        assert_eq!(
            (read[0].is_empty(), &read[0]),
            (false, &read[1]),
            "the copy has the label of its original"
        );

        let mut moved = None;
        let restored = restore_after(&s, async |s| {
            // As `strongroom storage move` does, and the deletion of the original later.
            let entries = copy_entries(blob_id(s).await, StorageClass::Standard);
            moved = Some(put(s, COPIES, b"moved", entries).await);
            s.store.delete(&object_key(s).await).await.unwrap();
        })
        .await;
        adopt_and_readopt(&restored, [0; 4], [1, 1, 0, 0]).await;
        let blob = "SELECT concat_ws(' ', provider, storage_key, replica_key) FROM blobs";
        let moved = moved.unwrap();
        assert_eq!(restored.superuser.query_texts(blob).await, [format!("{COPIES} {moved}")]);
        let stray = "SELECT storage_key FROM stray_objects";
        assert_eq!(restored.superuser.query_texts(stray).await, [labels[1].1.to_string()]);
        assert_eq!(restored.alice().read(&id).await.unwrap(), b"moved"[..]);
        assert_eq!(restored.run_fsck().await.violations, []);
        assert!(restored.stores.get(COPIES).unwrap().find_object(&moved).await.unwrap().is_some());
        stop(restored).await;
        empty_stores(&s).await;
    });
}
