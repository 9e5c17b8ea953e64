//! Jobs whose dependencies fail wait without using up their attempts, and parked jobs are attempted again.

use chrono::Duration;
use strongroom::{
    app::jobs::{list::list_jobs, retry_all::retry_all_jobs},
    db::jobs::JobState,
    domain::ids::TenantId,
    jobs::Deduplicate,
    proto::v1::FileState,
    storage::{
        StorageErrorKind,
        flaky::{Fault, Operation, Plan},
    },
    worker,
};
use uuid::Uuid;

use crate::{
    direct::complete_without_verification,
    harness::{Service, direct_test, pattern, service_test_with, spec},
    jobs::{count_jobs, enqueue},
};

/// Parks all jobs, as after their last attempt.
const PARK_ALL: &str = "UPDATE jobs SET state = {job_state.parked}, attempts = 10, run_time = app.now(),
                        last_error = 'object store is unavailable'";

async fn park_all(s: &Service) {
    // The superuser's clock is not the test's.
    let now = format!("'{}'", strongroom::domain::clock::Clock::now(s.clock.as_ref()).to_rfc3339());
    s.superuser.execute(&PARK_ALL.replace("app.now()", &now)).await;
}

/// Returns state, attempts and failures of dependencies of the only job.
async fn job_row(s: &Service) -> String {
    let row = "SELECT format('%s %s %s', state, attempts, dependency_failures) FROM jobs";
    s.superuser.query_texts(row).await.concat()
}

fn unknown_tenant(n: u128) -> TenantId {
    TenantId::from_uuid(Uuid::from_u128(n + 1))
}

#[test]
fn outage_of_store_uses_up_no_attempts() {
    direct_test(|s| async move {
        let (alice, bytes) = (s.alice(), pattern(1000));
        let id = complete_without_verification(&s, &alice, spec("a.bin"), &bytes).await;
        let down = Fault::Before(StorageErrorKind::Unavailable);
        s.faults.set_plan(Plan::new().with_fault_in_all(Operation::Head, down));
        for failures in 1..=30 {
            assert_eq!(worker::run_due_jobs(&s.app).await.done, 0, "the store is down");
            assert_eq!(job_row(&s).await, format!("1 0 {failures}"));
            // No pause is longer than `worker.dependency_backoff_max_seconds`.
            s.clock.advance(Duration::minutes(5));
        }
        let waited = "strongroom_job_attempts_total{kind=\"verify_upload\",outcome=\"waiting\"}";
        assert_eq!(s.read_metric(waited), 30);
        let alice = s.alice();
        assert_eq!(alice.get(&id).await.unwrap().state(), FileState::Processing);
        s.faults.set_plan(Plan::new());
        assert_eq!(worker::run_due_jobs(&s.app).await.done, 1);
        assert_eq!(alice.get(&id).await.unwrap().state(), FileState::Available);
    });
}

#[test]
fn parked_verification_is_attempted_again_by_tick() {
    direct_test(|s| async move {
        let (alice, bytes) = (s.alice(), pattern(1000));
        let id = complete_without_verification(&s, &alice, spec("a.bin"), &bytes).await;
        park_all(&s).await;
        worker::run_round(&s.app).await;
        assert_eq!(alice.get(&id).await.unwrap().state(), FileState::Processing, "not yet");
        s.clock.advance(Duration::hours(1));
        worker::run_round(&s.app).await;
        assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Available);
    });
}

#[test]
fn parked_job_gets_one_attempt_an_hour() {
    service_test_with(
        |config| config.worker.attempts_max = 3,
        |s| async move {
            s.allow_failed_jobs();
            // The tenant does not exist, so every attempt fails.
            enqueue(&s, unknown_tenant(0), Deduplicate::ByKey("one")).await;
            park_all(&s).await;
            for _ in 0..3 {
                s.clock.advance(Duration::hours(1));
                assert_eq!(worker::run_round(&s.app).await.failed, 1);
                assert_eq!(job_row(&s).await, "3 3 0", "parked again after one attempt");
            }
            // Another job with its key does its work.
            enqueue(&s, unknown_tenant(0), Deduplicate::ByKey("one")).await;
            s.superuser
                .execute("UPDATE jobs SET run_time = 'infinity' WHERE state = {job_state.ready}")
                .await;
            s.clock.advance(Duration::hours(1));
            worker::run_round(&s.app).await;
            assert_eq!(
                (count_jobs(&s, JobState::Parked).await, count_jobs(&s, JobState::Ready).await),
                (1, 1)
            );
        },
    );
}

#[test]
fn operator_retries_all_parked_jobs() {
    service_test_with(
        |_| {},
        |s| async move {
            s.allow_failed_jobs();
            for n in 0..3 {
                enqueue(&s, unknown_tenant(n), Deduplicate::ByKey("one")).await;
            }
            park_all(&s).await;
            // The parked job of this tenant cannot be retried, because another job has its key.
            enqueue(&s, unknown_tenant(0), Deduplicate::ByKey("one")).await;
            let planned = retry_all_jobs(&s.db, None, true).await.unwrap();
            assert_eq!((planned.retried.len(), planned.has_more), (3, false));
            assert_eq!(count_jobs(&s, JobState::Parked).await, 3, "a dry run changes nothing");
            let none = retry_all_jobs(&s.db, Some("verify_upload"), false).await.unwrap();
            assert_eq!((none.retried.len(), none.skipped.len()), (0, 0));

            let report = retry_all_jobs(&s.db, Some("delete_expired_files"), false).await.unwrap();
            assert_eq!((report.retried.len(), report.skipped.len()), (2, 1));
            assert_eq!(report.skipped[0].job.tenant, unknown_tenant(0).to_string());
            assert!(report.skipped[0].reason.contains("same deduplication key"), "{report:?}");
            let parked = list_jobs(&s.db, &[JobState::Parked], 10).await.unwrap();
            assert_eq!(parked.len(), 1);
            assert!(report.retried.iter().all(|job| (job.state, job.attempts) == (JobState::Ready, 0)));
            let audited = "SELECT count(*) FROM audit_entries WHERE action = {audit_action.job_retry}";
            assert_eq!(s.superuser.query_number(audited).await, 2);
        },
    );
}

#[test]
fn parked_job_whose_key_is_in_use_blocks_no_other() {
    service_test_with(
        |config| config.worker.attempts_max = 3,
        |s| async move {
            s.allow_failed_jobs();
            for n in 0..2 {
                enqueue(&s, unknown_tenant(n), Deduplicate::ByKey("one")).await;
            }
            park_all(&s).await;
            enqueue(&s, unknown_tenant(0), Deduplicate::ByKey("one")).await;
            s.superuser
                .execute("UPDATE jobs SET run_time = 'infinity' WHERE state = {job_state.ready}")
                .await;
            s.clock.advance(Duration::hours(1));
            worker::run_round(&s.app).await;
            let attempts = "SELECT format('%s %s', state, attempts) FROM jobs ORDER BY tenant_id, state DESC";
            let expected = ["3 10", "1 0", "3 3"];
            assert_eq!(s.superuser.query_texts(attempts).await, expected, "the last job had an attempt");
        },
    );
}
