//! Running workers: heartbeats, lost leases, shutdown, and fairness between tenants.

use std::{sync::Arc, time::Duration as Seconds};

use chrono::Duration;
use strongroom::{config::Config, db::jobs::JobState, domain::clock::Clock as _, jobs::Deduplicate, worker};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    harness::{Service, service_test, service_test_with},
    jobs::{count_jobs, enqueue, tenant_of},
};

/// A worker in this process.
pub(crate) struct Worker {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Worker {
    pub(crate) fn start(s: &Service, drain: Seconds) -> Self {
        let stop = CancellationToken::new();
        let work = worker::run_worker(Arc::clone(&s.app), drain, stop.clone());
        Self { stop, task: tokio::spawn(work) }
    }

    /// Signals the worker to stop. It drains in the returned task.
    pub(crate) fn start_shutdown(self) -> JoinHandle<()> {
        self.stop.cancel();
        self.task
    }

    pub(crate) async fn stop(self) {
        self.start_shutdown().await.unwrap();
    }
}

/// Blocks running jobs until `ROLLBACK`, because they wait for the table of files.
const BLOCK_JOBS: &str = "BEGIN; LOCK TABLE files IN ACCESS EXCLUSIVE MODE";

#[test]
fn worker_extends_its_lease_and_drops_job_after_losing_it() {
    service_test(|s| async move {
        let acme = tenant_of(&s.alice()).await;
        let replica = s.start_replica(|config| {
            // A lease of many heartbeats: a late heartbeat must find it.
            (config.worker.lease_seconds, config.worker.heartbeat_seconds) = (60, 1);
            config.worker.poll_max_milliseconds = 100;
        });
        let replica = replica.await;
        let lock = s.database.connect_as_superuser().await;
        lock.execute(BLOCK_JOBS).await;
        enqueue(&s, acme, Deduplicate::Never).await;
        let worker = Worker::start(&replica, Seconds::ZERO);
        s.wait_until("the job is running", || async { count_jobs(&s, JobState::Running).await == 1 }).await;
        s.clock.advance(Duration::seconds(2));
        let lease_expire_time = "SELECT extract(epoch FROM max(lease_expire_time)) FROM jobs";
        let expected = s.clock.now().timestamp() + 60;
        s.wait_until("a heartbeat extends the lease", || async {
            s.superuser.query_number(lease_expire_time).await == expected
        })
        .await;

        // Simulates a claim by another worker.
        s.superuser.execute("UPDATE jobs SET lease_epoch = 7, lease_expire_time = 'infinity'").await;
        let fenced = "strongroom_job_attempts_total{kind=\"delete_expired_files\",outcome=\"fenced\"}";
        s.wait_until("the worker drops the job", || async { replica.read_metric(fenced) == 1 }).await;
        assert_eq!(count_jobs(&s, JobState::Running).await, 1, "the row is unchanged");
        worker.stop().await;
        lock.execute("ROLLBACK").await;
        s.superuser.execute("DELETE FROM jobs").await;
        replica.stop().await;
    });
}

#[test]
fn stopped_worker_releases_unfinished_job() {
    service_test(|s| async move {
        let acme = tenant_of(&s.alice()).await;
        let lock = s.database.connect_as_superuser().await;
        lock.execute(BLOCK_JOBS).await;
        enqueue(&s, acme, Deduplicate::Never).await;
        let worker = Worker::start(&s, Seconds::ZERO);
        s.wait_until("the job is running", || async { count_jobs(&s, JobState::Running).await == 1 }).await;
        worker.stop().await;
        let row = "SELECT format('%s %s %s', state, attempts, lease_expire_time) FROM jobs";
        assert_eq!(
            s.superuser.query_texts(row).await,
            ["1 0 "],
            "the job is ready and the attempt is not counted"
        );
        lock.execute("ROLLBACK").await;

        let worker = Worker::start(&s, Seconds::from_secs(60));
        s.wait_until("the job is finished", || async {
            s.superuser.query_number("SELECT count(*) FROM finished_jobs").await == 1
        })
        .await;
        worker.stop().await;
    });
}

#[test]
fn tenant_with_many_jobs_does_not_block_others() {
    let one_at_a_time =
        |config: &mut Config| (config.worker.jobs_max, config.worker.tenant_jobs_max) = (1, 1);
    service_test_with(one_at_a_time, |s| async move {
        // The busy tenant has the lowest id and its jobs have been due for longer.
        let globex = tenant_of(&s.mallory()).await;
        let others = [tenant_of(&s.alice()).await, tenant_of(&s.pupil()).await];
        s.superuser
            .execute(&format!(
                "INSERT INTO jobs (tenant_id, id, payload, state, run_time, enqueue_time)
                 SELECT '{globex}', gen_random_uuid(), '{{\"kind\": \"delete_expired_files\"}}',
                     {{job_state.ready}},
                        now() - interval '1 day', now() FROM generate_series(1, 10000)"
            ))
            .await;
        for other in others {
            enqueue(&s, other, Deduplicate::Never).await;
        }
        let worker = Worker::start(&s, Seconds::from_secs(60));
        let unfinished = format!("SELECT count(*) FROM jobs WHERE tenant_id <> '{globex}'");
        s.wait_until("the jobs of the other tenants are finished", || async {
            s.superuser.query_number(&unfinished).await == 0
        })
        .await;
        let busy = s.superuser.query_number("SELECT count(*) FROM finished_jobs").await - 2;
        worker.stop().await;
        assert!(busy < 1_000, "{busy} jobs of the busy tenant ran first");
    });
}

#[test]
fn long_jobs_of_one_tenant_do_not_block_others() {
    service_test(|s| async move {
        let (acme, globex) = (tenant_of(&s.alice()).await, tenant_of(&s.mallory()).await);
        let lock = s.database.connect_as_superuser().await;
        lock.execute(BLOCK_JOBS).await;
        for _ in 0..10 {
            enqueue(&s, acme, Deduplicate::Never).await;
        }
        let worker = Worker::start(&s, Seconds::from_secs(60));
        s.wait_until("two jobs are running", || async { count_jobs(&s, JobState::Running).await == 2 }).await;
        enqueue(&s, globex, Deduplicate::Never).await;
        s.wait_until("three jobs are running", || async { count_jobs(&s, JobState::Running).await == 3 })
            .await;
        let running_of_acme =
            format!("SELECT count(*) FROM jobs WHERE state = {{job_state.running}} AND tenant_id = '{acme}'");
        assert_eq!(s.superuser.query_number(&running_of_acme).await, 2);
        lock.execute("ROLLBACK").await;
        let finished =
            || async { s.superuser.query_number("SELECT count(*) FROM finished_jobs").await == 11 };
        s.wait_until("all jobs are finished", finished).await;
        worker.stop().await;
    });
}
