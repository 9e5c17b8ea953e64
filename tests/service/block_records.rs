//! Recorded block checksums may be damaged themselves. They are replaced when the bytes of the whole object prove them
//! wrong, and only then. No byte is sent unverified because of them.

use chrono::Duration;
use strongroom::{
    config::Config,
    proto::v1::FileState,
    storage::flaky::{Fault, Operation, Plan},
};

use crate::{
    block_checksums::{
        BLOCK, SIZE, assert_damaged, compute_checksums, count_checksums, damage, read_range,
        recorded_checksums, upload_file, wait_until_idle,
    },
    harness::{Service, pattern, service_test, service_test_with},
};

const REPLACED: &str = "strongroom_scrub_replaced_checksums_total";

/// Inverts the first byte of the checksum of the second block of each blob.
async fn invert_checksums(s: &Service) {
    let invert = "UPDATE blob_checksums
        SET block_checksums = set_byte(block_checksums, 4, 255 - get_byte(block_checksums, 4))";
    s.superuser.execute(invert).await;
}

#[test]
fn wrong_checksums_of_intact_object_are_replaced() {
    service_test(|s| async move {
        s.allow_logged_errors();
        let data = pattern(SIZE);
        let id = upload_file(&s, &data).await;
        invert_checksums(&s).await;
        let received = read_range(&s, &id, 0..SIZE).await;
        assert!(received.bytes == data[..BLOCK]);
        assert_damaged(received.error);
        wait_until_idle(&s).await;
        assert_eq!(recorded_checksums(&s, &id).await, [compute_checksums(&data)]);
        assert_eq!(s.read_metric(REPLACED), 1);
        assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Available);
        assert!(s.alice().read(&id).await.unwrap() == data);
    });
}

#[test]
fn check_that_ended_early_changes_no_checksums() {
    service_test(|s| async move {
        s.allow_logged_errors();
        let data = pattern(SIZE);
        let id = upload_file(&s, &data).await;
        invert_checksums(&s).await;
        let wrong = recorded_checksums(&s, &id).await;
        // The download reads the block twice, then the whole object is read again.
        s.faults.set_plan(Plan::new().with_fault(Operation::Get, 3, Fault::EndStream { after_bytes: 100 }));
        assert_damaged(read_range(&s, &id, 0..SIZE).await.error);
        wait_until_idle(&s).await;
        assert_eq!(s.faults.call_count(Operation::Get), 3);
        assert_eq!(recorded_checksums(&s, &id).await, wrong, "nothing is proved");
        assert_eq!(s.read_metric(REPLACED), 0);
        s.faults.set_plan(Plan::new());
        assert_damaged(read_range(&s, &id, 0..SIZE).await.error);
        wait_until_idle(&s).await;
        assert_eq!(recorded_checksums(&s, &id).await, [compute_checksums(&data)]);
    });
}

#[test]
fn fsck_replaces_wrong_checksums_and_records_missing_ones() {
    service_test(|s| async move {
        s.allow_logged_errors();
        let data = pattern(SIZE);
        let id = upload_file(&s, &data).await;
        assert_eq!(s.run_fsck().await.violations, []);
        s.superuser.execute("UPDATE blob_checksums SET block_checksums = substr(block_checksums, 5)").await;
        assert_eq!(s.run_fsck().await.violations.len(), 1);
        assert_eq!(s.read_metric(REPLACED), 0, "fsck changes nothing without repair");
        let report = s.run_fsck_with(true).await;
        assert!(report.violations[0].problem.contains("block checksums"), "{:?}", report.violations);
        assert_eq!((report.violations.len(), report.marked_versions), (1, 0));
        assert_eq!(recorded_checksums(&s, &id).await, [compute_checksums(&data)]);
        assert_eq!(s.read_metric(REPLACED), 1);
        assert!(s.alice().read(&id).await.unwrap() == data);
        // Those of an intact object without any are recorded.
        s.superuser.execute("DELETE FROM blob_checksums").await;
        assert_eq!(s.run_fsck().await.violations, []);
        assert_eq!(count_checksums(&s).await, 0, "fsck changes nothing without repair");
        assert_eq!(s.run_fsck_with(true).await.violations, []);
        assert_eq!(recorded_checksums(&s, &id).await, [compute_checksums(&data)]);
        assert_eq!(s.read_metric(REPLACED), 1);
    });
}

#[test]
fn scrubbing_replaces_wrong_checksums() {
    service_test(|s| async move {
        s.allow_logged_errors();
        let id = crate::scrub::upload_file(&s, SIZE).await;
        invert_checksums(&s).await;
        assert_eq!(crate::scrub::scrub(&s).await, 1);
        assert_eq!(recorded_checksums(&s, &id).await, [compute_checksums(&pattern(SIZE))]);
        assert_eq!(s.read_metric(REPLACED), 1);
        let verified = "SELECT count(*) FROM blobs WHERE last_verified_time IS NOT NULL";
        assert_eq!(s.superuser.query_number(verified).await, 1);
        // Right ones are compared and kept.
        s.clock.advance(Duration::days(28));
        assert_eq!(crate::scrub::scrub(&s).await, 0, "the next pass begins");
        assert_eq!(crate::scrub::scrub(&s).await, 1);
        assert_eq!(s.read_metric(REPLACED), 1);
    });
}

/// Blocks without a checksum in an incomplete record are not sent, whether they are damaged or not.
#[test]
fn incomplete_checksums_are_no_missing_ones() {
    let one_at_a_time = |config: &mut Config| config.downloads.block_checksums_max = 1;
    let configurations: [fn(&mut Config); 2] = [|_| {}, one_at_a_time];
    for configure in configurations {
        service_test_with(configure, |s| async move {
            s.allow_logged_errors();
            let data = pattern(SIZE);
            let id = upload_file(&s, &data).await;
            let cut = "UPDATE blob_checksums SET block_checksums = substr(block_checksums, 1, 8)";
            for (range, sent_end) in [(0..SIZE, 2 * BLOCK), (3 * BLOCK + 5..SIZE, 3 * BLOCK + 5)] {
                s.superuser.execute(cut).await;
                let received = read_range(&s, &id, range.clone()).await;
                assert!(received.bytes == data[range.start..sent_end], "{range:?}");
                assert_damaged(received.error);
                wait_until_idle(&s).await;
                assert_eq!(
                    recorded_checksums(&s, &id).await,
                    [compute_checksums(&data)],
                    "they are replaced"
                );
                let received = read_range(&s, &id, range.clone()).await;
                assert!(received.bytes == data[range] && received.error.is_none());
            }
            s.superuser.execute(cut).await;
            damage(&s, &id, &data, 3 * BLOCK).await;
            let received = read_range(&s, &id, 3 * BLOCK..3 * BLOCK + 10).await;
            assert_eq!(received.bytes, b"");
            assert_damaged(received.error);
            let alice = s.alice();
            s.wait_until("the file is marked", || async {
                alice.get(&id).await.unwrap().state() == FileState::Error
            })
            .await;
        });
    }
}
