//! The sweep: orphaned objects and multipart uploads are recorded first and deleted later; other objects
//! never are.

use bytes::Bytes;
use chrono::{Days, Duration};
use futures::{SinkExt, channel::mpsc};
use strongroom::{
    app::integrity::sweep::{SweepOptions, SweepReport, sweep_due_stores, sweep_stores},
    db::sweeps,
    domain::{
        clock::{Clock as _, IdSource as _, SystemIds},
        ids::{BlobId, TenantId},
        object_key::ObjectKey,
    },
    proto::v1::{UploadFileRequest, UploadFileResponse, UploadSpec},
    storage::{
        MultipartId, Payload, PutOptions, StorageErrorKind,
        flaky::{Fault, Operation, Plan},
    },
};
use tokio::task::JoinHandle;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    harness::{
        PART, Service, file_id, reason, service_test, service_test_with, sha256, spec, upload_messages,
    },
    upload::pattern,
};

pub(crate) const GRACE: Duration = Duration::hours(24);
const SECOND: Duration = Duration::seconds(1);

/// Returns a new key under a prefix, with today's date and the given tenant or that of alice.
pub(crate) async fn new_key(s: &Service, prefix: &str, tenant: Option<TenantId>) -> ObjectKey {
    let tenant = match tenant {
        Some(tenant) => tenant,
        None => s.alice().tenant_id().await.parse().unwrap(),
    };
    let (day, id) = (s.clock.now().date_naive(), BlobId::from_uuid(SystemIds.uuid()));
    ObjectKey::for_blob(prefix, tenant, "document", day, id).unwrap()
}

/// Stores an object without a row, as a crash leaves it.
pub(crate) async fn put_orphan(s: &Service) -> ObjectKey {
    let key = new_key(s, "live", None).await;
    put_object(s, &key).await;
    key
}

pub(crate) async fn put_object(s: &Service, key: &ObjectKey) {
    s.store.put(key, Payload::from(Bytes::from_static(&[7; 10])), &PutOptions::default()).await.unwrap();
}

pub(crate) async fn object_exists(s: &Service, key: &ObjectKey) -> bool {
    s.store.head(key).await.is_ok()
}

pub(crate) async fn count_candidates(s: &Service) -> i64 {
    s.superuser.query_number("SELECT count(*) FROM sweep_candidates").await
}

pub(crate) async fn run_sweep(s: &Service) -> SweepReport {
    run_sweep_with(s, SweepOptions::from_config(&s.app)).await
}

pub(crate) async fn run_sweep_with(s: &Service, options: SweepOptions) -> SweepReport {
    let mut reports = sweep_stores(&s.app, options).await.unwrap();
    assert_eq!(reports.len(), 1);
    reports.remove(0)
}

/// Returns the number of orphans found and deleted.
pub(crate) fn counts(report: &SweepReport) -> (u64, u64) {
    (report.found.count, report.deleted.count)
}

#[test]
fn orphan_is_deleted_a_grace_period_after_it_is_found() {
    service_test(|s| async move {
        let id = file_id(&s.alice().upload(spec("a"), b"live").await.unwrap());
        let orphan = put_orphan(&s).await;
        s.clock.advance(GRACE - SECOND);
        let report = run_sweep(&s).await;
        assert_eq!((counts(&report), report.skipped_young), ((0, 0), 2));
        s.clock.advance(SECOND);
        let report = run_sweep(&s).await;
        assert_eq!((counts(&report), report.found.bytes), ((1, 0), 10));
        s.clock.advance(GRACE - SECOND);
        let report = run_sweep(&s).await;
        assert_eq!((counts(&report), report.waiting.count), ((0, 0), 1));
        assert!(object_exists(&s, &orphan).await);
        s.clock.advance(SECOND);
        let report = run_sweep(&s).await;
        assert_eq!((counts(&report), report.deleted.bytes, report.waiting.count), ((0, 1), 10, 0));
        assert!(!object_exists(&s, &orphan).await);
        assert_eq!(count_candidates(&s).await, 0);
        assert_eq!(s.alice().read(&id).await.unwrap(), "live");
    });
}

