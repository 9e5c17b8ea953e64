//! Uploads that were open in the restored state, and completed in the lost hours: their rows do not delete the objects.

use strongroom::{
    app::restore::{
        quarantine::{QuarantineAction, QuarantineFilter, process_quarantine},
        report::RestoreReport,
    },
    domain::object_key::ObjectKey,
    proto::v1::UploadSpec,
    worker,
};
use tonic::Code;

use crate::{
    harness::{PART, Service, pattern, service_test, spec},
    restore::{
        adopt, adopt_after, discard, list_keys, list_recovered, quarantine, readopt, restore_after,
        run_all_deletions, run_check, stop, upload,
    },
    sweep::{GRACE, put_object},
};

/// Ends the leases of all uploads, and runs the background work that deletes their bytes.
async fn expire_uploads(s: &Service) {
    s.clock.advance(GRACE * 2);
    for _ in 0..3 {
        worker::run_round(&s.app).await;
    }
}

#[test]
fn upload_completed_in_lost_hours_outlives_its_lease() {
    service_test(|s| async move {
        let data = pattern(3 * PART + 1);
        let sized = UploadSpec { size_bytes: Some(data.len() as i64), ..spec("resumed.bin") };
        let open = s.alice().create_upload(sized).await.unwrap();
        s.alice().resume_upload(&open.id, &data[..2 * PART], 0, false).await.unwrap_err();
        let restored = restore_after(&s, async |s| {
            s.alice().resume_upload(&open.id, &data, 2 * PART, true).await.unwrap();
        })
        .await;
        let keys = list_keys(&s).await;
        adopt(&restored).await;
        expire_uploads(&restored).await;
        assert_eq!(list_keys(&s).await, keys, "undecided");
        assert_eq!(
            restored.quota_row(&restored.ada()).await.reserved_bytes,
            0,
            "the reservation is released"
        );

        assert_eq!(quarantine(&restored).await.quarantined.count, 1);
        expire_uploads(&restored).await;
        assert_eq!(list_keys(&s).await, keys, "quarantined");

        let (filter, action) = (QuarantineFilter::default(), QuarantineAction::Release);
        let released = process_quarantine(&restored.app, &filter, action, 10).await.unwrap();
        assert_eq!(released.selected.count, 1);
        for _ in 0..3 {
            worker::run_round(&restored.app).await;
        }
        assert_eq!(list_keys(&s).await, keys, "released");

        assert_eq!(readopt(&restored).await.readopted.count, 1);
        expire_uploads(&restored).await;
        let files = list_recovered(&restored.ada()).await;
        assert_eq!(restored.ada().read(&files["resumed.bin"]).await.unwrap(), data);
        stop(restored).await;
    });
}

/// Restores a state with an open upload that was completed since. Returns the restored service, the id of the upload,
/// and the bytes.
async fn restore_with_completed_upload(s: &Service) -> (Service, String, Vec<u8>) {
    let data = pattern(3 * PART + 1);
    let sized = UploadSpec { size_bytes: Some(data.len() as i64), ..spec("resumed.bin") };
    let open = s.alice().create_upload(sized).await.unwrap();
    s.alice().resume_upload(&open.id, &data[..2 * PART], 0, false).await.unwrap_err();
    let restored = restore_after(s, async |s| {
        s.alice().resume_upload(&open.id, &data, 2 * PART, true).await.unwrap();
    })
    .await;
    adopt(&restored).await;
    (restored, open.id, data)
}

#[test]
fn cancelled_upload_that_was_completed_in_lost_hours_comes_back() {
    service_test(|s| async move {
        let (restored, open, data) = restore_with_completed_upload(&s).await;
        let keys = list_keys(&s).await;
        restored.alice().cancel_upload(&open).await.unwrap();
        assert_eq!(list_keys(&s).await, keys, "undecided");
        assert_eq!(restored.quota_row(&restored.ada()).await.reserved_bytes, 0);
        assert_eq!(readopt(&restored).await.readopted.count, 1);
        expire_uploads(&restored).await;
        let files = list_recovered(&restored.ada()).await;
        assert_eq!(restored.ada().read(&files["resumed.bin"]).await.unwrap(), data);
        let rows = "SELECT count(*) FROM uploads";
        assert_eq!(restored.superuser.query_number(rows).await, 0, "nothing is left to do for the upload");
        stop(restored).await;
    });
}

