//! A restore is an operation: the objects of the lost hours are listed, no sweep deletes them, and an operator makes
//! them files again, quarantines them or discards them. The restored database is a copy that adopts the store.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use chrono::Duration;
use strongroom::{
    app::{
        integrity::sweep::{SweepOptions, SweepReport, sweep_stores},
        owner::{OwnerParts, StoreOwners},
        restore::{
            check::{RestoreDecision, RestoreOptions, RestoreProgress, check_restore},
            quarantine::{QuarantineAction, QuarantineFilter, QuarantineReport, process_quarantine},
            report::{RestoreReport, UnknownOrigin},
        },
    },
    domain::{
        clock::{Clock as _, SystemIds},
        digest::Digest,
        object_key::ObjectKey,
        object_label::fragment_metadata,
    },
    proto::v1::{FileFilter, ListFilesRequest, UploadSpec},
    storage::{
        ObjectStorage, Payload, PutOptions, StorageErrorKind, Stores,
        flaky::{Fault, Flaky, Operation, Plan},
    },
    worker,
};

use crate::{
    harness::{Caller, PART, Service, UNLIMITED, file_id, pattern, service_test, spec},
    store_owner::{BEAT, Renamed},
    sweep::{GRACE, new_key, put_orphan},
};

const PROVIDER: &str = "memory";
const HOUR: Duration = Duration::hours(1);

pub(crate) struct NoProgress;

impl RestoreProgress for NoProgress {
    fn report_progress(&mut self, _: &RestoreReport) {}
}

pub(crate) async fn upload(caller: &Caller, name: &str, data: &[u8]) -> String {
    file_id(&caller.upload(spec(name), data).await.unwrap())
}

pub(crate) fn options(decision: Option<RestoreDecision>) -> RestoreOptions {
    RestoreOptions { provider: None, decision, entries_max: 100 }
}

pub(crate) async fn run_check(s: &Service, decision: Option<RestoreDecision>) -> RestoreReport {
    let mut reports = check_restore(&s.app, &options(decision), &mut NoProgress).await.unwrap();
    assert_eq!(reports.len(), 1);
    reports.remove(0)
}

pub(crate) async fn readopt(s: &Service) -> RestoreReport {
    run_check(s, Some(RestoreDecision::Readopt)).await
}

pub(crate) async fn quarantine(s: &Service) -> RestoreReport {
    run_check(s, Some(RestoreDecision::Quarantine { reason: "restore".to_owned() })).await
}

pub(crate) async fn discard(s: &Service) -> RestoreReport {
    run_check(s, Some(RestoreDecision::Discard)).await
}

async fn run_sweep(s: &Service) -> SweepReport {
    sweep_stores(&s.app, SweepOptions::from_config(&s.app)).await.unwrap().remove(0)
}

/// Runs everything that deletes objects, until all delays have passed.
pub(crate) async fn run_all_deletions(s: &Service) {
    for _ in 0..3 {
        s.clock.advance(GRACE * 2);
        for _ in 0..3 {
            worker::run_round(&s.app).await;
        }
        run_sweep(s).await;
    }
}

pub(crate) async fn list_keys(s: &Service) -> Vec<String> {
    let page = s.store.list("", None, 200).await.unwrap();
    page.objects.iter().map(|object| object.key.to_string()).collect()
}

/// Lists the recovered files that a caller sees: their ids by name.
pub(crate) async fn list_recovered(caller: &Caller) -> BTreeMap<String, String> {
    let filter = FileFilter { category: "recovered".to_owned(), ..FileFilter::default() };
    let request = ListFilesRequest { page_size: 1_000, filter: Some(filter), ..ListFilesRequest::default() };
    let files = caller.list(request).await.unwrap().files;
    files.into_iter().map(|file| (file.name, file.id)).collect()
}

/// Starts the database as it was a moment ago, an hour of other changes later.
pub(crate) async fn restore_after(s: &Service, load: impl AsyncFnOnce(&Service)) -> Service {
    s.allow_logged_errors();
    let restored = s.start_copy().await;
    s.clock.advance(HOUR);
    load(s).await;
    s.clock.advance(HOUR);
    restored
}

pub(crate) async fn adopt(restored: &Service) {
    restored.app.owners().adopt_store(PROVIDER).await.unwrap();
}