#[test]
fn object_whose_row_is_created_late_is_kept() {
    service_test(|s| async move {
        let (late, orphan) = (put_orphan(&s).await, put_orphan(&s).await);
        s.clock.advance(GRACE);
        assert_eq!(counts(&run_sweep(&s).await), (2, 0));
        // The row has another provider name, but belongs to this object.
        let row = "INSERT INTO blobs (tenant_id, id, provider, storage_key, size_bytes, sha256, crc64nvme, create_time)
                   VALUES ($1::text::uuid, $2::text::uuid, 'renamed', $3, 10, sha256(''), '12345678', now())";
        let (tenant, id) = (late.tenant().to_string(), late.blob().to_string());
        s.superuser.query_rows(row, &[&tenant, &id, &late.to_string()]).await;
        s.clock.advance(GRACE);
        let report = run_sweep(&s).await;
        assert_eq!((counts(&report), report.cleared), ((0, 1), 1));
        assert!(object_exists(&s, &late).await && !object_exists(&s, &orphan).await);
        assert_eq!(count_candidates(&s).await, 0);
        let provider = s.store.provider();
        s.superuser.execute(&format!("UPDATE blobs SET provider = '{provider}'")).await;
    });
}

#[test]
fn partial_listing_deletes_nothing() {
    service_test_with(
        |config| config.sweeping.batch_max = 2,
        |s| async move {
            for _ in 0..5 {
                put_orphan(&s).await;
            }
            let unfinished = new_key(&s, "live", None).await;
            s.store.start_multipart(&unfinished, 1024, &PutOptions::default()).await.unwrap();
            s.clock.advance(GRACE);
            assert_eq!(counts(&run_sweep(&s).await), (6, 0));
            s.clock.advance(GRACE);
            for (operation, nth) in
                [(Operation::List, 1), (Operation::List, 3), (Operation::ListMultiparts, 1)]
            {
                let fault = Fault::Before(StorageErrorKind::Transient);
                s.faults.set_plan(Plan::new().with_fault(operation, nth, fault));
                let report = run_sweep(&s).await;
                assert_eq!((counts(&report), report.waiting.count), ((0, 0), 6), "{operation:?} {nth}");
                assert!(report.problems[0].contains("failed to list objects"), "{report:?}");
            }
            s.faults.set_plan(Plan::new());
            let report = run_sweep(&s).await;
            assert_eq!((counts(&report), report.problems.len()), ((0, 6), 0));
        },
    );
}

#[test]
fn sweep_dry_run_changes_nothing() {
    service_test(|s| async move {
        let dry = SweepOptions { is_dry_run: true, ..SweepOptions::from_config(&s.app) };
        let orphan = put_orphan(&s).await;
        s.clock.advance(GRACE);
        for _ in 0..2 {
            let report = run_sweep_with(&s, dry).await;
            assert_eq!((counts(&report), count_candidates(&s).await), ((1, 0), 0));
        }
        assert_eq!(s.superuser.query_number("SELECT count(*) FROM sweeps").await, 0);
        run_sweep(&s).await;
        s.clock.advance(GRACE);
        for _ in 0..2 {
            assert_eq!(counts(&run_sweep_with(&s, dry).await), (0, 1));
            assert!(object_exists(&s, &orphan).await);
        }
        assert_eq!(counts(&run_sweep(&s).await), (0, 1));
    });
}

#[test]
fn objects_of_others_are_kept() {
    service_test(|s| async move {
        let unknown_tenant = Some(TenantId::from_uuid(SystemIds.uuid()));
        let foreign = [
            new_key(&s, "other", None).await,
            new_key(&s, "live/other", None).await,
            new_key(&s, "", None).await,
            new_key(&s, "live", unknown_tenant).await,
        ];
        for key in &foreign {
            put_object(&s, key).await;
        }
        for _ in 0..3 {
            s.clock.advance(GRACE * 2);
            let report = run_sweep(&s).await;
            assert_eq!((counts(&report), report.skipped_foreign), ((0, 0), 2));
        }
        let unfinished = s.store.start_multipart(&foreign[3], 1024, &PutOptions::default()).await.unwrap();
        let report = s.run_fsck().await;
        assert_eq!((report.violations.len(), report.objects, report.foreign), (0, 4, 5), "{report:?}");
        s.store.abort_multipart(&foreign[3], &unfinished).await.unwrap();
        let own = put_orphan(&s).await;
        let report = s.run_fsck().await;
        assert_eq!((report.violations.len(), report.foreign), (1, 4), "{report:?}");
        s.store.delete(&own).await.unwrap();
        for key in &foreign {
            assert!(object_exists(&s, key).await, "{key}");
            s.store.delete(key).await.unwrap();
        }
    });
}

