//! Scrubbing: stored objects are read and verified once in a period, in the order of their last verification, by all
//! workers together. Damage is confirmed by a second read.

use chrono::{Duration, Timelike as _};
use strongroom::{
    app::integrity::scrub::{ScrubOptions, ScrubProgress, ScrubReport, scrub_provider},
    config::Config,
    db::blob_claims::{self, BlobClaim, BlobWork},
    domain::{
        clock::{Clock as _, SystemClock},
        ids::{BlobId, ClaimId, TenantId},
        object_key::ObjectKey,
    },
    proto::v1::{CopyFileRequest, FileState, FileStateReason},
    storage::{
        StorageErrorKind,
        flaky::{Fault, Operation, Plan},
    },
    worker::{schedule::run_ticks_now, tick::Tick},
};
use tokio::runtime::Handle;

use crate::{
    damaged::replace_object,
    harness::{PART, Service, file_id, pattern, service_test, service_test_with, spec},
};

const SECOND: Duration = Duration::seconds(1);

/// The time after which a claim, and the pause after a failure, have passed.
const CLAIM: Duration = Duration::hours(2);

/// A rate of one small blob in a second, which is also the interval between ticks.
pub(crate) fn configure_one_blob_per_second(config: &mut Config) {
    (config.worker.tick_seconds, config.scrub.bytes_per_second) = (1, 65_536);
}

/// Uploads a file of this size, a second before the next operation. Returns its id.
pub(crate) async fn upload_file(s: &Service, size: usize) -> String {
    let id = file_id(&s.alice().upload(spec("a"), &pattern(size)).await.unwrap());
    s.clock.advance(SECOND);
    id
}

/// Runs the tick until it verifies nothing more. Returns the number of objects that it finished.
pub(crate) async fn scrub(s: &Service) -> usize {
    let mut total = 0;
    loop {
        match run_ticks_now(&s.app, &[Tick::Scrub]).await.done {
            0 => return total,
            done => total += done,
        }
    }
}

/// Returns the sizes of the verified blobs, in the order of their verification.
async fn verified_sizes(s: &Service) -> Vec<i64> {
    let sizes =
        "SELECT size_bytes FROM blobs WHERE last_verified_time > create_time ORDER BY last_verified_time";
    s.superuser.query_rows(sizes, &[]).await.iter().map(|row| row.get(0)).collect()
}

pub(crate) async fn object_key(s: &Service) -> ObjectKey {
    s.store.list("", None, 10).await.unwrap().objects.remove(0).key
}

/// Inverts a bit of an object of the primary store.
pub(crate) async fn flip_bit(s: &Service, key: &ObjectKey, size: usize) {
    let mut data = pattern(size);
    data[size / 2] ^= 1;
    replace_object(s, key, &data).await;
}

#[test]
fn flipped_bit_is_found_in_all_files_of_the_blob() {
    service_test(|s| async move {
        s.allow_logged_errors();
        let alice = s.alice();
        let id = upload_file(&s, 3 * PART).await;
        let copy = CopyFileRequest { file_id: id.clone(), version: 1, ..Default::default() };
        let copy = alice.copy(copy).await.unwrap().id;
        flip_bit(&s, &object_key(&s).await, 3 * PART).await;
        s.clock.advance(SECOND);
        let damaged = "strongroom_scrub_objects_total{outcome=\"damaged\",provider=\"memory\"}";
        assert!(s.metrics.render().unwrap().contains(&format!("{damaged} 0")), "the counter begins with 0");
        assert_eq!(scrub(&s).await, 1);
        for id in [&id, &copy] {
            let file = alice.get(id).await.unwrap();
            assert_eq!(
                (file.state(), file.state_reason()),
                (FileState::Error, FileStateReason::ObjectDamaged)
            );
        }
        let records = "SELECT count(*) FROM events AS e JOIN audit_entries AS a USING (file_id, version)
                    WHERE e.kind = {event_kind.file_damaged} AND a.action = {audit_action.file_damage}";
        assert_eq!(s.superuser.query_number(records).await, 2);
        assert_eq!(s.read_metric(damaged), 1);
        assert_eq!(verified_sizes(&s).await, [0; 0]);
        s.clock.advance(CLAIM);
        s.faults.set_plan(Plan::new());
        assert_eq!(scrub(&s).await, 0);
        assert_eq!(s.faults.call_count(Operation::Get), 0, "a lost object is not read again and again");
    });
}