/// Uploads a file that the restored database has, and `load` in the lost hours. The restored database adopts the store.
pub(crate) async fn adopt_after(s: &Service, load: impl AsyncFnOnce(&Service)) -> Service {
    upload(&s.alice(), "kept.txt", b"kept").await;
    let restored = restore_after(s, load).await;
    adopt(&restored).await;
    restored
}

pub(crate) async fn upload_three(s: &Service) {
    for name in ["a.txt", "b.txt", "c.txt"] {
        upload(&s.alice(), name, name.as_bytes()).await;
    }
}

/// Stores an object without a row in the lost hours, with metadata for its key. The restored database adopts the store.
async fn adopt_with_object(
    s: &Service,
    metadata: impl FnOnce(&ObjectKey) -> Vec<(String, String)>,
) -> (Service, ObjectKey) {
    let mut stored = None;
    let restored = adopt_after(s, async |s| {
        let key = new_key(s, "live", None).await;
        let options = PutOptions { metadata: metadata(&key), ..PutOptions::default() };
        s.store.put(&key, Payload::from(Bytes::from_static(b"bytes")), &options).await.unwrap();
        stored = Some(key);
    })
    .await;
    (restored, stored.unwrap())
}

pub(crate) async fn stop(restored: Service) {
    restored.stop().await;
    restored.database.drop_database().await;
}

/// Asserts that the comparison lists the objects of the lost hours before the adoption, and only reads.
async fn assert_lists_lost_hours(restored: &Service, count: u64) {
    let report = run_check(restored, None).await;
    assert_eq!(
        (report.is_owner, report.lost_hours.count, report.missing.count),
        (false, count, 0),
        "{report:#?}"
    );
    assert!(report.has_findings() && report.objects.len() as u64 == count);
    assert!(report.objects.iter().all(|object| object.origin == UnknownOrigin::LostHours));
    assert_eq!(report.tenants.values().map(|totals| totals.count).sum::<u64>(), count);
    let discard = options(Some(RestoreDecision::Discard));
    let refused = check_restore(&restored.app, &discard, &mut NoProgress).await;
    assert!(refused.unwrap_err().to_string().contains("strongroom storage adopt"));
}

#[test]
fn restore_is_reconciled_and_nothing_is_unexplained() {
    service_test(|s| async move {
        let (alice, mallory) = (s.alice(), s.mallory());
        let (data, large) = (pattern(3 * PART + 1), pattern(2 * PART + 5));
        let kept = upload(&alice, "kept.txt", b"kept").await;
        upload(&mallory, "globex.txt", b"globex").await;
        let open = UploadSpec { size_bytes: Some(data.len() as i64), ..spec("resumed.bin") };
        let open = alice.create_upload(open).await.unwrap();
        alice.resume_upload(&open.id, &data[..2 * PART], 0, false).await.unwrap_err();
        let restored = restore_after(&s, async |s| {
            // The objects of the lost hours: small, large, a version, an upload that was open, and a leftover.
            upload(&s.alice(), "small.txt", b"small").await;
            upload(&s.bob(), "large.bin", &large).await;
            upload(&s.mallory(), "other.txt", b"other").await;
            s.alice().upload_version(&kept, b"second version").await.unwrap();
            s.alice().resume_upload(&open.id, &data, 2 * PART, true).await.unwrap();
            put_orphan(s).await;
        })
        .await;

        assert_lists_lost_hours(&restored, 6).await;
        adopt(&restored).await;
        let report = readopt(&restored).await;
        assert_eq!((report.readopted, report.left.count), (report.lost_hours, 0), "{report:#?}");
        assert!(!report.has_findings(), "{report:#?}");

        // Each object is a file with its bytes, which only admins see.
        let files = list_recovered(&restored.ada()).await;
        let expected: [(&str, &[u8]); 4] = [
            ("small.txt", b"small"),
            ("large.bin", &large),
            ("kept.txt", b"second version"),
            ("resumed.bin", &data),
        ];
        for (name, bytes) in expected {
            assert_eq!(restored.ada().read(&files[name]).await.unwrap(), bytes, "{name}");
        }
        assert_eq!(files.len(), 5, "{files:?}");
        assert!(files.keys().any(|name| name.starts_with("recovered-")), "{files:?}");
        assert!(list_recovered(&restored.alice()).await.is_empty());
        assert_eq!(list_recovered(&restored.gus()).await.keys().collect::<Vec<_>>(), ["other.txt"]);
        assert_eq!(restored.alice().read(&kept).await.unwrap(), b"kept"[..]);
        let owners =
            "SELECT metadata ->> 'recovered_owner_id' FROM files WHERE name IN ('large.bin', 'small.txt')
                      ORDER BY name";
        assert_eq!(restored.superuser.query_texts(owners).await, ["bob", "alice"]);
        let audited = "SELECT count(*) FROM audit_entries WHERE details ? 'readopted_key'";
        assert_eq!(restored.superuser.query_number(audited).await, 6, "one entry for each file");

        // A repeated command changes nothing, and nothing deletes the files.
        let again = readopt(&restored).await;
        assert_eq!((again.readopted.count, again.lost_hours.count), (0, 0));
        let keys = list_keys(&s).await;
        run_all_deletions(&restored).await;
        assert_eq!(list_keys(&s).await, keys);
        assert_eq!(restored.run_fsck().await.violations, []);
        for (name, bytes) in expected {
            assert_eq!(restored.ada().read(&files[name]).await.unwrap(), bytes, "{name}");
        }
        s.store.delete(&orphan_key(&s).await).await.unwrap();
        stop(restored).await;
    });
}

