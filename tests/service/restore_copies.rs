//! Objects that were moved in the lost hours: the restored database references the original, and does not know the copy.

use chrono::Duration;
use strongroom::worker;

use crate::{
    harness::{Service, file_id, service_test, spec},
    restore::{adopt, list_keys, list_recovered, readopt, restore_after, stop},
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
        let report = readopt(&restored).await;
        let counts = (report.readopted.count, report.missing.count);
        assert_eq!((counts, report.has_findings()), ((1, 0), false), "{report:#?}");
        assert!(list_recovered(&restored.ada()).await.is_empty());
        assert_eq!(restored.alice().read(&id).await.unwrap(), b"moved"[..]);
        assert_eq!(restored.run_fsck().await.violations, []);
        stop(restored).await;
    });
}