/// An upload of several parts whose first bytes were sent.
pub(crate) struct UnfinishedUpload {
    sender: mpsc::Sender<UploadFileRequest>,
    rest: Vec<UploadFileRequest>,
    response: JoinHandle<Result<UploadFileResponse, Status>>,
}

impl UnfinishedUpload {
    pub(crate) async fn start(s: &Service, data: &[u8]) -> Self {
        let sized = UploadSpec { size_bytes: Some(data.len() as i64), ..spec("slow") };
        let mut messages = upload_messages(sized, data, PART);
        let rest = messages.split_off(2);
        let (mut sender, stream) = mpsc::channel(1);
        let mut files = s.alice().files;
        let response =
            tokio::spawn(async move { files.upload_file(stream).await.map(tonic::Response::into_inner) });
        for message in messages {
            sender.send(message).await.unwrap();
        }
        let open = "SELECT count(*) FROM uploads WHERE state = {upload_state.open}";
        s.wait_until("the upload is open", || async { s.superuser.query_number(open).await == 1 }).await;
        Self { sender, rest, response }
    }

    pub(crate) async fn finish(mut self) -> Result<UploadFileResponse, Status> {
        for message in self.rest {
            // The service may have ended the call already.
            let _ = self.sender.send(message).await;
        }
        drop(self.sender);
        self.response.await.unwrap()
    }
}

#[test]
fn orphaned_multipart_is_aborted_and_running_one_kept() {
    service_test_with(
        |config| config.uploads.lease_seconds = 604_800,
        |s| async move {
            let data = pattern(4 * PART);
            let running = UnfinishedUpload::start(&s, &data).await;
            let orphaned = new_key(&s, "live", None).await;
            let id: MultipartId =
                s.store.start_multipart(&orphaned, 1024, &PutOptions::default()).await.unwrap();
            s.store.put_part(&orphaned, &id, 1, Payload::from(Bytes::from_static(&[7; 1024]))).await.unwrap();
            s.clock.advance(GRACE);
            assert_eq!(counts(&run_sweep(&s).await), (1, 0));
            s.clock.advance(GRACE);
            let report = run_sweep(&s).await;
            assert_eq!((counts(&report), report.listed_multiparts), ((0, 1), 2));
            let left = s.store.list_multiparts("", None, 10).await.unwrap().multiparts;
            assert!(left.len() == 1 && left[0].key != orphaned, "{left:?}");
            let id = file_id(&running.finish().await.unwrap());
            assert_eq!(s.alice().read(&id).await.unwrap(), data);
        },
    );
}

#[test]
fn sweep_abandons_expired_uploads() {
    service_test(|s| async move {
        let running = UnfinishedUpload::start(&s, &pattern(4 * PART)).await;
        assert_eq!(run_sweep(&s).await.expired_uploads, 0);
        s.clock.advance(Duration::hours(25));
        let dry = SweepOptions { is_dry_run: true, ..SweepOptions::from_config(&s.app) };
        assert_eq!(run_sweep_with(&s, dry).await.expired_uploads, 1);
        assert_eq!(run_sweep(&s).await.expired_uploads, 1);
        let status = running.finish().await.unwrap_err();
        assert_eq!(reason(&status), "UPLOAD_FENCED");
        s.assert_nothing_is_left().await;
    });
}