/// Returns the key of the object that has no row in the database of the service.
async fn orphan_key(s: &Service) -> ObjectKey {
    let known = s.superuser.query_texts("SELECT storage_key FROM blobs").await;
    let objects = s.store.list("", None, 200).await.unwrap().objects;
    objects.into_iter().map(|object| object.key).find(|key| !known.contains(&key.to_string())).unwrap()
}

#[test]
fn sweeps_leave_lost_hours_alone_until_a_decision() {
    service_test(|s| async move {
        s.allow_lost_objects();
        let restored = adopt_after(&s, async |s| {
            for n in 0..25 {
                upload(&s.alice(), &format!("{n}.txt"), b"lost").await;
            }
            let unfinished = new_key(s, "live", None).await;
            s.store.start_multipart(&unfinished, 1024, &Default::default()).await.unwrap();
        })
        .await;
        let keys = list_keys(&s).await;
        run_all_deletions(&restored).await;
        let report = run_sweep(&restored).await;
        assert_eq!(
            (report.found.count, report.deleted.count, report.undecided.count),
            (0, 0, 27),
            "{report:?}"
        );
        assert!(
            report.problems.iter().any(|problem| problem.contains("strongroom restore-check")),
            "{report:?}"
        );
        assert_eq!(list_keys(&s).await, keys, "nothing was deleted");
        assert_eq!(restored.superuser.query_number("SELECT count(*) FROM sweep_candidates").await, 0);
        let undecided = run_check(&restored, None).await;
        assert!(undecided.has_findings() && undecided.restores[0].is_undecided(), "{undecided:#?}");

        // After the decision, no other confirmation is necessary, although most objects have no row.
        let report = discard(&restored).await;
        assert_eq!((report.discarded.count, report.has_findings()), (25, false), "{report:#?}");
        let found = run_sweep(&restored).await;
        assert_eq!((found.found.count, found.problems.len()), (26, 0), "{found:?}");
        s.clock.advance(GRACE);
        let deleted = run_sweep(&restored).await;
        assert_eq!((deleted.deleted.count, deleted.problems.len()), (26, 0), "{deleted:?}");
        assert_eq!(list_keys(&s).await.len(), 1);
        stop(restored).await;
    });
}

#[test]
fn quarantined_objects_are_kept_until_an_operator_decides() {
    service_test(|s| async move {
        s.allow_lost_objects();
        let restored = adopt_after(&s, upload_three).await;
        let report = quarantine(&restored).await;
        assert_eq!((report.quarantined.count, report.quarantine.count), (3, 3), "{report:#?}");
        assert!(!report.has_findings());
        let keys = list_keys(&s).await;
        s.clock.advance(GRACE);
        let found = run_sweep(&restored).await;
        assert_eq!((found.listed_objects, found.found.count), (4, 0), "an owner is known: {found:?}");
        run_all_deletions(&restored).await;
        assert_eq!(list_keys(&s).await, keys, "no sweep deletes quarantined objects");
        assert_eq!(restored.run_fsck().await.violations, []);

        let process = async |action: QuarantineAction, keys: Vec<String>| -> QuarantineReport {
            let filter = QuarantineFilter { keys, ..QuarantineFilter::default() };
            process_quarantine(&restored.app, &filter, action, 10).await.unwrap()
        };
        let listed = process(QuarantineAction::List, Vec::new()).await;
        assert_eq!((listed.selected.count, listed.objects[0].reason.as_str()), (3, "restore"));
        let key = |n: usize| listed.objects[n].key.to_string();

        // A released object can be readopted, and a deleted one is gone.
        assert_eq!(process(QuarantineAction::Release, vec![key(0)]).await.selected.count, 1);
        let report = readopt(&restored).await;
        assert_eq!((report.readopted.count, report.quarantine.count), (1, 2), "{report:#?}");
        assert_eq!(list_recovered(&restored.ada()).await.len(), 1);
        let deleted = process(QuarantineAction::Delete, vec![key(1)]).await;
        assert_eq!((deleted.selected.count, deleted.failures.len()), (1, 0));
        assert_eq!(process(QuarantineAction::List, Vec::new()).await.selected.count, 1);
        assert!(!list_keys(&s).await.contains(&key(1)));
        assert_eq!(restored.run_fsck().await.violations, []);
        stop(restored).await;
    });
}