#[test]
fn missing_and_shorter_objects_are_found() {
    service_test(|s| async move {
        s.allow_logged_errors();
        let lost = upload_file(&s, 10).await;
        s.store.delete(&object_key(&s).await).await.unwrap();
        let mut found = vec![(lost, FileStateReason::ObjectMissing)];
        for (size, stored_size) in [(20, 19), (30, 31)] {
            let id = upload_file(&s, size).await;
            let key = format!("SELECT storage_key FROM blobs WHERE size_bytes = {size}");
            let key = ObjectKey::parse(&s.superuser.query_texts(&key).await[0]).unwrap();
            replace_object(&s, &key, &pattern(stored_size)).await;
            found.push((id, FileStateReason::ObjectDamaged));
        }
        assert_eq!(scrub(&s).await, 3);
        for (id, reason) in found {
            assert_eq!(s.alice().get(&id).await.unwrap().state_reason(), reason, "{id}");
        }
    });
}

#[test]
fn failing_store_and_single_bad_read_are_no_damage() {
    service_test(|s| async move {
        let id = upload_file(&s, 3 * PART).await;
        let unavailable = Fault::Before(StorageErrorKind::Unavailable);
        for (operation, fault) in [
            (Operation::Get, unavailable),
            (Operation::Get, Fault::Before(StorageErrorKind::Transient)),
            (Operation::Get, Fault::Before(StorageErrorKind::NotFound)),
            (Operation::Get, Fault::EndStream { after_bytes: 100 }),
            (Operation::Get, Fault::CutStream { after_bytes: 100 }),
            (Operation::Get, Fault::FlipBit),
            (Operation::Head, unavailable),
            (Operation::Head, Fault::Before(StorageErrorKind::NotFound)),
        ] {
            s.faults.set_plan(Plan::new().with_fault(operation, 1, fault));
            assert_eq!(scrub(&s).await, 0, "{operation:?} {fault:?}");
            assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Available, "{fault:?}");
            assert_eq!(verified_sizes(&s).await, [0; 0], "{operation:?} {fault:?}");
            s.clock.advance(CLAIM);
        }
        // No second request confirms these.
        let missing = Fault::Before(StorageErrorKind::NotFound);
        for plan in [
            Plan::new().with_fault_in_all(Operation::Get, Fault::EndStream { after_bytes: 100 }),
            Plan::new().with_fault(Operation::Get, 1, missing).with_fault(Operation::Head, 1, missing),
        ] {
            s.faults.set_plan(plan.clone());
            assert_eq!(scrub(&s).await, 0, "{plan:?}");
            assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Available, "{plan:?}");
            s.clock.advance(CLAIM);
        }
        s.faults.set_plan(Plan::new());
        assert_eq!(scrub(&s).await, 1);
        assert_eq!(verified_sizes(&s).await, [3 * PART as i64]);
    });
}

#[test]
fn unreadable_object_does_not_block_the_others() {
    service_test(|s| async move {
        upload_file(&s, 10).await;
        upload_file(&s, 20).await;
        let down = Fault::Before(StorageErrorKind::Other);
        s.faults.set_plan(Plan::new().with_fault(Operation::Get, 1, down));
        assert_eq!(scrub(&s).await, 1);
        assert_eq!(verified_sizes(&s).await, [20]);
        assert_eq!(s.faults.call_count(Operation::Get), 2, "it is read again after a pause");
        s.clock.advance(CLAIM);
        assert_eq!(scrub(&s).await, 1);
        assert_eq!(verified_sizes(&s).await, [20, 10]);
    });
}

#[test]
fn oldest_verification_is_first_at_the_rate() {
    service_test_with(configure_one_blob_per_second, |s| async move {
        for size in [10, 20, 30] {
            upload_file(&s, size).await;
        }
        // 20 was verified longest ago, then 10; 30 counts as verified by its upload.
        s.superuser
            .execute(
                "UPDATE blobs SET last_verified_time = create_time - interval '1 day' * size_bytes WHERE size_bytes < 30",
            )
            .await;
        let mut expected = Vec::new();
        for size in [20, 10, 30] {
            assert_eq!(scrub(&s).await, 1, "the next blob waits for its turn");
            expected.push(size);
            assert_eq!(verified_sizes(&s).await, expected);
            s.clock.advance(SECOND);
        }
        assert_eq!(scrub(&s).await, 0);
    });
}