#[test]
fn upload_whose_object_was_decided_about_is_over() {
    async fn check(s: Service, decide: impl AsyncFn(&Service) -> RestoreReport) {
        let (restored, open, data) = restore_with_completed_upload(&s).await;
        assert!(!decide(&restored).await.has_findings());
        assert_eq!(restored.quota_row(&restored.ada()).await.reserved_bytes, 0);
        // As by a client whose own state was restored to the same time.
        let (alice, keys) = (restored.alice(), list_keys(&s).await);
        let resumed = alice.resume_upload(&open, &data, 2 * PART, true).await.unwrap_err();
        let cancelled = alice.cancel_upload(&open).await.unwrap_err();
        assert_eq!((resumed.code(), cancelled.code()), (Code::NotFound, Code::NotFound));
        run_all_deletions(&restored).await;
        assert_eq!(list_keys(&s).await, keys);
        for id in list_recovered(&restored.ada()).await.values() {
            assert_eq!(restored.ada().read(id).await.unwrap(), data);
        }
        assert_eq!(restored.run_fsck().await.violations, []);
        stop(restored).await;
    }
    service_test(|s| check(s, readopt));
    service_test(|s| check(s, quarantine));
}

#[test]
fn object_of_an_upload_in_progress_is_known() {
    service_test(|s| async move {
        let data = pattern(3 * PART + 1);
        let sized = UploadSpec { size_bytes: Some(data.len() as i64), ..spec("resumed.bin") };
        let open = s.alice().create_upload(sized).await.unwrap();
        s.alice().resume_upload(&open.id, &data[..2 * PART], 0, false).await.unwrap_err();
        // As of an upload whose bytes are stored, and whose commit is to come.
        let key = s.superuser.query_texts("SELECT storage_key FROM uploads").await.remove(0);
        let key = ObjectKey::parse(&key).unwrap();
        put_object(&s, &key).await;
        let report = run_check(&s, None).await;
        assert_eq!((report.listed_objects, report.recent.count), (1, 0), "{report:#?}");
        s.store.delete(&key).await.unwrap();
        s.alice().resume_upload(&open.id, &data, 2 * PART, true).await.unwrap();
    });
}

#[test]
fn empty_upload_can_be_completed_before_the_decision() {
    service_test(|s| async move {
        let restored = adopt_after(&s, async |_| {}).await;
        let sized = UploadSpec { size_bytes: Some(0), ..spec("empty.txt") };
        let empty = restored.alice().create_upload(sized).await.unwrap();
        // Its multipart upload has no parts, and is aborted, which has to wait.
        let file = restored.alice().complete_upload(&empty.id, 0).await.unwrap();
        assert!(restored.alice().read(&file.id).await.unwrap().is_empty());
        let unfinished = async || s.store.list_multiparts("", None, 10).await.unwrap().multiparts.len();
        assert_eq!(unfinished().await, 1, "undecided");
        discard(&restored).await;
        run_all_deletions(&restored).await;
        assert_eq!(unfinished().await, 0);
        restored.alice().purge(&file.id).await.unwrap();
        run_all_deletions(&restored).await;
        assert_eq!(list_keys(&s).await.len(), 1);
        stop(restored).await;
    });
}

#[test]
fn rows_of_a_tenant_are_not_erased_before_the_decision() {
    service_test(|s| async move {
        s.allow_lost_objects();
        let restored = adopt_after(&s, async |s| drop(upload(&s.alice(), "lost.txt", b"lost").await)).await;
        let count_rows = async || {
            let rows = "SELECT (SELECT count(*) FROM files) + (SELECT count(*) FROM quarantined_objects)";
            restored.superuser.query_number(rows).await
        };
        let (keys, acme) = (list_keys(&s).await, s.alice().tenant_id().await);
        restored.operator().delete_tenant(&acme, false).await.unwrap();
        run_all_deletions(&restored).await;
        assert_eq!((list_keys(&s).await, count_rows().await), (keys, 1), "undecided");
        assert_eq!(quarantine(&restored).await.quarantined.count, 1);
        assert_eq!(count_rows().await, 2);
        for _ in 0..3 {
            run_all_deletions(&restored).await;
        }
        assert_eq!((list_keys(&s).await.len(), count_rows().await), (0, 0));
        stop(restored).await;
    });
}

#[test]
fn tenant_is_not_erased_before_the_decision() {
    service_test(|s| async move {
        s.allow_lost_objects();
        let (restored, ..) = restore_with_completed_upload(&s).await;
        let keys = list_keys(&s).await;
        let acme = s.alice().tenant_id().await;
        restored.operator().delete_tenant(&acme, false).await.unwrap();
        run_all_deletions(&restored).await;
        assert_eq!(list_keys(&s).await, keys, "undecided");
        discard(&restored).await;
        for _ in 0..3 {
            run_all_deletions(&restored).await;
        }
        assert!(list_keys(&s).await.is_empty());
        stop(restored).await;
    });
}
