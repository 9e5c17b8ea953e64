//! Rounds of background work. Failing items must not block the others.

use strongroom::{
    app::{
        RoundReport, integrity::delete_stray_objects::delete_stray_objects,
        storage::delete_due_blobs::delete_due_blobs,
    },
    storage::{
        StorageErrorKind,
        flaky::{Fault, Operation, Plan},
    },
};

use crate::harness::service_test;

#[test]
fn failing_deletions_do_not_block_others() {
    service_test(|s| async move {
        s.alice().quota().await.unwrap();
        let provider = s.store.provider();
        let due = format!(
            "INSERT INTO blobs (tenant_id, id, provider, storage_key, size_bytes, sha256, crc64nvme, create_time, delete_after)
                   SELECT t.id, b.id, '{provider}', format('live/%s/document/2026/01/01/%s', t.id, b.id), 1, sha256(''),
                          '12345678', now(), now() - interval '1 day'
                   FROM tenants t, (SELECT gen_random_uuid() AS id FROM generate_series(1, 150)) AS b"
        );
        s.superuser.execute(&due).await;
        // The quota counts what is scheduled by an update, not by this insert.
        s.superuser.execute("UPDATE quotas SET pending_deletion_bytes = pending_deletion_bytes + 150").await;
        let fault = Fault::Before(StorageErrorKind::Unavailable);
        let report = |(done, failed, has_more)| RoundReport { done, failed, has_more };
        s.faults.set_plan(
            (1..=100).fold(Plan::new(), |plan, nth| plan.with_fault(Operation::Delete, nth, fault)),
        );
        // One batch deletes all of them, except those that the store rejects.
        for expected in [(50, 100, true), (100, 0, true), (0, 0, false)].map(report) {
            assert_eq!(delete_due_blobs(&s.app).await.unwrap(), expected);
        }
        assert_eq!(s.faults.call_count(Operation::DeleteBatch), 2, "an empty page sends no request");
        let stray = format!(
            "INSERT INTO stray_objects (tenant_id, provider, storage_key, may_be_unfinished, delete_after)
             SELECT t.id, '{provider}', format('live/%s/document/2026/01/01/%s', t.id, gen_random_uuid()), false,
                    now() - interval '1 day'
             FROM tenants t, generate_series(1, 150)"
        );
        s.superuser.execute(&stray).await;
        s.faults.set_plan(
            (1..=100).fold(Plan::new(), |plan, nth| plan.with_fault(Operation::Delete, nth, fault)),
        );
        for expected in [(0, 100, false), (50, 0, true), (100, 0, true)].map(report) {
            assert_eq!(delete_stray_objects(&s.app).await.unwrap(), expected);
        }
    });
}