#[test]
fn blobs_are_read_only_in_the_window() {
    let configure = |config: &mut Config| {
        // Two hours, so that the clock of the test may be in the next hour.
        let hour = (SystemClock.now().hour() + 2) % 24;
        config.scrub.window = format!("{hour}-{}", (hour + 1) % 24 + 1);
        assert!(config.scrub.schedule().window.is_some());
    };
    service_test_with(configure, |s| async move {
        upload_file(&s, 10).await;
        assert_eq!(scrub(&s).await, 0);
        let counted = "SELECT count(*) FROM scrubs WHERE measure_time IS NOT NULL";
        assert_eq!(s.superuser.query_number(counted).await, 0, "nothing is counted either");
        s.clock.advance(Duration::hours(2));
        assert_eq!(scrub(&s).await, 1);
        assert_eq!(s.superuser.query_number(counted).await, 1);
    });
}

#[test]
fn nothing_is_read_while_scrubbing_is_disabled() {
    service_test_with(
        |config| config.scrub.enabled = false,
        |s| async move {
            upload_file(&s, 10).await;
            assert_eq!(scrub(&s).await, 0);
            assert_eq!(s.faults.call_count(Operation::Get), 0);
            assert_eq!(verified_sizes(&s).await, [0; 0]);
        },
    );
}

#[test]
fn each_digest_of_the_record_is_compared() {
    service_test(|s| async move {
        s.allow_logged_errors();
        let mut ids = Vec::new();
        for (digest, size) in [("sha256", 10), ("crc64nvme", 20)] {
            ids.push(upload_file(&s, size).await);
            let change = format!(
                "UPDATE blobs SET {digest} = set_byte({digest}, 0, 255 - get_byte({digest}, 0))
                 WHERE size_bytes = {size}"
            );
            s.superuser.execute(&change).await;
        }
        assert_eq!(scrub(&s).await, 2);
        for id in ids {
            assert_eq!(s.alice().get(&id).await.unwrap().state_reason(), FileStateReason::ObjectDamaged);
        }
    });
}

#[test]
fn unreadable_object_does_not_delay_the_next_pass() {
    // The pause after a failure does not pass in this test.
    let configure = |config: &mut Config| config.worker.backoff_base_seconds = 3_600;
    service_test_with(configure, |s| async move {
        upload_file(&s, 10).await;
        let down = Fault::Before(StorageErrorKind::Other);
        s.faults.set_plan(Plan::new().with_fault_in_all(Operation::Get, down));
        let pass = "SELECT pass_start_time::text FROM scrubs";
        assert_eq!(scrub(&s).await, 0);
        let first = s.superuser.query_texts(pass).await;
        s.clock.advance(Duration::days(28));
        assert_eq!(scrub(&s).await, 0, "it cannot be read");
        assert_eq!(s.superuser.query_texts(pass).await, first);
        assert_eq!(scrub(&s).await, 0, "it waits, and the next pass begins");
        assert_ne!(s.superuser.query_texts(pass).await, first);
        s.faults.set_plan(Plan::new());
    });
}

#[test]
fn each_blob_is_read_once_in_a_pass() {
    service_test(|s| async move {
        upload_file(&s, 10).await;
        assert_eq!(scrub(&s).await, 1);
        assert_eq!(scrub(&s).await, 0);
        let later = upload_file(&s, 20).await;
        s.clock.advance(Duration::days(20));
        assert_eq!(scrub(&s).await, 0, "the pass is complete");
        let ended = "SELECT count(*) FROM scrubs WHERE full_pass_start_time = pass_start_time";
        assert_eq!(s.superuser.query_number(ended).await, 1);
        s.alice().purge(&later).await.unwrap();
        s.clock.advance(Duration::days(7));
        assert_eq!(scrub(&s).await, 0, "the next pass begins");
        assert_eq!(scrub(&s).await, 1, "a purged blob is not read");
    });
}

