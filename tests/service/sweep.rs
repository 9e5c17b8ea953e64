//! What a crash leaves in the store is found first and removed later, and nothing else ever is.

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

/// A key of today below a prefix, of alice's tenant or of one that nobody knows.
pub(crate) async fn key(s: &Service, prefix: &str, tenant: Option<TenantId>) -> ObjectKey {
    let tenant = match tenant {
        Some(tenant) => tenant,
        None => s.alice().tenant_id().await.parse().unwrap(),
    };
    let (day, id) = (s.clock.now().date_naive(), BlobId::from_uuid(SystemIds.uuid()));
    ObjectKey::for_blob(prefix, tenant, "document", day, id).unwrap()
}

/// An object that a crash left: its bytes are there and no row is.
pub(crate) async fn orphan(s: &Service) -> ObjectKey {
    let key = key(s, "live", None).await;
    put(s, &key).await;
    key
}

pub(crate) async fn put(s: &Service, key: &ObjectKey) {
    s.store.put(key, Payload::from(Bytes::from_static(&[7; 10])), &PutOptions::default()).await.unwrap();
}

pub(crate) async fn is_there(s: &Service, key: &ObjectKey) -> bool {
    s.store.head(key).await.is_ok()
}

pub(crate) async fn candidates(s: &Service) -> i64 {
    s.owner.number("SELECT count(*) FROM sweep_candidates").await
}

pub(crate) async fn swept(s: &Service) -> SweepReport {
    swept_with(s, SweepOptions::from_config(&s.app)).await
}

pub(crate) async fn swept_with(s: &Service, options: SweepOptions) -> SweepReport {
    let mut reports = sweep_stores(&s.app, options).await.unwrap();
    assert_eq!(reports.len(), 1);
    reports.remove(0)
}

/// How many were found and removed.
pub(crate) fn counts(report: &SweepReport) -> (u64, u64) {
    (report.found.count, report.removed.count)
}

#[test]
fn an_orphan_is_found_first_and_removed_only_in_a_second_pass_after_the_grace_period() {
    service_test(|s| async move {
        let id = file_id(&s.alice().upload(spec("a"), b"alive").await.unwrap());
        let orphan = orphan(&s).await;
        s.clock.advance(GRACE - SECOND);
        let report = swept(&s).await;
        assert_eq!((counts(&report), report.skipped_young), ((0, 0), 2));
        s.clock.advance(SECOND);
        let report = swept(&s).await;
        assert_eq!((counts(&report), report.found.bytes), ((1, 0), 10));
        s.clock.advance(GRACE - SECOND);
        let report = swept(&s).await;
        assert_eq!((counts(&report), report.waiting.count), ((0, 0), 1));
        assert!(is_there(&s, &orphan).await);
        s.clock.advance(SECOND);
        let report = swept(&s).await;
        assert_eq!((counts(&report), report.removed.bytes, report.waiting.count), ((0, 1), 10, 0));
        assert!(!is_there(&s, &orphan).await);
        assert_eq!(candidates(&s).await, 0);
        assert_eq!(s.alice().read(&id).await.unwrap(), "alive");
    });
}

#[test]
fn an_object_whose_row_came_is_forgotten_and_never_removed() {
    service_test(|s| async move {
        let (late, orphan) = (orphan(&s).await, orphan(&s).await);
        s.clock.advance(GRACE);
        assert_eq!(counts(&swept(&s).await), (2, 0));
        // Whoever wrote it called the provider otherwise: it is the row of this object all the same.
        let row = "INSERT INTO blobs (tenant_id, id, provider, storage_key, size_bytes, sha256, crc64nvme, create_time)
                   VALUES ($1::text::uuid, $2::text::uuid, 'renamed', $3, 10, sha256(''), '12345678', now())";
        let (tenant, id) = (late.tenant().to_string(), late.blob().to_string());
        s.owner.rows(row, &[&tenant, &id, &late.to_string()]).await;
        s.clock.advance(GRACE);
        let report = swept(&s).await;
        assert_eq!((counts(&report), report.forgotten), ((0, 1), 1));
        assert!(is_there(&s, &late).await && !is_there(&s, &orphan).await);
        assert_eq!(candidates(&s).await, 0);
        let provider = s.store.provider();
        s.owner.run(&format!("UPDATE blobs SET provider = '{provider}'")).await;
    });
}

