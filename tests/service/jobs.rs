//! The queue of background work, and the ticks of the clock. Jobs run when the test asks; time moves when it says so.

use std::collections::HashSet;

use chrono::Duration;
use futures::future::join_all;
use strongroom::{
    app::jobs::{JobError, discard::discard_job, get::get_job, list::list_jobs, retry::retry_job},
    db::{
        Viewer,
        jobs::{self as queue, ClaimTerms, ClaimedJob, JobState, NextAttempt},
    },
    domain::{
        clock::{Clock as _, SystemIds, Timestamp},
        ids::{JobId, TenantId},
    },
    jobs::{Deduplicate, Job, enqueue_job, enqueue_job_for},
    proto::v1::{FileState, UploadSpec},
    worker,
};
use uuid::Uuid;

use crate::harness::{Caller, Service, file_id, service_test, service_test_with, spec};

const TERMS: ClaimTerms = ClaimTerms { lease_seconds: 60, tenant_jobs_max: 1_000 };
const JOB: Job = Job::DeleteExpiredFiles {};

/// Asks for a job of a tenant, which need not be there.
pub(crate) async fn ask(s: &Service, tenant: TenantId, unless: Deduplicate<'_>) {
    let mut tx = s.db.system_tx().await.unwrap();
    enqueue_job_for(&mut tx, tenant, &SystemIds, &JOB, unless).await.unwrap();
    tx.commit().await.unwrap();
}

/// A tenant that nobody has seen.
fn nobody(n: u128) -> TenantId {
    TenantId::from_uuid(Uuid::from_u128(n + 1))
}

pub(crate) async fn tenant(caller: &Caller) -> TenantId {
    caller.tenant_id().await.parse().unwrap()
}

/// Claims what a worker would, of these tenants.
async fn claim(s: &Service, tenants: &[TenantId]) -> Vec<ClaimedJob> {
    let mut tx = s.db.system_tx().await.unwrap();
    queue::recover_lost(&mut tx, 10, 100).await.unwrap();
    let claimed = queue::claim(&mut tx, tenants, TERMS).await.unwrap();
    tx.commit().await.unwrap();
    claimed
}

/// Runs one statement of a job's holder.
macro_rules! held {
    ($s:expr, $statement:ident, $($argument:expr),+) => {{
        let mut tx = $s.db.system_tx().await.unwrap();
        let is_held = queue::$statement(&mut tx, $($argument),+).await.unwrap();
        tx.commit().await.unwrap();
        is_held
    }};
}

pub(crate) async fn count(s: &Service, state: JobState) -> i64 {
    s.owner.number(&format!("SELECT count(*) FROM jobs WHERE state = {}", state.number())).await
}

#[test]
fn a_job_is_there_when_its_transaction_commits_and_not_otherwise() {
    service_test(|s| async move {
        let acme = tenant(&s.alice()).await;
        for (is_kept, jobs) in [(false, 0), (true, 1)] {
            let mut tx = s.db.tenant_tx(acme, &Viewer::system()).await.unwrap();
            enqueue_job(&mut tx, &SystemIds, &JOB, Deduplicate::Never).await.unwrap();
            if is_kept {
                tx.commit().await.unwrap()
            } else {
                tx.rollback().await.unwrap()
            }
            assert_eq!(count(&s, JobState::Ready).await, jobs);
        }
        assert_eq!((worker::run_due_jobs(&s.app).await, worker::run_due_jobs(&s.app).await), (1, 0));
        let done = "SELECT format('%s %s %s', kind, outcome, attempts) FROM finished_jobs";
        assert_eq!(s.owner.texts(done).await, ["delete_expired_files 1 1"]);
    });
}