/// Runs the tick of a service until a read hangs, and cancels it, as a crash does.
async fn crash_in_read(s: &Service, reads: u64) {
    s.faults.set_plan(Plan::new().with_fault(Operation::Get, reads, Fault::Hang));
    let hangs = s.wait_until("a read hangs", || async { s.faults.call_count(Operation::Get) == reads });
    tokio::select! {
        report = run_ticks_now(&s.app, &[Tick::Scrub]) => panic!("{report:?}"),
        () = hangs => {}
    }
    s.faults.set_plan(Plan::new());
}

#[test]
fn pass_continues_after_a_crash() {
    service_test(|s| async move {
        upload_file(&s, 10).await;
        upload_file(&s, 20).await;
        crash_in_read(&s, 2).await;
        assert_eq!(verified_sizes(&s).await, [10]);
        s.clock.advance(Duration::minutes(1));
        assert_eq!(scrub(&s).await, 0, "the other blob is claimed by the process that crashed");
        let complete = "SELECT count(*) FROM scrubs WHERE full_pass_start_time IS NOT NULL";
        assert_eq!(s.superuser.query_number(complete).await, 0);
        s.clock.advance(CLAIM);
        assert_eq!(scrub(&s).await, 1);
        assert_eq!(s.faults.call_count(Operation::Get), 1, "a verified blob is not read again");
        assert_eq!(verified_sizes(&s).await, [10, 20]);
        s.clock.advance(Duration::minutes(1));
        assert_eq!(scrub(&s).await, 0);
        assert_eq!(s.superuser.query_number(complete).await, 1);
    });
}

#[test]
fn two_workers_share_a_pass() {
    let configure = |config: &mut Config| {
        // Two blobs in a second.
        (config.worker.tick_seconds, config.scrub.bytes_per_second) = (1, 131_072);
    };
    service_test_with(configure, |s| async move {
        let other = s.start_replica(|_| {}).await;
        for size in [10, 20, 30, 40] {
            upload_file(&s, size).await;
        }
        crash_in_read(&s, 1).await;
        assert_eq!(scrub(&other).await, 0, "the rate limits both together");
        s.clock.advance(SECOND);
        assert_eq!(scrub(&other).await, 2);
        assert_eq!(other.faults.call_count(Operation::Get), 2);
        assert_eq!(verified_sizes(&s).await.len(), 2);
        let claimed = "SELECT count(*) FROM blobs AS b JOIN blob_claims AS c ON c.blob_id = b.id
            WHERE last_verified_time IS NULL AND b.size_bytes IN (10, 20)";
        assert_eq!(s.superuser.query_number(claimed).await, 2, "the other worker reads the other blobs");
        other.stop().await;
    });
}

#[test]
fn store_of_another_database_is_not_read() {
    service_test(|s| async move {
        s.allow_logged_errors();
        upload_file(&s, 10).await;
        for _ in 0..2 {
            s.clock.advance(Duration::minutes(2));
            s.app.owners().check_store("memory").await.unwrap();
        }
        // The database looks like an earlier state of the owner.
        s.superuser.execute("DELETE FROM store_beats WHERE beat > 1").await;
        assert_eq!(scrub(&s).await, 0);
        let options = ScrubOptions { is_new_pass: true, is_dry_run: false };
        scrub_provider(&s.app, "memory", options, &mut NoProgress).await.unwrap_err();
        assert_eq!(s.faults.call_count(Operation::Get), 0);
        s.app.owners().adopt_store("memory").await.unwrap();
        assert_eq!(scrub(&s).await, 1);
    });
}

struct NoProgress;

impl ScrubProgress for NoProgress {
    fn report_progress(&mut self, _: &ScrubReport) {}
}

/// Runs `strongroom scrub`. Returns the numbers of verified objects, read bytes and left objects.
async fn run_command(s: &Service, is_new_pass: bool, is_dry_run: bool) -> [u64; 3] {
    let options = ScrubOptions { is_new_pass, is_dry_run };
    let report = scrub_provider(&s.app, "memory", options, &mut NoProgress).await.unwrap();
    [report.verified_objects, report.read_bytes, report.left_objects]
}

