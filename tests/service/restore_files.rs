//! The fields of a readopted file, and the decisions about objects that are quarantined or were found before the restore.

use std::{collections::BTreeMap, fs};

use bytes::Bytes;
use chrono::Duration;
use strongroom::{
    app::restore::{
        check::check_restore,
        quarantine::{QuarantineAction, QuarantineFilter, QuarantineReport, process_quarantine},
    },
    config::import_source::SourceLocation,
    domain::{
        clock::Clock as _,
        digest::Digest,
        object_key::ObjectKey,
        object_label::{copy_entries, label_entries},
        principal::SYSTEM_ID,
        storage_class::StorageClass,
    },
    proto::v1::{FileState, ImportItem, UploadSpec, Visibility},
    storage::{
        Payload, PutOptions, StorageErrorKind,
        flaky::{Fault, Operation, Plan},
    },
    worker,
};

use crate::{
    harness::{
        Service, direct_test, file_id, import_summary, pattern, service_test, service_test_with, sha256, spec,
    },
    import::{key, source_config},
    restore::{
        NoProgress, adopt, adopt_after, list_recovered, options, quarantine, readopt, restore_after, stop,
    },
    scrub::object_key,
    sweep::{GRACE, new_key, object_exists, put_orphan, run_sweep},
};

async fn upload(s: &Service, name: &str, data: &[u8]) -> String {
    file_id(&s.alice().upload(spec(name), data).await.unwrap())
}

async fn put(s: &Service, data: &'static [u8], metadata: Vec<(String, String)>) -> ObjectKey {
    let (key, options) = (new_key(s, "live", None).await, PutOptions { metadata, ..PutOptions::default() });
    s.store.put(&key, Payload::from(Bytes::from_static(data)), &options).await.unwrap();
    key
}

#[test]
fn readopted_file_has_all_that_its_label_says() {
    service_test(|s| async move {
        let data = b"a,b\n1,2\n";
        let mut lost = None;
        let restored = adopt_after(&s, async |s| {
            let declared = UploadSpec {
                mime_type: "text/csv".to_owned(),
                sha256: Some(sha256(data)),
                ..spec("report.csv")
            };
            let file = s.alice().upload(declared, data).await.unwrap().file.unwrap();
            lost = Some((file, s.clock.now()));
        })
        .await;
        let (lost, create_time) = lost.unwrap();
        let objects = s.store.list("", None, 10).await.unwrap().objects;
        let object = objects.iter().find(|object| object.size_bytes == data.len() as u64).unwrap();
        let metadata = s.store.read_metadata(&object.key).await.unwrap();
        let digest = ("sha256".to_owned(), Digest::compute(data).to_string());
        assert!(metadata.contains(&digest), "the label has the declared digest: {metadata:?}");

        let report = readopt(&restored).await;
        assert_eq!((report.readopted.count, report.readopted.bytes), (1, data.len() as u64), "{report:#?}");
        let file = restored.ada().get(&lost.id).await.unwrap();
        assert_eq!((file.state(), file.visibility()), (FileState::Available, Visibility::Owner));
        assert_eq!((file.category.as_str(), file.owner_id.as_str()), ("recovered", SYSTEM_ID));
        assert_eq!(
            (&file.name, &file.mime_type, &file.declared_mime_type, file.size_bytes, &file.sha256),
            (&lost.name, &lost.mime_type, &lost.declared_mime_type, lost.size_bytes, &lost.sha256)
        );
        assert_eq!(file.declared_mime_type, "text/csv");
        let policy = restored.ada().policy().await.unwrap();
        let category = policy.categories.iter().find(|category| category.name == "recovered").unwrap();
        assert_eq!(category.visibility(), Visibility::Owner, "that of files that others upload to it, too");
        let noted =
            "SELECT noted.key || '=' || noted.value FROM files, jsonb_each_text(files.metadata) AS noted
                     WHERE files.name = 'report.csv' ORDER BY noted.key";
        let expected = BTreeMap::from([
            ("category", lost.category.clone()),
            ("create_time", create_time.to_rfc3339()),
            ("file_id", lost.id.clone()),
            ("is_first_version", "true".to_owned()),
            ("object_time", object.modify_time.to_rfc3339()),
            ("owner_id", lost.owner_id.clone()),
        ]);
        let expected: Vec<String> =
            expected.iter().map(|(name, value)| format!("recovered_{name}={value}")).collect();
        assert_eq!(restored.superuser.query_texts(noted).await, expected);
        stop(restored).await;
    });
}