#[test]
fn of_many_workers_each_job_is_with_one() {
    service_test(|s| async move {
        let tenants: Vec<TenantId> = (0..10).map(nobody).collect();
        for tenant in &tenants {
            for _ in 0..12 {
                ask(&s, *tenant, Deduplicate::Never).await;
            }
        }
        let workers = (0..8).map(|_| async {
            let mut mine = Vec::new();
            loop {
                let claimed = claim(&s, &tenants).await;
                if claimed.is_empty() && count(&s, JobState::Ready).await == 0 {
                    return mine;
                }
                let of: HashSet<_> = claimed.iter().map(|job| job.lease.tenant).collect();
                assert_eq!(of.len(), claimed.len(), "one of each tenant a round");
                mine.extend(claimed);
            }
        });
        let claimed: Vec<ClaimedJob> = join_all(workers).await.into_iter().flatten().collect();
        let ids: HashSet<JobId> = claimed.iter().map(|job| job.lease.id).collect();
        assert_eq!((claimed.len(), ids.len()), (120, 120));
        assert!(claimed.iter().all(|job| (job.attempt, job.lease.epoch) == (1, 1)));
        s.expect_failed_jobs();
    });
}

#[test]
fn a_job_whose_lease_ran_out_goes_to_another_worker_and_the_first_one_has_no_more_say() {
    service_test(|s| async move {
        let acme = nobody(0);
        ask(&s, acme, Deduplicate::Never).await;
        let first = claim(&s, &[acme]).await.remove(0);
        s.clock.advance(Duration::seconds(59));
        assert!(claim(&s, &[acme]).await.is_empty(), "its lease holds");
        s.clock.advance(Duration::seconds(1));
        let second = claim(&s, &[acme]).await.remove(0);
        assert_eq!((second.lease.id, second.attempt, second.lease.epoch), (first.lease.id, 2, 2));

        assert!(!held!(s, beat, first.lease, 60));
        assert!(!held!(s, fail, first.lease, "late", NextAttempt::Park));
        assert!(!held!(s, release, first.lease));
        assert!(!held!(s, finish, first.lease));
        assert_eq!((count(&s, JobState::Running).await, count(&s, JobState::Parked).await), (1, 0));
        assert!(held!(s, finish, second.lease));
        assert!(!held!(s, finish, second.lease), "once");
        assert_eq!(s.owner.number("SELECT count(*) FROM finished_jobs").await, 1);
    });
}

#[test]
fn heartbeats_keep_a_long_job() {
    service_test(|s| async move {
        let acme = nobody(0);
        ask(&s, acme, Deduplicate::Never).await;
        let job = claim(&s, &[acme]).await.remove(0);
        for _ in 0..5 {
            s.clock.advance(Duration::seconds(59));
            assert!(held!(s, beat, job.lease, 60));
            assert!(claim(&s, &[acme]).await.is_empty());
        }
        assert!(held!(s, finish, job.lease));
    });
}

/// How long until the only job is tried again, in milliseconds.
async fn pause(s: &Service) -> i64 {
    let (now, time): (Timestamp, _) = (s.clock.now(), "SELECT extract(epoch FROM run_time) * 1000 FROM jobs");
    s.owner.number(time).await - now.timestamp_millis()
}

#[test]
fn a_job_that_fails_is_tried_again_later_and_later_and_is_parked_at_last_and_says_why() {
    service_test_with(
        |config| config.worker.attempts_max = 5,
        |s| async move {
            s.expect_failed_jobs();
            // The tenant is not there, so nobody can do its job.
            ask(&s, nobody(0), Deduplicate::Never).await;
            let mut pauses = Vec::new();
            for attempt in 1..=4 {
                assert_eq!(worker::run_due_jobs(&s.app).await, 0, "it fails");
                assert_eq!(worker::run_due_jobs(&s.app).await, 0, "and is not due again");
                assert_eq!(s.owner.number("SELECT attempts FROM jobs").await, attempt);
                pauses.push(pause(&s).await);
                s.clock.advance(Duration::milliseconds(pause(&s).await + 1));
            }
            let ranges = [2_500..=5_000, 5_000..=10_000, 10_000..=20_000, 20_000..=40_000];
            assert!(ranges.iter().zip(&pauses).all(|(range, pause)| range.contains(pause)), "{pauses:?}");
            worker::run_due_jobs(&s.app).await;
            s.clock.advance(Duration::days(30));
            worker::run_due_jobs(&s.app).await;
            let row = "SELECT format('%s %s %s', state, attempts, last_error) FROM jobs";
            assert_eq!(s.owner.texts(row).await, ["3 5 tenant not found"], "parked");
            assert_eq!(
                s.metric("strongroom_job_attempts_total{kind=\"delete_expired_files\",outcome=\"failed\"}"),
                4
            );
            assert_eq!(
                s.metric("strongroom_job_attempts_total{kind=\"delete_expired_files\",outcome=\"parked\"}"),
                1
            );
        },
    );
}