#[test]
fn readopting_never_exceeds_a_quota() {
    service_test(|s| async move {
        let restored = adopt_after(&s, upload_three).await;
        // The file of 4 bytes, and two of the three files of 5 bytes.
        restored.ada().set_limit_bytes(16).await;
        let report = readopt(&restored).await;
        assert_eq!((report.readopted.count, report.left.count), (2, 1), "{report:#?}");
        assert!(report.left_objects[0].reason.contains("quota"), "{:?}", report.left_objects);
        assert!(report.has_findings() && report.restores[0].is_undecided());
        assert_eq!(restored.quota_row(&restored.ada()).await.used_bytes, 14);
        run_all_deletions(&restored).await;
        assert_eq!(list_keys(&s).await.len(), 4, "the object that is left is not deleted");

        restored.ada().set_limit_bytes(1_000).await;
        let report = readopt(&restored).await;
        assert_eq!((report.readopted.count, report.has_findings()), (1, false), "{report:#?}");
        assert_eq!(restored.quota_row(&restored.ada()).await.used_bytes, 19);
        stop(restored).await;
    });
}

#[test]
fn interrupted_readopting_continues_where_it_stopped() {
    service_test(|s| async move {
        let restored = adopt_after(&s, upload_three).await;
        let fault = Fault::Before(StorageErrorKind::Unavailable);
        restored.faults.set_plan(Plan::new().with_fault(Operation::Get, 2, fault));
        let decision = options(Some(RestoreDecision::Readopt));
        check_restore(&restored.app, &decision, &mut NoProgress).await.unwrap_err();
        restored.faults.set_plan(Plan::new());
        assert_eq!(list_recovered(&restored.ada()).await.len(), 1);
        let report = readopt(&restored).await;
        assert_eq!((report.readopted.count, report.has_findings()), (2, false), "{report:#?}");
        let files = list_recovered(&restored.ada()).await;
        for (name, id) in &files {
            assert_eq!(restored.ada().read(id).await.unwrap(), name.as_bytes());
        }
        assert_eq!(files.len(), 3);
        stop(restored).await;
    });
}

#[test]
fn object_of_running_upload_is_left_until_it_is_older() {
    service_test(|s| async move {
        let restored = adopt_after(&s, async |s| drop(upload(&s.alice(), "lost.txt", b"lost").await)).await;
        s.clock.advance(Duration::seconds(1));
        // As of an upload that was stored, and whose commit is to come.
        let running = put_orphan(&s).await;
        let report = readopt(&restored).await;
        assert_eq!((report.readopted.count, report.left.count), (1, 1), "{report:#?}");
        assert!(report.left_objects[0].reason.contains("upload in progress"), "{:?}", report.left_objects);
        assert!(report.has_findings() && report.restores[0].is_undecided());
        // The commit would be refused now.
        s.clock.advance(GRACE / 2);
        let report = readopt(&restored).await;
        assert_eq!((report.readopted.count, report.has_findings()), (1, false), "{report:#?}");
        s.store.delete(&running).await.unwrap();
        stop(restored).await;
    });
}

#[test]
fn object_that_differs_from_its_label_is_left() {
    service_test(|s| async move {
        let (restored, key) = adopt_with_object(&s, |key| {
            let entry = |name: &str, value: String| (name.to_owned(), value);
            vec![
                entry("file-id", key.blob().to_string()),
                entry("create-time", s.clock.now().to_rfc3339()),
                entry("category", "document".to_owned()),
                entry("sha256", Digest::compute(b"other bytes").to_string()),
            ]
        })
        .await;
        let report = readopt(&restored).await;
        assert_eq!((report.readopted.count, report.left.count), (0, 1), "{report:#?}");
        assert!(report.left_objects[0].reason.contains("SHA-256"), "{:?}", report.left_objects);
        assert!(quarantine(&restored).await.quarantined.count == 1);
        s.store.delete(&key).await.unwrap();
        stop(restored).await;
    });
}