#[test]
fn lost_file_with_the_bytes_of_another_file_comes_back() {
    service_test(|s| async move {
        let restored = adopt_after(&s, async |s| {
            upload(s, "twin.txt", b"kept").await;
            upload(s, "second twin.txt", b"kept").await;
        })
        .await;
        let report = readopt(&restored).await;
        assert_eq!((report.readopted.count, report.discarded.count), (2, 0), "{report:#?}");
        let files = list_recovered(&restored.ada()).await;
        assert_eq!(files.keys().collect::<Vec<_>>(), ["second twin.txt", "twin.txt"]);
        stop(restored).await;
    });
}

#[test]
fn objects_that_name_a_stored_file_are_distinguished() {
    service_test(|s| async move {
        let id = upload(&s, "kept.txt", b"kept").await;
        let kept = object_key(&s).await;
        let label = label_entries(s.store.read_metadata(&kept).await.unwrap());
        let mut keys = Vec::new();
        let restored = restore_after(&s, async |s| {
            // A copy of the version, by a service that did not record the blob.
            keys.push(put(s, b"kept", label.clone()).await);
            // Other bytes: the ids of the file and of the blob are in use.
            let in_use = [label, copy_entries(kept.blob(), StorageClass::Standard)].concat();
            keys.push(put(s, b"other", in_use).await);
            // A copy of another blob with the same bytes. Its file is lost.
            let lost = new_key(s, "live", None).await.blob();
            keys.push(put(s, b"kept", copy_entries(lost, StorageClass::Standard)).await);
        })
        .await;
        adopt(&restored).await;
        let report = readopt(&restored).await;
        let counts = (report.readopted.count, report.discarded.count, report.left.count);
        assert_eq!((counts, report.has_findings()), ((2, 1, 0), false), "{report:#?}");
        let files = list_recovered(&restored.ada()).await;
        assert_eq!(restored.ada().read(&files["kept.txt"]).await.unwrap(), b"other"[..]);
        let of_lost_blob = format!("recovered-{}", keys[2].blob());
        assert_eq!(restored.ada().read(&files[&of_lost_blob]).await.unwrap(), b"kept"[..]);
        assert_eq!(restored.alice().read(&id).await.unwrap(), b"kept"[..]);
        stop(restored).await;
        for key in keys {
            s.store.delete(&key).await.unwrap();
        }
    });
}

#[test]
fn object_that_is_not_read_completely_is_left() {
    service_test(|s| async move {
        let restored = adopt_after(&s, async |s| drop(upload(s, "lost.txt", b"lost").await)).await;
        let cut = Fault::EndStream { after_bytes: 2 };
        restored.faults.set_plan(Plan::new().with_fault_in_all(Operation::Get, cut));
        let report = readopt(&restored).await;
        assert_eq!((report.readopted.count, report.left.count), (0, 1), "{report:#?}");
        restored.faults.set_plan(Plan::new());
        assert_eq!(readopt(&restored).await.readopted.count, 1);
        let files = list_recovered(&restored.ada()).await;
        assert_eq!(restored.ada().read(&files["lost.txt"]).await.unwrap(), b"lost"[..]);
        stop(restored).await;
    });
}

#[test]
fn object_is_left_while_a_url_can_overwrite_it() {
    direct_test(|s| async move {
        upload(&s, "kept.txt", b"kept").await;
        let restored = restore_after(&s, async |_| {}).await;
        let direct = put(&s, b"direct", Vec::new()).await;
        // No URL writes to a copy.
        let lost = new_key(&s, "live", None).await.blob();
        let copy = put(&s, b"copy", copy_entries(lost, StorageClass::Standard)).await;
        adopt(&restored).await;
        let report = readopt(&restored).await;
        assert_eq!((report.readopted.count, report.left.count), (1, 1), "{report:#?}");
        let left = &report.left_objects[0];
        assert!(left.key == direct.to_string() && left.reason.contains("URL"), "{left:?}");
        s.clock.advance(Duration::minutes(11));
        let report = readopt(&restored).await;
        assert_eq!((report.readopted.count, report.has_findings()), (1, false), "{report:#?}");
        stop(restored).await;
        for key in [direct, copy] {
            s.store.delete(&key).await.unwrap();
        }
    });
}

#[test]
fn imported_file_comes_back_with_its_owner() {
    let old = tempfile::tempdir().unwrap();
    fs::write(old.path().join("letter.txt"), b"dear").unwrap();
    let source = source_config(SourceLocation::Directory(old.path().to_owned()), "*");
    service_test_with(source, |s| async move {
        let restored = adopt_after(&s, async |s| {
            let item = ImportItem { owner_id: "alice".to_owned(), ..key("letter.txt") };
            let report = s.ada().import_files("old", false, [item]).await.unwrap();
            assert_eq!(import_summary(&report).imported_count, 1);
        })
        .await;
        assert_eq!(readopt(&restored).await.readopted.count, 1);
        let owner = "SELECT metadata ->> 'recovered_owner_id' FROM files WHERE name = 'letter.txt'";
        assert_eq!(restored.superuser.query_texts(owner).await, ["alice"]);
        stop(restored).await;
    });
}

