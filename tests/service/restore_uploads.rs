//! Uploads that were open in the restored state, and completed in the lost hours: their rows do not delete the objects.

use strongroom::{
    app::restore::quarantine::{QuarantineAction, QuarantineFilter, process_quarantine},
    proto::v1::UploadSpec,
    worker,
};

use crate::{
    harness::{PART, Service, pattern, service_test, spec},
    restore::{adopt, list_keys, list_recovered, quarantine, readopt, restore_after, stop},
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