#[test]
fn fragment_of_a_part_never_becomes_a_file() {
    service_test(|s| async move {
        let (restored, key) = adopt_with_object(&s, |_| fragment_metadata()).await;
        let report = readopt(&restored).await;
        let counts = (report.readopted.count, report.discarded.count, report.has_findings());
        assert_eq!(counts, (0, 1, false), "{report:#?}");
        s.store.delete(&key).await.unwrap();
        stop(restored).await;
    });
}

#[test]
fn missing_objects_are_listed_with_their_files() {
    service_test(|s| async move {
        s.allow_lost_objects();
        upload(&s.alice(), "kept.txt", b"kept").await;
        upload(&s.alice(), "purged.txt", b"purged").await;
        let key = "SELECT b.storage_key FROM blobs b JOIN versions v ON (v.tenant_id, v.blob_id) = (b.tenant_id, b.id)
                   JOIN files f ON (f.tenant_id, f.id) = (v.tenant_id, v.file_id) WHERE f.name = 'purged.txt'";
        let key = s.superuser.query_texts(key).await.remove(0);
        let objects = s.store.list("", None, 10).await.unwrap().objects;
        let object = objects.iter().find(|object| object.key.as_str() == key).unwrap();
        s.store.delete(&object.key).await.unwrap();
        let report = run_check(&s, None).await;
        assert_eq!(
            (report.is_owner, report.checked_blobs, report.missing.count),
            (true, 2, 1),
            "{report:#?}"
        );
        let missing = &report.missing_blobs[0];
        let versions: Vec<_> =
            missing.versions.iter().map(|version| (version.name.as_str(), version.version)).collect();
        assert_eq!((missing.key.as_str(), versions), (key.as_str(), vec![("purged.txt", 1)]));
        assert!(report.has_findings());
    });
}

#[test]
fn adoption_by_the_owner_itself_loses_no_hours() {
    service_test(|s| async move {
        upload(&s.alice(), "kept.txt", b"kept").await;
        s.app.owners().adopt_store(PROVIDER).await.unwrap();
        let windows = "SELECT count(*) FROM restore_windows";
        assert_eq!(s.superuser.query_number(windows).await, 0);
        assert!(!run_check(&s, None).await.has_findings());
    });
}

#[test]
fn providers_of_one_store_lose_the_same_hours() {
    async fn check(s: Service, faults: Plan) {
        upload(&s.alice(), "kept.txt", b"kept").await;
        s.clock.advance(BEAT);
        s.app.owners().check_store(PROVIDER).await.unwrap();
        let marker_time = s.clock.now().to_rfc3339();
        let restored = restore_after(&s, async |s| drop(upload(&s.alice(), "lost.txt", b"lost").await)).await;
        let store = Flaky::new(Arc::clone(&s.store), faults);
        let renamed: Arc<dyn ObjectStorage> = Arc::new(Renamed(Arc::clone(&s.store)));
        let owners = StoreOwners::new(OwnerParts {
            db: restored.db.clone(),
            stores: Stores::new([store as _, renamed], PROVIDER, UNLIMITED).unwrap(),
            clock: s.clock.clone(),
            ids: Arc::new(SystemIds),
            metrics: None,
            limits: restored.app.limits().owner,
            key_prefix: "live".to_owned(),
        });
        owners.adopt_store(Renamed::PROVIDER).await.unwrap();
        let windows = "SELECT provider FROM restore_windows ORDER BY provider";
        assert_eq!(restored.superuser.query_texts(windows).await, [PROVIDER, Renamed::PROVIDER]);
        let starts = format!(
            "SELECT count(DISTINCT (start_time, end_time)) FROM restore_windows HAVING min(start_time) = '{marker_time}'"
        );
        assert_eq!(restored.superuser.query_number(&starts).await, 1, "the last marker of either");
        stop(restored).await;
    }
    service_test(|s| check(s, Plan::new()));
    // A provider that cannot be reached may be another name of the store.
    let down = Fault::Before(StorageErrorKind::Unavailable);
    service_test(|s| check(s, Plan::new().with_fault_in_all(Operation::ReadMarker, down)));
}
