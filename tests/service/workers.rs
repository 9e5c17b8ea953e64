//! Workers as they run: what they keep alive, drop and give back, and whose turn it is.

use std::{sync::Arc, time::Duration as Seconds};

use chrono::Duration;
use strongroom::{config::Config, db::jobs::JobState, domain::clock::Clock as _, jobs::Deduplicate, worker};
use tokio::{sync::oneshot, task::JoinHandle};

use crate::{
    harness::{Service, service_test, service_test_with},
    jobs::{ask, count, tenant},
};

/// A worker in this process.
pub(crate) struct Worker {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Worker {
    pub(crate) fn start(s: &Service, drain: Seconds) -> Self {
        let (stop, stopped) = oneshot::channel();
        let work = worker::run_worker(Arc::clone(&s.app), drain, async {
            let _ = stopped.await;
        });
        Self { stop, task: tokio::spawn(work) }
    }

    /// Tells it to stop; it drains in this task.
    pub(crate) fn told(self) -> JoinHandle<()> {
        self.stop.send(()).unwrap();
        self.task
    }

    pub(crate) async fn stop(self) {
        self.told().await.unwrap();
    }
}

/// Lets jobs hang in the middle, until `ROLLBACK`: they wait for their files.
const HOLD: &str = "BEGIN; LOCK TABLE files IN ACCESS EXCLUSIVE MODE";

#[test]
fn a_worker_that_lost_its_lease_drops_the_job_and_one_that_has_it_keeps_it_alive() {
    service_test(|s| async move {
        let acme = tenant(&s.alice()).await;
        let quick = s.replica(|config| {
            (config.worker.lease_seconds, config.worker.heartbeat_seconds) = (3, 1);
            config.worker.poll_max_milliseconds = 100;
        });
        let quick = quick.await;
        let lock = s.database.owner().await;
        lock.run(HOLD).await;
        ask(&s, acme, Deduplicate::Never).await;
        let worker = Worker::start(&quick, Seconds::ZERO);
        s.until("it runs", || async { count(&s, JobState::Running).await == 1 }).await;
        s.clock.advance(Duration::seconds(2));
        let left = "SELECT extract(epoch FROM max(lease_expire_time)) FROM jobs";
        let until = s.clock.now().timestamp() + 3;
        s.until("a heartbeat comes", || async { s.owner.number(left).await == until }).await;

        // Another worker has it, says the row.
        s.owner.run("UPDATE jobs SET lease_epoch = 7, lease_expire_time = 'infinity'").await;
        let fenced = "strongroom_job_attempts_total{kind=\"delete_expired_files\",outcome=\"fenced\"}";
        s.until("it is dropped", || async { quick.metric(fenced) == 1 }).await;
        assert_eq!(count(&s, JobState::Running).await, 1, "nothing was said about it");
        worker.stop().await;
        lock.run("ROLLBACK").await;
        s.owner.run("DELETE FROM jobs").await;
        quick.stopped().await;
    });
}

#[test]
fn a_worker_that_is_told_to_stop_gives_back_what_does_not_end_in_time() {
    service_test(|s| async move {
        let acme = tenant(&s.alice()).await;
        let lock = s.database.owner().await;
        lock.run(HOLD).await;
        ask(&s, acme, Deduplicate::Never).await;
        let worker = Worker::start(&s, Seconds::ZERO);
        s.until("it runs", || async { count(&s, JobState::Running).await == 1 }).await;
        worker.stop().await;
        let row = "SELECT format('%s %s %s', state, attempts, lease_expire_time) FROM jobs";
        assert_eq!(s.owner.texts(row).await, ["1 0 "], "ready, and the attempt does not count");
        lock.run("ROLLBACK").await;

        let worker = Worker::start(&s, Seconds::from_secs(60));
        s.until("it is done", || async { s.owner.number("SELECT count(*) FROM finished_jobs").await == 1 })
            .await;
        worker.stop().await;
    });
}

#[test]
fn a_tenant_with_ten_thousand_jobs_does_not_keep_the_others_waiting() {
    let one_at_a_time =
        |config: &mut Config| (config.worker.jobs_max, config.worker.tenant_jobs_max) = (1, 1);
    service_test_with(one_at_a_time, |s| async move {
        // The busy one comes first, in the order of ids too, and its jobs have been due for longer.
        let globex = tenant(&s.mallory()).await;
        let others = [tenant(&s.alice()).await, tenant(&s.pupil()).await];
        s.owner
            .run(&format!(
                "INSERT INTO jobs (tenant_id, id, payload, state, run_time, enqueue_time)
                 SELECT '{globex}', gen_random_uuid(), '{{\"kind\": \"delete_expired_files\"}}', 1,
                        now() - interval '1 day', now() FROM generate_series(1, 10000)"
            ))
            .await;
        for other in others {
            ask(&s, other, Deduplicate::Never).await;
        }
        let worker = Worker::start(&s, Seconds::from_secs(60));
        let waiting = format!("SELECT count(*) FROM jobs WHERE tenant_id <> '{globex}'");
        s.until("the others are done", || async { s.owner.number(&waiting).await == 0 }).await;
        let busy = s.owner.number("SELECT count(*) FROM finished_jobs").await - 2;
        worker.stop().await;
        assert!(busy < 1_000, "{busy} of the busy tenant's jobs came first");
    });
}

#[test]
fn long_jobs_of_one_tenant_leave_room_for_others() {
    service_test(|s| async move {
        let (acme, globex) = (tenant(&s.alice()).await, tenant(&s.mallory()).await);
        let lock = s.database.owner().await;
        lock.run(HOLD).await;
        for _ in 0..10 {
            ask(&s, acme, Deduplicate::Never).await;
        }
        let worker = Worker::start(&s, Seconds::from_secs(60));
        s.until("two run", || async { count(&s, JobState::Running).await == 2 }).await;
        ask(&s, globex, Deduplicate::Never).await;
        s.until("three run", || async { count(&s, JobState::Running).await == 3 }).await;
        let of_acme = format!("SELECT count(*) FROM jobs WHERE state = 2 AND tenant_id = '{acme}'");
        assert_eq!(s.owner.number(&of_acme).await, 2);
        lock.run("ROLLBACK").await;
        let finished = || async { s.owner.number("SELECT count(*) FROM finished_jobs").await == 11 };
        s.until("all are done", finished).await;
        worker.stop().await;
    });
}