#[test]
fn a_partial_listing_removes_nothing_in_that_round_and_says_so() {
    service_test_with(
        |config| config.sweeping.batch_max = 2,
        |s| async move {
            for _ in 0..5 {
                orphan(&s).await;
            }
            let unfinished = key(&s, "live", None).await;
            s.store.start_multipart(&unfinished, 1024, &PutOptions::default()).await.unwrap();
            s.clock.advance(GRACE);
            assert_eq!(counts(&swept(&s).await), (6, 0));
            s.clock.advance(GRACE);
            for (operation, nth) in
                [(Operation::List, 1), (Operation::List, 3), (Operation::ListMultiparts, 1)]
            {
                let broken = Fault::Before(StorageErrorKind::Transient);
                s.faults.set_plan(Plan::new().with_fault(operation, nth, broken));
                let report = swept(&s).await;
                assert_eq!((counts(&report), report.waiting.count), ((0, 0), 6), "{operation:?} {nth}");
                assert!(report.problems[0].contains("broke off"), "{report:?}");
            }
            s.faults.set_plan(Plan::new());
            let report = swept(&s).await;
            assert_eq!((counts(&report), report.problems.len()), ((0, 6), 0));
        },
    );
}

#[test]
fn a_dry_run_changes_nothing() {
    service_test(|s| async move {
        let dry = SweepOptions { is_dry_run: true, ..SweepOptions::from_config(&s.app) };
        let orphan = orphan(&s).await;
        s.clock.advance(GRACE);
        for _ in 0..2 {
            let report = swept_with(&s, dry).await;
            assert_eq!((counts(&report), candidates(&s).await), ((1, 0), 0));
        }
        assert_eq!(s.owner.number("SELECT count(*) FROM sweeps").await, 0);
        swept(&s).await;
        s.clock.advance(GRACE);
        for _ in 0..2 {
            assert_eq!(counts(&swept_with(&s, dry).await), (0, 1));
            assert!(is_there(&s, &orphan).await);
        }
        assert_eq!(counts(&swept(&s).await), (0, 1));
    });
}

#[test]
fn what_is_not_ours_is_left_alone() {
    service_test(|s| async move {
        let stranger = Some(TenantId::from_uuid(SystemIds.uuid()));
        let foreign = [
            key(&s, "other", None).await,
            key(&s, "live/other", None).await,
            key(&s, "", None).await,
            key(&s, "live", stranger).await,
        ];
        for key in &foreign {
            put(&s, key).await;
        }
        for _ in 0..3 {
            s.clock.advance(GRACE * 2);
            let report = swept(&s).await;
            assert_eq!((counts(&report), report.skipped_foreign), ((0, 0), 2));
        }
        let unfinished = s.store.start_multipart(&foreign[3], 1024, &PutOptions::default()).await.unwrap();
        let report = s.fsck().await;
        assert_eq!((report.violations.len(), report.objects, report.foreign), (0, 4, 5), "{report:?}");
        s.store.abort_multipart(&foreign[3], &unfinished).await.unwrap();
        let ours = orphan(&s).await;
        let report = s.fsck().await;
        assert_eq!((report.violations.len(), report.foreign), (1, 4), "{report:?}");
        s.store.delete(&ours).await.unwrap();
        for key in &foreign {
            assert!(is_there(&s, key).await, "{key}");
            s.store.delete(key).await.unwrap();
        }
    });
}

/// An upload of several parts whose first bytes were sent.
pub(crate) struct Unfinished {
    sender: mpsc::Sender<UploadFileRequest>,
    rest: Vec<UploadFileRequest>,
    answer: JoinHandle<Result<UploadFileResponse, Status>>,
}

impl Unfinished {
    pub(crate) async fn begin(s: &Service, data: &[u8]) -> Self {
        let told = UploadSpec { size_bytes: Some(data.len() as i64), ..spec("slow") };
        let mut messages = upload_messages(told, data, PART);
        let rest = messages.split_off(2);
        let (mut sender, stream) = mpsc::channel(1);
        let mut files = s.alice().files;
        let answer =
            tokio::spawn(async move { files.upload_file(stream).await.map(tonic::Response::into_inner) });
        for message in messages {
            sender.send(message).await.unwrap();
        }
        let open = "SELECT count(*) FROM uploads WHERE state = 1";
        s.until("the upload is open", || async { s.owner.number(open).await == 1 }).await;
        Self { sender, rest, answer }
    }

    pub(crate) async fn finish(mut self) -> Result<UploadFileResponse, Status> {
        for message in self.rest {
            // The service may have refused it already.
            let _ = self.sender.send(message).await;
        }
        drop(self.sender);
        self.answer.await.unwrap()
    }
}