#[test]
fn rejects_commit_later_than_half_the_grace_period() {
    service_test_with(
        |config| config.uploads.commit_connections_max = 1,
        |s| async move {
            for (late_by, is_refused) in [(GRACE / 2, false), (GRACE / 2 + SECOND, true)] {
                s.faults.set_plan(Plan::new());
                // The first commit waits in the database, and the second one waits for the first.
                s.superuser.execute("BEGIN; LOCK TABLE blobs IN ACCESS EXCLUSIVE MODE").await;
                let upload = |name: &'static str| {
                    let alice = s.alice();
                    tokio::spawn(async move { alice.upload(spec(name), b"small").await })
                };
                let first = upload("first");
                let waiting_count = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                               WHERE d.datname = current_database() AND NOT l.granted";
                s.wait_until("the first commit waits", || async {
                    s.superuser.query_number(waiting_count).await > 0
                })
                .await;
                let second = upload("second");
                s.wait_until("the object of the second upload is stored", || async {
                    s.faults.call_count(Operation::Put) == 2
                })
                .await;
                s.clock.advance(late_by);
                s.superuser.execute("COMMIT").await;
                first.await.unwrap().unwrap();
                let objects = s.store.list("", None, 10).await.unwrap().objects.len();
                let second = second.await.unwrap();
                if !is_refused {
                    second.unwrap();
                    continue;
                }
                let status = second.unwrap_err();
                assert_eq!((status.code(), reason(&status).as_str()), (Code::Aborted, "UPLOAD_FENCED"));
                assert!(status.get_error_details().retry_info().is_some());
                assert!(status.message().contains("send the upload again"), "{status}");
                assert!(objects >= 3, "{objects}");
                let is_deleted = || async { s.store.list("", None, 10).await.unwrap().objects.len() == 3 };
                s.wait_until("the object of the rejected upload is deleted", is_deleted).await;
                assert_eq!(s.superuser.query_number("SELECT count(*) FROM files").await, 3);
            }
        },
    );
}

#[test]
fn round_between_full_walks_lists_recent_days() {
    service_test_with(
        |config| config.sweeping.batch_max = 2,
        |s| async move {
            for _ in 0..9 {
                put_orphan(&s).await;
            }
            s.clock.advance(Duration::days(40));
            let today = s.clock.now().date_naive();
            let (mut recent, two_days_ago) = (Vec::new(), today.checked_sub_days(Days::new(2)).unwrap());
            for day in [two_days_ago, today] {
                let key = new_key(&s, "live", None).await;
                let key = ObjectKey::for_blob("live", key.tenant(), "document", day, key.blob()).unwrap();
                put_object(&s, &key).await;
                recent.push(key);
            }
            s.clock.advance(GRACE);
            let usual = SweepOptions { is_full_walk: false, ..SweepOptions::from_config(&s.app) };
            let report = run_sweep_with(&s, usual).await;
            // One page of old objects, then all recent ones.
            assert_eq!((report.listed_objects, report.found.count), (4, 4));
            s.clock.advance(GRACE);
            let report = run_sweep_with(&s, usual).await;
            assert_eq!(counts(&report), (0, 4));
            assert!(!object_exists(&s, &recent[0]).await && !object_exists(&s, &recent[1]).await);
            let report = run_sweep(&s).await;
            assert_eq!((report.listed_objects, counts(&report)), (7, (7, 0)));
            s.clock.advance(GRACE);
            assert_eq!(counts(&run_sweep(&s).await), (0, 7));
        },
    );
}

#[test]
fn sweep_tick_obeys_interval_and_walks_fully_once_a_day() {
    service_test(|s| async move {
        let orphan = put_orphan(&s).await;
        s.clock.advance(GRACE);
        assert_eq!(sweep_due_stores(&s.app).await.unwrap().done, 0);
        assert_eq!(count_candidates(&s).await, 1);
        s.faults.set_plan(Plan::new());
        s.clock.advance(Duration::minutes(59));
        sweep_due_stores(&s.app).await.unwrap();
        assert_eq!(s.faults.call_count(Operation::List), 0, "the sweep is not due");
        s.clock.advance(Duration::minutes(1));
        sweep_due_stores(&s.app).await.unwrap();
        assert_eq!(s.faults.call_count(Operation::List), 1);
        let age = "SELECT extract(epoch FROM sweep_time - full_walk_time) FROM sweeps";
        assert_eq!(s.superuser.query_number(age).await, 3600);
        s.clock.advance(GRACE);
        assert_eq!(sweep_due_stores(&s.app).await.unwrap().done, 1);
        assert_eq!(s.superuser.query_number(age).await, 0);
        assert!(!object_exists(&s, &orphan).await);
    });
}