#[test]
fn earlier_findings_of_a_sweep_wait_for_the_decision() {
    service_test(|s| async move {
        let orphan = put_orphan(&s).await;
        s.clock.advance(GRACE);
        assert_eq!(run_sweep(&s).await.found.count, 1);
        let restored = adopt_after(&s, async |s| drop(upload(s, "lost.txt", b"lost").await)).await;
        s.clock.advance(GRACE);
        let report = run_sweep(&restored).await;
        assert_eq!((report.deleted.count, report.problems.len()), (0, 1), "{report:?}");
        assert!(object_exists(&s, &orphan).await);
        quarantine(&restored).await;
        let report = run_sweep(&restored).await;
        assert_eq!((report.deleted.count, report.problems.len()), (1, 0), "{report:?}");
        assert!(!object_exists(&s, &orphan).await);
        stop(restored).await;
    });
}

#[test]
fn row_of_quarantined_object_outlives_a_failed_deletion() {
    service_test(|s| async move {
        s.allow_lost_objects();
        // The tenant exists in the restored state.
        s.mallory().upload(spec("globex.txt"), b"globex").await.unwrap();
        let restored = adopt_after(&s, async |s| {
            upload(s, "lost.txt", b"lost").await;
            s.mallory().upload(spec("lost too.txt"), b"lost too").await.unwrap();
        })
        .await;
        assert_eq!(quarantine(&restored).await.quarantined.count, 2);
        let globex = Some(s.mallory().tenant_id().await.parse().unwrap());
        let of_globex = QuarantineFilter { tenant: globex, ..QuarantineFilter::default() };
        let elsewhere =
            QuarantineFilter { provider: Some("other".to_owned()), ..QuarantineFilter::default() };
        let process = async |filter: &QuarantineFilter, action: QuarantineAction| -> QuarantineReport {
            process_quarantine(&restored.app, filter, action, 10).await.unwrap()
        };
        let listed = process(&of_globex, QuarantineAction::List).await;
        assert_eq!((listed.selected.count, listed.selected.bytes), (1, 8), "{listed:?}");
        assert_eq!(process(&elsewhere, QuarantineAction::List).await.selected.count, 0);

        let down = Fault::Before(StorageErrorKind::Unavailable);
        restored.faults.set_plan(Plan::new().with_fault_in_all(Operation::DeleteBatch, down));
        let failed = process(&of_globex, QuarantineAction::Delete).await;
        assert_eq!((failed.selected.count, failed.failures.len()), (1, 1), "{failed:?}");
        restored.faults.set_plan(Plan::new());
        assert!(object_exists(&s, &listed.objects[0].key).await);
        let deleted = process(&of_globex, QuarantineAction::Delete).await;
        assert_eq!((deleted.selected.count, deleted.failures.len()), (1, 0), "its row was kept");
        assert!(!object_exists(&s, &listed.objects[0].key).await);
        let all = QuarantineFilter::default();
        assert_eq!(process(&all, QuarantineAction::List).await.selected.count, 1);
        // An operator removed the provider from the configuration.
        restored.superuser.execute("UPDATE quarantined_objects SET provider = 'removed'").await;
        let failed = process(&all, QuarantineAction::Delete).await;
        assert!(failed.failures.len() == 1 && failed.failures[0].contains("not configured"), "{failed:?}");
        assert_eq!(process(&all, QuarantineAction::List).await.selected.count, 1);
        stop(restored).await;
    });
}

#[test]
fn staged_object_of_an_open_upload_is_known() {
    direct_test(|s| async move {
        let (alice, bytes) = (s.alice(), pattern(1_000));
        let staged = UploadSpec { size_bytes: Some(1_000), ..spec("direct.bin") };
        let direct = alice.create_direct_upload(staged).await.unwrap();
        let sent = s.put_parts(&direct, &bytes).await;
        let reports = check_restore(&s.app, &options(None), &mut NoProgress).await.unwrap();
        let listed: u64 = reports.iter().map(|report| report.listed_objects).sum();
        let unknown: u64 = reports.iter().map(|report| report.recent.count + report.lost_hours.count).sum();
        assert_eq!((listed, unknown), (1, 0), "{reports:#?}");
        alice.complete_direct_upload(&direct.id, &sent).await.unwrap();
        while worker::run_round(&s.app).await.done > 0 {}
    });
}