#[test]
fn an_unfinished_upload_that_nobody_knows_is_found_and_then_aborted_and_one_that_runs_is_not() {
    service_test_with(
        |config| config.uploads.lease_seconds = 604_800,
        |s| async move {
            let data = pattern(4 * PART);
            let running = Unfinished::begin(&s, &data).await;
            let lost = key(&s, "live", None).await;
            let id: MultipartId = s.store.start_multipart(&lost, 1024, &PutOptions::default()).await.unwrap();
            s.store.put_part(&lost, &id, 1, Payload::from(Bytes::from_static(&[7; 1024]))).await.unwrap();
            s.clock.advance(GRACE);
            assert_eq!(counts(&swept(&s).await), (1, 0));
            s.clock.advance(GRACE);
            let report = swept(&s).await;
            assert_eq!((counts(&report), report.listed_multiparts), ((0, 1), 2));
            let left = s.store.list_multiparts("", None, 10).await.unwrap().multiparts;
            assert!(left.len() == 1 && left[0].key != lost, "{left:?}");
            let id = file_id(&running.finish().await.unwrap());
            assert_eq!(s.alice().read(&id).await.unwrap(), data);
        },
    );
}

#[test]
fn a_sweep_gives_up_the_uploads_whose_lease_ran_out() {
    service_test(|s| async move {
        let running = Unfinished::begin(&s, &pattern(4 * PART)).await;
        assert_eq!(swept(&s).await.expired_uploads, 0);
        s.clock.advance(Duration::hours(25));
        let dry = SweepOptions { is_dry_run: true, ..SweepOptions::from_config(&s.app) };
        assert_eq!(swept_with(&s, dry).await.expired_uploads, 1);
        assert_eq!(swept(&s).await.expired_uploads, 1);
        let status = running.finish().await.unwrap_err();
        assert_eq!(reason(&status), "UPLOAD_FENCED");
        s.assert_nothing_is_left().await;
    });
}

#[test]
fn a_commit_later_than_half_the_grace_period_is_refused_and_leaves_nothing() {
    service_test_with(
        |config| config.uploads.commit_connections_max = 1,
        |s| async move {
            for (late_by, is_refused) in [(GRACE / 2, false), (GRACE / 2 + SECOND, true)] {
                s.faults.set_plan(Plan::new());
                // The first commit waits inside the database, the second one behind it.
                s.owner.run("BEGIN; LOCK TABLE blobs IN ACCESS EXCLUSIVE MODE").await;
                let upload = |name: &'static str| {
                    let alice = s.alice();
                    tokio::spawn(async move { alice.upload(spec(name), b"small").await })
                };
                let first = upload("first");
                let waiting = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                               WHERE d.datname = current_database() AND NOT l.granted";
                s.until("the first commit waits", || async { s.owner.number(waiting).await > 0 }).await;
                let second = upload("second");
                s.until("the second is stored", || async { s.faults.call_count(Operation::Put) == 2 }).await;
                s.clock.advance(late_by);
                s.owner.run("COMMIT").await;
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
                let is_removed = || async { s.store.list("", None, 10).await.unwrap().objects.len() == 3 };
                s.until("its object is removed", is_removed).await;
                assert_eq!(s.owner.number("SELECT count(*) FROM files").await, 3);
            }
        },
    );
}

#[test]
fn a_round_between_full_walks_lists_young_days_only() {
    service_test_with(
        |config| config.sweeping.batch_max = 2,
        |s| async move {
            for _ in 0..9 {
                orphan(&s).await;
            }
            s.clock.advance(Duration::days(40));
            let today = s.clock.now().date_naive();
            let (mut young, before) = (Vec::new(), today.checked_sub_days(Days::new(2)).unwrap());
            for day in [before, today] {
                let key = key(&s, "live", None).await;
                let key = ObjectKey::for_blob("live", key.tenant(), "document", day, key.blob()).unwrap();
                put(&s, &key).await;
                young.push(key);
            }
            s.clock.advance(GRACE);
            let usual = SweepOptions { is_full_walk: false, ..SweepOptions::from_config(&s.app) };
            let report = swept_with(&s, usual).await;
            // A page of old ones, and then all young ones.
            assert_eq!((report.listed_objects, report.found.count), (4, 4));
            s.clock.advance(GRACE);
            let report = swept_with(&s, usual).await;
            assert_eq!(counts(&report), (0, 4));
            assert!(!is_there(&s, &young[0]).await && !is_there(&s, &young[1]).await);
            let report = swept(&s).await;
            assert_eq!((report.listed_objects, counts(&report)), (7, (7, 0)));
            s.clock.advance(GRACE);
            assert_eq!(counts(&swept(&s).await), (0, 7));
        },
    );
}