#[test]
fn a_job_that_kills_its_workers_is_parked_too() {
    service_test(|s| async move {
        s.expect_failed_jobs();
        ask(&s, nobody(0), Deduplicate::Never).await;
        for _ in 0..10 {
            assert_eq!(claim(&s, &[nobody(0)]).await.len(), 1);
            s.clock.advance(Duration::seconds(61));
        }
        assert!(claim(&s, &[nobody(0)]).await.is_empty());
        let said = s.owner.texts("SELECT format('%s %s', state, last_error) FROM jobs").await;
        assert_eq!(said, ["3 the worker sent no heartbeat within the lease"]);
    });
}

#[test]
fn a_job_that_this_version_cannot_read_is_kept_for_one_that_can() {
    service_test(|s| async move {
        s.expect_failed_jobs();
        s.owner
            .run(
                "INSERT INTO jobs (tenant_id, id, payload, state, run_time, enqueue_time)
                 VALUES (gen_random_uuid(), gen_random_uuid(), '{\"kind\": \"fold_origami\"}', 1, now(), now())",
            )
            .await;
        s.clock.advance(Duration::seconds(5));
        assert_eq!(worker::run_due_jobs(&s.app).await, 0);
        let row = s.owner.texts("SELECT format('%s %s %s', kind, state, last_error) FROM jobs").await;
        assert!(row[0].starts_with("fold_origami 1 ") && row[0].contains("cannot read the job"), "{row:?}");
    });
}

#[test]
fn an_operator_sees_a_parked_job_and_has_it_tried_again_or_throws_it_away() {
    service_test_with(
        |config| config.worker.attempts_max = 1,
        |s| async move {
            s.expect_failed_jobs();
            ask(&s, nobody(0), Deduplicate::ByKey("one")).await;
            worker::run_due_jobs(&s.app).await;
            let parked = list_jobs(&s.db, &[JobState::Parked], 10).await.unwrap().remove(0);
            assert_eq!(
                (parked.kind.as_str(), parked.last_error.as_str()),
                ("delete_expired_files", "tenant not found")
            );
            let id: JobId = parked.id.parse().unwrap();
            assert_eq!(get_job(&s.db, id).await.unwrap().tenant, nobody(0).to_string());

            let again = retry_job(&s.db, id).await.unwrap();
            assert_eq!((again.state, again.attempts), (JobState::Ready, 0));
            worker::run_due_jobs(&s.app).await;
            assert_eq!(count(&s, JobState::Parked).await, 1, "it was tried, and failed again");

            // A parked job keeps nobody from asking; but then there is nothing left to try.
            ask(&s, nobody(0), Deduplicate::ByKey("one")).await;
            assert!(matches!(retry_job(&s.db, id).await, Err(JobError::AlreadyQueued)));
            discard_job(&s.db, id).await.unwrap();
            assert!(matches!(discard_job(&s.db, id).await, Err(JobError::NotFound(_))));
            let running = claim(&s, &[nobody(0)]).await.remove(0);
            for refused in
                [retry_job(&s.db, running.lease.id).await, discard_job(&s.db, running.lease.id).await]
            {
                assert!(matches!(refused, Err(JobError::WrongState { state: JobState::Running, .. })));
            }
            assert_eq!(s.owner.texts("SELECT format('%s', outcome) FROM finished_jobs").await, ["2"]);
            let written =
                "SELECT format('%s %s', action, actor_kind) FROM audit_entries WHERE action >= 20 ORDER BY 1";
            assert_eq!(s.owner.texts(written).await, ["20 3", "21 3"]);
        },
    );
}

