//! Which hours a restore loses, and that all objects and rows are compared.

use bytes::Bytes;
use chrono::Duration;
use strongroom::{app::owner::OwnerState, domain::ids::TenantId, storage::MarkerWrite};

use crate::{
    harness::service_test,
    restore::{adopt, adopt_after, discard, restore_after, run_check, stop, upload},
    scrub::object_key,
    store_owner::{PROVIDER, check, read_marker},
    sweep::{new_key, put_object, put_orphan},
};

/// More than the objects, or rows, of one page of a comparison.
const PAGE: usize = 1_000;

#[test]
fn adoption_of_an_empty_store_loses_no_hours() {
    service_test(|s| async move {
        let restored = restore_after(&s, async |_| {}).await;
        adopt(&restored).await;
        let report = run_check(&restored, None).await;
        assert_eq!((report.restores.len(), report.has_findings()), (0, false), "{report:#?}");
        stop(restored).await;
    });
}

#[test]
fn adoption_after_a_restart_of_the_server_loses_no_hours() {
    service_test(|s| async move {
        upload(&s.alice(), "kept.txt", b"kept").await;
        let mut marker = read_marker(s.store.as_ref()).await;
        marker.database.server_start_time -= Duration::hours(1);
        let body = Bytes::from(serde_json::to_vec(&marker).unwrap());
        s.store.write_marker("live", body, MarkerWrite::Replace).await.unwrap();
        assert!(matches!(check(&s).await, OwnerState::Unconfirmed { .. }));
        s.app.owners().adopt_store(PROVIDER).await.unwrap();
        let report = run_check(&s, None).await;
        assert_eq!((report.is_owner, report.restores.len()), (true, 0), "{report:#?}");
        assert!(!report.has_findings());
    });
}

#[test]
fn lost_hours_without_unknown_objects_need_a_decision() {
    service_test(|s| async move {
        let restored = adopt_after(&s, async |_| {}).await;
        let report = run_check(&restored, None).await;
        assert_eq!(
            (report.lost_hours.count, report.has_findings()),
            (0, true),
            "nothing is deleted until then"
        );
        assert!(!discard(&restored).await.has_findings());
        stop(restored).await;
    });
}

#[test]
fn objects_from_before_the_restored_state_are_not_lost() {
    service_test(|s| async move {
        upload(&s.alice(), "kept.txt", b"kept").await;
        let overdue = put_orphan(&s).await;
        s.clock.advance(Duration::days(7));
        let recent = put_orphan(&s).await;
        s.clock.advance(Duration::hours(1));
        // The next marker is due.
        assert_eq!(check(&s).await, OwnerState::Owned);
        let restored = restore_after(&s, async |s| drop(upload(&s.alice(), "lost.txt", b"lost").await)).await;
        for is_adopted in [false, true] {
            if is_adopted {
                adopt(&restored).await;
            }
            let report = run_check(&restored, None).await;
            let counts = (report.lost_hours.count, report.overdue.count, report.recent.count);
            assert_eq!((report.is_owner, counts), (is_adopted, (1, 1, 1)), "{report:#?}");
        }
        assert!(discard(&restored).await.has_findings(), "no sweep has deleted the overdue object");
        for orphan in [overdue, recent] {
            s.store.delete(&orphan).await.unwrap();
        }
        stop(restored).await;
    });
}

#[test]
fn all_pages_of_objects_and_of_rows_are_compared() {
    service_test(|s| async move {
        s.allow_lost_objects();
        upload(&s.alice(), "gone.txt", b"gone").await;
        s.store.delete(&object_key(&s).await).await.unwrap();
        let tenant: TenantId = s.alice().tenant_id().await.parse().unwrap();
        let mut orphans = Vec::new();
        for _ in 0..=PAGE {
            let key = new_key(&s, "live", Some(tenant)).await;
            put_object(&s, &key).await;
            orphans.push(key);
        }
        // The blobs of purged files. They precede the other blob, and need no objects.
        let blobs = format!(
            "INSERT INTO blobs (tenant_id, id, provider, storage_key, size_bytes, sha256, crc64nvme, create_time)
             SELECT '{tenant}', b.id, '{PROVIDER}', format('live/{tenant}/document/2026/01/01/%s', b.id), 1, sha256(''),
                    '12345678', now()
             FROM (SELECT lpad(n::text, 32, '0')::uuid AS id FROM generate_series(1, {PAGE}) AS n) AS b"
        );
        s.superuser.execute(&blobs).await;

        let report = run_check(&s, None).await;
        assert_eq!((report.listed_objects, report.recent.count), (1_001, 1_001));
        assert_eq!((report.checked_blobs, report.missing.count), (1, 1));
        assert_eq!(report.missing_blobs[0].versions[0].name, "gone.txt");

        s.superuser.execute("DELETE FROM blobs WHERE size_bytes = 1").await;
        for orphan in orphans {
            s.store.delete(&orphan).await.unwrap();
        }
    });
}