#[test]
fn background_work_sweeps_at_its_interval_and_walks_through_everything_once_a_day() {
    service_test(|s| async move {
        let orphan = orphan(&s).await;
        s.clock.advance(GRACE);
        assert_eq!(sweep_due_stores(&s.app).await.unwrap(), 0);
        assert_eq!(candidates(&s).await, 1);
        s.faults.set_plan(Plan::new());
        s.clock.advance(Duration::minutes(59));
        sweep_due_stores(&s.app).await.unwrap();
        assert_eq!(s.faults.call_count(Operation::List), 0, "it is not time");
        s.clock.advance(Duration::minutes(1));
        sweep_due_stores(&s.app).await.unwrap();
        assert_eq!(s.faults.call_count(Operation::List), 1);
        let age = "SELECT extract(epoch FROM sweep_time - full_walk_time) FROM sweeps";
        assert_eq!(s.owner.number(age).await, 3600);
        s.clock.advance(GRACE);
        assert_eq!(sweep_due_stores(&s.app).await.unwrap(), 1);
        assert_eq!(s.owner.number(age).await, 0);
        assert!(!is_there(&s, &orphan).await);
    });
}

#[test]
fn one_at_a_time_sweeps_a_store() {
    service_test(|s| async move {
        let mut other = s.db.system_tx().await.unwrap();
        assert!(sweeps::lock(&mut other, s.store.provider()).await.unwrap());
        let report = swept(&s).await;
        assert!(report.problems[0].contains("another"), "{report:?}");
        sweep_due_stores(&s.app).await.unwrap();
        assert_eq!(s.faults.call_count(Operation::List), 0);
        other.commit().await.unwrap();
        assert_eq!(swept(&s).await.problems, [""; 0]);
    });
}

#[test]
fn what_the_store_will_not_remove_is_tried_again_and_holds_up_nothing_else() {
    service_test(|s| async move {
        for _ in 0..5 {
            orphan(&s).await;
        }
        s.clock.advance(GRACE);
        swept(&s).await;
        s.clock.advance(GRACE);
        let refused = Fault::Before(StorageErrorKind::Unavailable);
        s.faults.set_plan(Plan::new().with_fault(Operation::Delete, 1, refused).with_fault(
            Operation::Delete,
            4,
            refused,
        ));
        let report = swept(&s).await;
        assert_eq!((counts(&report), report.problems.len(), report.waiting.count), ((0, 3), 2, 2));
        assert_eq!(counts(&swept(&s).await), (0, 2));
    });
}

/// The dice of one sequence; the same seed, the same sequence.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Uploads, purges, orphans, time and sweeps in any order, with a store that fails now and then.
#[test]
fn a_live_object_survives_whatever_is_swept() {
    for seed in [0x5EED_0001, 0x5EED_0002, 0x5EED_0003] {
        service_test_with(
            |config| (config.sweeping.batch_max, config.uploads.lease_seconds) = (3, 604_800),
            move |s| async move {
                let mut dice = Dice(seed);
                let mut alive: Vec<(String, Vec<u8>)> = Vec::new();
                let mut running = None;
                s.alice().quota().await.unwrap();
                for step in 0..60 {
                    s.faults.set_plan(Plan::new().with_random_faults(seed + step, 10));
                    match dice.throw(8) {
                        0 | 1 => {
                            let data = pattern(dice.throw(3 * PART as u64) as usize);
                            if let Ok(answer) = s.alice().upload(spec("a"), &data).await {
                                assert_eq!(answer.file.as_ref().unwrap().sha256, sha256(&data));
                                alive.push((file_id(&answer), data));
                            }
                        }
                        2 => {
                            orphan(&s).await;
                        }
                        3 if running.is_none() => {
                            s.faults.set_plan(Plan::new());
                            let data = pattern(3 * PART);
                            running = Some((Unfinished::begin(&s, &data).await, data));
                        }
                        3 => {
                            s.faults.set_plan(Plan::new());
                            let (upload, data) = running.take().unwrap();
                            alive.push((file_id(&upload.finish().await.unwrap()), data));
                        }
                        4 if !alive.is_empty() => {
                            let (id, _) = alive.swap_remove(dice.throw(alive.len() as u64) as usize);
                            s.ada().purge(&id).await.unwrap();
                            strongroom::worker::run_round(&s.app).await;
                        }
                        5 => s.clock.advance(Duration::hours(dice.throw(30) as i64)),
                        _ => {
                            let is_full_walk = dice.throw(2) == 0;
                            swept_with(
                                &s,
                                SweepOptions { is_full_walk, ..SweepOptions::from_config(&s.app) },
                            )
                            .await;
                        }
                    }
                }
                s.faults.set_plan(Plan::new());
                if let Some((upload, data)) = running {
                    alive.push((file_id(&upload.finish().await.unwrap()), data));
                }
                for _ in 0..3 {
                    s.clock.advance(Duration::days(8));
                    swept(&s).await;
                }
                for (id, data) in alive {
                    assert_eq!(s.alice().read(&id).await.unwrap(), data);
                }
                assert_eq!(candidates(&s).await, 0);
            },
        );
    }
}