#[test]
fn command_reads_all_objects_without_a_rate() {
    service_test_with(configure_one_blob_per_second, |s| async move {
        for size in [10, 20, 30] {
            upload_file(&s, size).await;
        }
        assert_eq!(run_command(&s, true, true).await, [0, 0, 3]);
        assert_eq!(verified_sizes(&s).await, [0; 0], "a dry run reads nothing");
        assert_eq!(run_command(&s, true, false).await, [3, 60, 0]);
        s.clock.advance(SECOND);
        assert_eq!(run_command(&s, false, false).await, [0, 0, 0], "the pass is complete");
        assert_eq!(run_command(&s, false, true).await, [0, 0, 0]);
        assert_eq!(run_command(&s, true, true).await, [0, 0, 3], "a new pass would read all");
        assert_eq!(run_command(&s, true, false).await, [3, 60, 0]);
    });
}

#[test]
fn command_begins_no_pass_that_it_was_not_asked_for() {
    service_test(|s| async move {
        upload_file(&s, 10).await;
        upload_file(&s, 20).await;
        assert_eq!(run_command(&s, true, false).await, [2, 30, 0]);
        s.clock.advance(Duration::days(28));
        s.faults.set_plan(Plan::new());
        for is_dry_run in [true, false] {
            assert_eq!(
                run_command(&s, false, is_dry_run).await,
                [0, 0, 0],
                "the pass is complete, though old"
            );
        }
        assert_eq!(s.faults.call_count(Operation::Get), 0);
        assert_eq!(scrub(&s).await, 0, "a worker begins the next pass");
        assert_eq!(run_command(&s, false, true).await, [0, 0, 2]);
        assert_eq!(run_command(&s, false, false).await, [2, 30, 0]);
    });
}

/// Begins another pass when the command has read two objects, as a worker does.
struct OtherPass<'a> {
    s: &'a Service,
    has_begun: bool,
}

impl ScrubProgress for OtherPass<'_> {
    fn report_progress(&mut self, report: &ScrubReport) {
        if report.verified_objects == 2 && !self.has_begun {
            let begin = "UPDATE scrubs SET pass_start_time = pass_start_time + interval '1 hour'";
            tokio::task::block_in_place(|| Handle::current().block_on(self.s.superuser.execute(begin)));
            self.has_begun = true;
        }
    }
}

#[test]
fn command_leaves_a_later_pass_to_the_workers() {
    service_test(|s| async move {
        upload_file(&s, 10).await;
        upload_file(&s, 20).await;
        let options = ScrubOptions { is_new_pass: true, is_dry_run: false };
        let mut progress = OtherPass { s: &s, has_begun: false };
        let report = scrub_provider(&s.app, "memory", options, &mut progress).await.unwrap();
        assert!(progress.has_begun);
        assert_eq!((report.verified_objects, report.read_bytes, report.left_objects), (2, 30, 0));
    });
}

/// A claim that waits for a deletion ends with an error, at the timeout of its statement.
#[test]
fn deleted_blob_does_not_fail_the_claims_of_others() {
    service_test(|s| async move {
        upload_file(&s, 10).await;
        let ids = s.superuser.query_texts("SELECT unnest(ARRAY[tenant_id, id])::text FROM blobs").await;
        let [tenant, stored] = [0, 1].map(|index| uuid::Uuid::parse_str(&ids[index]).unwrap());
        let (tenant, stored) = (TenantId::from_uuid(tenant), BlobId::from_uuid(stored));
        let deleted = BlobId::from_uuid(uuid::Uuid::nil());
        let id = ClaimId::from_uuid(uuid::Uuid::nil());
        let claim_both = async || {
            let mut tx = s.db.system_tx().await.unwrap();
            let blobs = [(tenant, deleted), (tenant, stored)];
            let claims = blob_claims::claim(&mut tx, BlobWork::Scrub, &blobs, id, 60).await;
            tx.commit().await.unwrap();
            claims
        };
        assert_eq!(
            claim_both().await.unwrap(),
            [BlobClaim { tenant, blob: stored, work: BlobWork::Scrub, id }]
        );
        s.superuser.execute("DELETE FROM blob_claims").await;

        // A deletion that has not committed locks the row.
        let deleting = s.database.connect_as_superuser().await;
        deleting.execute("BEGIN; SELECT FROM blobs FOR UPDATE").await;
        assert_eq!(claim_both().await.unwrap(), [], "claims nothing, and waits for nothing");
        let report = run_ticks_now(&s.app, &[Tick::Scrub]).await;
        assert_eq!((report.done, report.failed), (0, 0), "nothing has failed, so nothing has waited");
        deleting.execute("ROLLBACK").await;
        assert_eq!(scrub(&s).await, 1);
    });
}
