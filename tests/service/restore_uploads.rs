//! Uploads that were open in the restored state, and completed in the lost hours: their rows do not delete the objects.

use strongroom::{
    app::restore::quarantine::{QuarantineAction, QuarantineFilter, process_quarantine},
    proto::v1::UploadSpec,
    worker,
};

use crate::{
    harness::{PART, Service, pattern, service_test, spec},
    restore::{
        adopt, discard, list_keys, list_recovered, quarantine, readopt, restore_after, run_all_deletions,
        stop,
    },
    sweep::GRACE,
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