#[test]
fn store_is_swept_by_one_process_at_a_time() {
    service_test(|s| async move {
        let mut other = s.db.system_tx().await.unwrap();
        assert!(sweeps::lock(&mut other, s.store.provider()).await.unwrap());
        let report = run_sweep(&s).await;
        assert!(report.problems[0].contains("another"), "{report:?}");
        sweep_due_stores(&s.app).await.unwrap();
        assert_eq!(s.faults.call_count(Operation::List), 0);
        other.commit().await.unwrap();
        assert_eq!(run_sweep(&s).await.problems, [""; 0]);
    });
}

#[test]
fn failed_deletions_are_retried_and_block_no_others() {
    service_test(|s| async move {
        for _ in 0..5 {
            put_orphan(&s).await;
        }
        s.clock.advance(GRACE);
        run_sweep(&s).await;
        s.clock.advance(GRACE);
        let fault = Fault::Before(StorageErrorKind::Unavailable);
        s.faults.set_plan(Plan::new().with_fault(Operation::Delete, 1, fault).with_fault(
            Operation::Delete,
            4,
            fault,
        ));
        let report = run_sweep(&s).await;
        assert_eq!((counts(&report), report.problems.len(), report.waiting.count), ((0, 3), 2, 2));
        assert_eq!(counts(&run_sweep(&s).await), (0, 2));
    });
}

/// A seeded random number generator (xorshift).
struct Rng(u64);

impl Rng {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Runs uploads, purges, sweeps and clock changes in random order, with orphans and storage faults among
/// them.
#[test]
fn live_objects_survive_random_sweeps() {
    for seed in [0x5EED_0001, 0x5EED_0002, 0x5EED_0003] {
        service_test_with(
            |config| (config.sweeping.batch_max, config.uploads.lease_seconds) = (3, 604_800),
            move |s| async move {
                let mut rng = Rng(seed);
                let mut live: Vec<(String, Vec<u8>)> = Vec::new();
                let mut running = None;
                s.alice().quota().await.unwrap();
                for step in 0..60 {
                    s.faults.set_plan(Plan::new().with_random_faults(seed + step, 10));
                    match rng.below(8) {
                        0 | 1 => {
                            let data = pattern(rng.below(3 * PART as u64) as usize);
                            if let Ok(response) = s.alice().upload(spec("a"), &data).await {
                                assert_eq!(response.file.as_ref().unwrap().sha256, sha256(&data));
                                live.push((file_id(&response), data));
                            }
                        }
                        2 => {
                            put_orphan(&s).await;
                        }
                        3 if running.is_none() => {
                            s.faults.set_plan(Plan::new());
                            let data = pattern(3 * PART);
                            running = Some((UnfinishedUpload::start(&s, &data).await, data));
                        }
                        3 => {
                            s.faults.set_plan(Plan::new());
                            let (upload, data) = running.take().unwrap();
                            live.push((file_id(&upload.finish().await.unwrap()), data));
                        }
                        4 if !live.is_empty() => {
                            let (id, _) = live.swap_remove(rng.below(live.len() as u64) as usize);
                            s.ada().purge(&id).await.unwrap();
                            strongroom::worker::run_round(&s.app).await;
                        }
                        5 => s.clock.advance(Duration::hours(rng.below(30) as i64)),
                        _ => {
                            let is_full_walk = rng.below(2) == 0;
                            run_sweep_with(
                                &s,
                                SweepOptions { is_full_walk, ..SweepOptions::from_config(&s.app) },
                            )
                            .await;
                        }
                    }
                }
                s.faults.set_plan(Plan::new());
                if let Some((upload, data)) = running {
                    live.push((file_id(&upload.finish().await.unwrap()), data));
                }
                for _ in 0..3 {
                    s.clock.advance(Duration::days(8));
                    run_sweep(&s).await;
                }
                for (id, data) in live {
                    assert_eq!(s.alice().read(&id).await.unwrap(), data);
                }
                assert_eq!(count_candidates(&s).await, 0);
            },
        );
    }
}