#[test]
fn what_is_asked_for_twice_is_done_once_and_what_is_asked_for_while_it_runs_once_more() {
    service_test(|s| async move {
        let acme = nobody(0);
        for key in ["a", "a", "b"] {
            ask(&s, acme, Deduplicate::ByKey(key)).await;
        }
        ask(&s, nobody(1), Deduplicate::ByKey("a")).await;
        assert_eq!(count(&s, JobState::Ready).await, 3, "a key is of one tenant");
        let (first, second) = (claim(&s, &[acme]).await.remove(0), claim(&s, &[acme]).await.remove(0));
        for key in ["a", "a", "b"] {
            ask(&s, acme, Deduplicate::ByKey(key)).await;
        }
        assert_eq!(count(&s, JobState::Ready).await, 1, "they run");
        for lease in [first.lease, second.lease] {
            assert!(held!(s, finish, lease));
        }
        assert_eq!(count(&s, JobState::Ready).await, 3, "they run once more");
        for lease in [claim(&s, &[acme]).await.remove(0).lease, claim(&s, &[acme]).await.remove(0).lease] {
            assert!(held!(s, finish, lease));
        }
        assert_eq!(
            (count(&s, JobState::Ready).await, s.owner.number("SELECT count(*) FROM finished_jobs").await),
            (1, 2)
        );
    });
}

#[test]
fn a_worker_does_not_begin_what_an_uncommitted_transaction_counts_on() {
    service_test(|s| async move {
        let acme = tenant(&s.alice()).await;
        ask(&s, acme, Deduplicate::ByKey("a")).await;
        let mut tx = s.db.tenant_tx(acme, &Viewer::system()).await.unwrap();
        enqueue_job(&mut tx, &SystemIds, &JOB, Deduplicate::ByKey("a")).await.unwrap();
        assert!(claim(&s, &[acme]).await.is_empty(), "it would look before the change is there");
        tx.commit().await.unwrap();
        let job = claim(&s, &[acme]).await.remove(0);
        assert!(held!(s, finish, job.lease));
    });
}

#[test]
fn a_job_reaches_the_files_of_its_own_tenant_alone() {
    service_test(|s| async move {
        let told = || UploadSpec { retention_days: 1, ..spec("a") };
        let mine = file_id(&s.alice().upload(told(), b"x").await.unwrap());
        let theirs = file_id(&s.mallory().upload(told(), b"x").await.unwrap());
        s.clock.advance(Duration::days(1));
        ask(&s, tenant(&s.alice()).await, Deduplicate::Never).await;
        assert_eq!(worker::run_due_jobs(&s.app).await, 1);
        assert_eq!(s.alice().get(&mine).await.unwrap().state(), FileState::Deleted);
        assert_eq!(s.mallory().get(&theirs).await.unwrap().state(), FileState::Available);
    });
}

#[test]
fn what_became_of_jobs_is_forgotten_after_a_week() {
    service_test(|s| async move {
        ask(&s, tenant(&s.alice()).await, Deduplicate::Never).await;
        worker::run_round(&s.app).await;
        let known = || async { s.owner.number("SELECT count(*) FROM finished_jobs").await };
        s.clock.advance(Duration::days(6));
        worker::run_round(&s.app).await;
        assert_eq!(known().await, 1);
        s.clock.advance(Duration::days(3));
        worker::run_round(&s.app).await;
        assert_eq!(known().await, 0);
    });
}
