//! The job queue. Jobs run only when the test calls the worker, and the clock moves only when the test
//! advances it.

use std::collections::HashSet;

use chrono::Duration;
use futures::future::join_all;
use strongroom::{
    app::jobs::{JobError, discard::discard_job, get::get_job, list::list_jobs, retry::retry_job},
    db::{
        Viewer,
        jobs::{self as queue, ClaimLimits, ClaimedJob, JobState, LeaseState, NextAttempt},
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

const LIMITS: ClaimLimits = ClaimLimits { lease_seconds: 60, tenant_jobs_max: 1_000 };
const JOB: Job = Job::DeleteExpiredFiles {};

/// Enqueues a job of a tenant, which need not exist.
pub(crate) async fn enqueue(s: &Service, tenant: TenantId, deduplicate: Deduplicate<'_>) {
    let mut tx = s.db.system_tx().await.unwrap();
    enqueue_job_for(&mut tx, tenant, &SystemIds, &JOB, deduplicate).await.unwrap();
    tx.commit().await.unwrap();
}

/// Returns the id of a tenant that does not exist.
fn unknown_tenant(n: u128) -> TenantId {
    TenantId::from_uuid(Uuid::from_u128(n + 1))
}

pub(crate) async fn tenant_of(caller: &Caller) -> TenantId {
    caller.tenant_id().await.parse().unwrap()
}

/// Claims jobs of the given tenants, as a worker does.
async fn claim_jobs(s: &Service, tenants: &[TenantId]) -> Vec<ClaimedJob> {
    let mut tx = s.db.system_tx().await.unwrap();
    queue::recover_lost(&mut tx, 10, 100).await.unwrap();
    let claimed = queue::claim(&mut tx, tenants, LIMITS).await.unwrap();
    tx.commit().await.unwrap();
    claimed
}

/// Runs a statement that only the holder of a job's lease may run. Returns whether the lease was held.
macro_rules! run_as_holder {
    ($s:expr, $statement:ident, $($argument:expr),+) => {{
        let mut tx = $s.db.system_tx().await.unwrap();
        let state = queue::$statement(&mut tx, $($argument),+).await.unwrap();
        tx.commit().await.unwrap();
        state == LeaseState::Held
    }};
}

pub(crate) async fn count_jobs(s: &Service, state: JobState) -> i64 {
    s.superuser.query_number(&format!("SELECT count(*) FROM jobs WHERE state = {}", state.number())).await
}

#[test]
fn job_is_enqueued_only_if_transaction_commits() {
    service_test(|s| async move {
        let acme = tenant_of(&s.alice()).await;
        for (is_committed, expected) in [(false, 0), (true, 1)] {
            let mut tx = s.db.tenant_tx(acme, &Viewer::system()).await.unwrap();
            enqueue_job(&mut tx, &SystemIds, &JOB, Deduplicate::Never).await.unwrap();
            if is_committed {
                tx.commit().await.unwrap()
            } else {
                tx.rollback().await.unwrap()
            }
            assert_eq!(count_jobs(&s, JobState::Ready).await, expected);
        }
        assert_eq!(
            (worker::run_due_jobs(&s.app).await.done, worker::run_due_jobs(&s.app).await.done),
            (1, 0)
        );
        let finished = "SELECT format('%s %s %s', kind, outcome, attempts) FROM finished_jobs";
        assert_eq!(s.superuser.query_texts(finished).await, ["delete_expired_files 1 1"]);
    });
}

#[test]
fn concurrent_workers_claim_each_job_once() {
    service_test(|s| async move {
        let tenants: Vec<TenantId> = (0..10).map(unknown_tenant).collect();
        for tenant in &tenants {
            for _ in 0..12 {
                enqueue(&s, *tenant, Deduplicate::Never).await;
            }
        }
        let workers = (0..8).map(|_| async {
            let mut claimed_here = Vec::new();
            loop {
                let claimed = claim_jobs(&s, &tenants).await;
                if claimed.is_empty() && count_jobs(&s, JobState::Ready).await == 0 {
                    return claimed_here;
                }
                let tenants_claimed: HashSet<_> = claimed.iter().map(|job| job.lease.tenant).collect();
                assert_eq!(tenants_claimed.len(), claimed.len(), "one job per tenant in each claim");
                claimed_here.extend(claimed);
            }
        });
        let claimed: Vec<ClaimedJob> = join_all(workers).await.into_iter().flatten().collect();
        let ids: HashSet<JobId> = claimed.iter().map(|job| job.lease.id).collect();
        assert_eq!((claimed.len(), ids.len()), (120, 120));
        assert!(claimed.iter().all(|job| (job.attempt, job.lease.epoch) == (1, 1)));
        s.allow_failed_jobs();
    });
}

#[test]
fn expired_lease_moves_job_to_another_worker() {
    service_test(|s| async move {
        let acme = unknown_tenant(0);
        enqueue(&s, acme, Deduplicate::Never).await;
        let first = claim_jobs(&s, &[acme]).await.remove(0);
        s.clock.advance(Duration::seconds(59));
        assert!(claim_jobs(&s, &[acme]).await.is_empty(), "the lease has not expired");
        s.clock.advance(Duration::seconds(1));
        let second = claim_jobs(&s, &[acme]).await.remove(0);
        assert_eq!((second.lease.id, second.attempt, second.lease.epoch), (first.lease.id, 2, 2));

        assert!(!run_as_holder!(s, extend_lease, first.lease, 60));
        assert!(!run_as_holder!(s, fail, first.lease, "late", NextAttempt::Park));
        assert!(!run_as_holder!(s, release, first.lease));
        assert!(!run_as_holder!(s, finish, first.lease));
        assert_eq!((count_jobs(&s, JobState::Running).await, count_jobs(&s, JobState::Parked).await), (1, 0));
        assert!(run_as_holder!(s, finish, second.lease));
        assert!(!run_as_holder!(s, finish, second.lease), "a job finishes once");
        assert_eq!(s.superuser.query_number("SELECT count(*) FROM finished_jobs").await, 1);
    });
}

#[test]
fn heartbeats_extend_lease() {
    service_test(|s| async move {
        let acme = unknown_tenant(0);
        enqueue(&s, acme, Deduplicate::Never).await;
        let job = claim_jobs(&s, &[acme]).await.remove(0);
        for _ in 0..5 {
            s.clock.advance(Duration::seconds(59));
            assert!(run_as_holder!(s, extend_lease, job.lease, 60));
            assert!(claim_jobs(&s, &[acme]).await.is_empty());
        }
        assert!(run_as_holder!(s, finish, job.lease));
    });
}

/// Returns the time until the next attempt of the only job, in milliseconds.
async fn retry_delay_millis(s: &Service) -> i64 {
    let now: Timestamp = s.clock.now();
    let run_time_millis = "SELECT extract(epoch FROM run_time) * 1000 FROM jobs";
    s.superuser.query_number(run_time_millis).await - now.timestamp_millis()
}

#[test]
fn failing_job_backs_off_then_parks_with_its_error() {
    service_test_with(
        |config| config.worker.attempts_max = 5,
        |s| async move {
            s.allow_failed_jobs();
            // The tenant does not exist, so every attempt fails.
            enqueue(&s, unknown_tenant(0), Deduplicate::Never).await;
            let mut delays = Vec::new();
            for attempt in 1..=4 {
                assert_eq!(worker::run_due_jobs(&s.app).await.done, 0, "the attempt fails");
                assert_eq!(worker::run_due_jobs(&s.app).await.done, 0, "the job is not due yet");
                assert_eq!(s.superuser.query_number("SELECT attempts FROM jobs").await, attempt);
                delays.push(retry_delay_millis(&s).await);
                s.clock.advance(Duration::milliseconds(retry_delay_millis(&s).await + 1));
            }
            let ranges = [2_500..=5_000, 5_000..=10_000, 10_000..=20_000, 20_000..=40_000];
            assert!(ranges.iter().zip(&delays).all(|(range, delay)| range.contains(delay)), "{delays:?}");
            worker::run_due_jobs(&s.app).await;
            s.clock.advance(Duration::days(30));
            worker::run_due_jobs(&s.app).await;
            let row = "SELECT format('%s %s %s', state, attempts, last_error) FROM jobs";
            assert_eq!(s.superuser.query_texts(row).await, ["3 5 tenant not found"], "parked");
            assert_eq!(
                s.read_metric(
                    "strongroom_job_attempts_total{kind=\"delete_expired_files\",outcome=\"failed\"}"
                ),
                4
            );
            assert_eq!(
                s.read_metric(
                    "strongroom_job_attempts_total{kind=\"delete_expired_files\",outcome=\"parked\"}"
                ),
                1
            );
        },
    );
}

#[test]
fn job_that_kills_its_workers_is_parked() {
    service_test(|s| async move {
        s.allow_failed_jobs();
        enqueue(&s, unknown_tenant(0), Deduplicate::Never).await;
        for _ in 0..10 {
            assert_eq!(claim_jobs(&s, &[unknown_tenant(0)]).await.len(), 1);
            s.clock.advance(Duration::seconds(61));
        }
        assert!(claim_jobs(&s, &[unknown_tenant(0)]).await.is_empty());
        let rows = s.superuser.query_texts("SELECT format('%s %s', state, last_error) FROM jobs").await;
        assert_eq!(rows, ["3 the worker sent no heartbeat within the lease"]);
    });
}

#[test]
fn unknown_job_kind_stays_queued() {
    service_test(|s| async move {
        s.allow_failed_jobs();
        s.superuser
            .execute(
                "INSERT INTO jobs (tenant_id, id, payload, state, run_time, enqueue_time)
                 VALUES (gen_random_uuid(), gen_random_uuid(), '{\"kind\": \"fold_origami\"}',
                         {job_state.ready}, now(), now())",
            )
            .await;
        s.clock.advance(Duration::seconds(5));
        assert_eq!(worker::run_due_jobs(&s.app).await.done, 0);
        let row =
            s.superuser.query_texts("SELECT format('%s %s %s', kind, state, last_error) FROM jobs").await;
        assert!(row[0].starts_with("fold_origami 1 ") && row[0].contains("cannot read the job"), "{row:?}");
    });
}

#[test]
fn operator_retries_and_discards_parked_jobs() {
    service_test_with(
        |config| config.worker.attempts_max = 1,
        |s| async move {
            s.allow_failed_jobs();
            enqueue(&s, unknown_tenant(0), Deduplicate::ByKey("one")).await;
            worker::run_due_jobs(&s.app).await;
            let parked = list_jobs(&s.db, &[JobState::Parked], 10).await.unwrap().remove(0);
            assert_eq!(
                (parked.kind.as_str(), parked.last_error.as_str()),
                ("delete_expired_files", "tenant not found")
            );
            let id: JobId = parked.id.parse().unwrap();
            assert_eq!(get_job(&s.db, id).await.unwrap().tenant, unknown_tenant(0).to_string());

            let retried = retry_job(&s.db, id).await.unwrap();
            assert_eq!((retried.state, retried.attempts), (JobState::Ready, 0));
            worker::run_due_jobs(&s.app).await;
            assert_eq!(count_jobs(&s, JobState::Parked).await, 1, "the retry failed");

            // A parked job does not block a new job with its key. After that it cannot be retried.
            enqueue(&s, unknown_tenant(0), Deduplicate::ByKey("one")).await;
            assert!(matches!(retry_job(&s.db, id).await, Err(JobError::AlreadyQueued)));
            discard_job(&s.db, id).await.unwrap();
            assert!(matches!(discard_job(&s.db, id).await, Err(JobError::NotFound(_))));
            let running = claim_jobs(&s, &[unknown_tenant(0)]).await.remove(0);
            for result in
                [retry_job(&s.db, running.lease.id).await, discard_job(&s.db, running.lease.id).await]
            {
                assert!(matches!(result, Err(JobError::Running)));
            }
            assert_eq!(
                s.superuser.query_texts("SELECT format('%s', outcome) FROM finished_jobs").await,
                ["2"]
            );
            let audited = "SELECT format('%s %s', action, actor_kind) FROM audit_entries
                WHERE action >= {audit_action.job_retry} ORDER BY 1";
            assert_eq!(s.superuser.query_texts(audited).await, ["20 3", "21 3"]);
        },
    );
}

#[test]
fn queued_duplicate_is_dropped_but_running_job_is_requeued() {
    service_test(|s| async move {
        let acme = unknown_tenant(0);
        for key in ["a", "a", "b"] {
            enqueue(&s, acme, Deduplicate::ByKey(key)).await;
        }
        enqueue(&s, unknown_tenant(1), Deduplicate::ByKey("a")).await;
        assert_eq!(count_jobs(&s, JobState::Ready).await, 3, "keys are scoped to a tenant");
        let (first, second) =
            (claim_jobs(&s, &[acme]).await.remove(0), claim_jobs(&s, &[acme]).await.remove(0));
        for key in ["a", "a", "b"] {
            enqueue(&s, acme, Deduplicate::ByKey(key)).await;
        }
        assert_eq!(count_jobs(&s, JobState::Ready).await, 1, "the other two are running");
        for lease in [first.lease, second.lease] {
            assert!(run_as_holder!(s, finish, lease));
        }
        assert_eq!(count_jobs(&s, JobState::Ready).await, 3, "both are queued again");
        for lease in
            [claim_jobs(&s, &[acme]).await.remove(0).lease, claim_jobs(&s, &[acme]).await.remove(0).lease]
        {
            assert!(run_as_holder!(s, finish, lease));
        }
        assert_eq!(
            (
                count_jobs(&s, JobState::Ready).await,
                s.superuser.query_number("SELECT count(*) FROM finished_jobs").await
            ),
            (1, 2)
        );
    });
}

#[test]
fn job_deduplicated_by_open_transaction_is_not_claimed() {
    service_test(|s| async move {
        let acme = tenant_of(&s.alice()).await;
        enqueue(&s, acme, Deduplicate::ByKey("a")).await;
        let mut tx = s.db.tenant_tx(acme, &Viewer::system()).await.unwrap();
        enqueue_job(&mut tx, &SystemIds, &JOB, Deduplicate::ByKey("a")).await.unwrap();
        assert!(claim_jobs(&s, &[acme]).await.is_empty(), "the job would run before the change is visible");
        tx.commit().await.unwrap();
        let job = claim_jobs(&s, &[acme]).await.remove(0);
        assert!(run_as_holder!(s, finish, job.lease));
    });
}

#[test]
fn job_affects_only_files_of_its_tenant() {
    service_test(|s| async move {
        let one_day = || UploadSpec { retention_days: 1, ..spec("a") };
        let mine = file_id(&s.alice().upload(one_day(), b"x").await.unwrap());
        let theirs = file_id(&s.mallory().upload(one_day(), b"x").await.unwrap());
        s.clock.advance(Duration::days(1));
        enqueue(&s, tenant_of(&s.alice()).await, Deduplicate::Never).await;
        assert_eq!(worker::run_due_jobs(&s.app).await.done, 1);
        assert_eq!(s.alice().get(&mine).await.unwrap().state(), FileState::Deleted);
        assert_eq!(s.mallory().get(&theirs).await.unwrap().state(), FileState::Available);
    });
}

#[test]
fn finished_jobs_are_deleted_after_a_week() {
    service_test(|s| async move {
        enqueue(&s, tenant_of(&s.alice()).await, Deduplicate::Never).await;
        worker::run_round(&s.app).await;
        let finished_count =
            || async { s.superuser.query_number("SELECT count(*) FROM finished_jobs").await };
        s.clock.advance(Duration::days(6));
        worker::run_round(&s.app).await;
        assert_eq!(finished_count().await, 1);
        s.clock.advance(Duration::days(3));
        worker::run_round(&s.app).await;
        assert_eq!(finished_count().await, 0);
    });
}
