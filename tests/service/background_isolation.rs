//! A store that hangs or fails stops only the work on that store, and for a bounded time. The other ticks go on,
//! and so does the work on other stores.

use std::time::Duration as Seconds;

use strongroom::{
    app::storage::{
        breakers::report_breakers, delete_due_blobs::delete_due_blobs_in, status::list_provider_statuses,
    },
    config::{Config, provider::ProviderConfig},
    db::schedules,
    domain::breaker::BreakerState,
    proto::v1::UploadSpec,
    storage::{
        StorageErrorKind,
        flaky::{Fault, Operation, Plan},
    },
    worker::{self, schedule::run_due_ticks, tick::Tick},
};

use crate::{
    harness::{Service, file_id, service_test_with, spec},
    workers::Worker,
};

/// The provider whose calls have faults, and one without.
const FAULTY: &str = "faulty";
const HEALTHY: &str = "healthy";

fn configure_two_stores(config: &mut Config) {
    config.storage.providers.clear();
    config.storage.set_primary_provider(HEALTHY, ProviderConfig::Memory);
    config.storage.set_primary_provider(FAULTY, ProviderConfig::Memory);
    // Long enough for a tick that does not hang, also on a busy machine.
    (config.worker.tick_seconds, config.worker.tick_deadline_seconds) = (1, 3);
}

/// Uploads a file to each store and purges both, so that their objects are due for deletion.
async fn purge_a_file_of_each_store(s: &Service) {
    let other = s.start_replica(|config| config.storage.provider = HEALTHY.to_owned()).await;
    for service in [s, &other] {
        let alice = service.alice();
        let id = file_id(&alice.upload(spec("a"), b"x").await.unwrap());
        alice.purge(&id).await.unwrap();
    }
    other.stop().await;
    s.clock.advance(chrono::Duration::hours(73));
}

async fn count_objects(s: &Service, provider: &str) -> usize {
    s.stores.get(provider).unwrap().list("", None, 10).await.unwrap().objects.len()
}

fn hang() -> Plan {
    Plan::new()
        .with_fault_in_all(Operation::Delete, Fault::Hang)
        .with_fault_in_all(Operation::AbortMultipart, Fault::Hang)
}

#[test]
fn hanging_store_stops_only_work_on_that_store() {
    service_test_with(configure_two_stores, |s| async move {
        purge_a_file_of_each_store(&s).await;
        let upload = UploadSpec { size_bytes: Some(200_000), ..spec("open") };
        s.alice().create_upload(upload).await.unwrap();
        assert_eq!(s.alice().quota().await.unwrap().reserved_bytes, 200_000);
        s.clock.advance(chrono::Duration::hours(25));
        s.faults.set_plan(hang());
        let worker = Worker::start(&s, Seconds::from_secs(60));
        s.wait_until("the work on the other store is done", || async {
            count_objects(&s, HEALTHY).await == 0
        })
        .await;
        s.wait_until("the reservation of the expired upload is released", || async {
            s.superuser.query_number("SELECT sum(reserved_bytes) FROM quotas").await == 0
        })
        .await;
        for tick in ["delete_blobs", "delete_expired_uploads"] {
            let cancelled = format!(
                "strongroom_ticks_total{{outcome=\"timed_out\",provider=\"{FAULTY}\",tick=\"{tick}\"}}"
            );
            s.wait_until("the tick is cancelled at its deadline", || async { s.read_metric(&cancelled) > 0 })
                .await;
        }
        assert_eq!(count_objects(&s, FAULTY).await, 1);

        // Nothing was lost: the work is done when the store responds again.
        s.faults.set_plan(Plan::new());
        s.clock.advance(chrono::Duration::minutes(2));
        s.wait_until("the objects and the upload are deleted", || async {
            let uploads = s.superuser.query_number("SELECT count(*) FROM uploads").await;
            let blobs = s.superuser.query_number("SELECT count(*) FROM blobs").await;
            (uploads, blobs, count_objects(&s, FAULTY).await) == (0, 0, 0)
        })
        .await;
        worker.stop().await;
    });
}

/// A blob of any size can be read and copied.
#[test]
fn work_on_blobs_has_no_deadline() {
    service_test_with(configure_two_stores, |s| async move {
        purge_a_file_of_each_store(&s).await;
        s.upload_files(&["a"]).await;
        s.clock.advance(chrono::Duration::seconds(1));
        s.faults.set_plan(hang().with_fault_in_all(Operation::Get, Fault::Hang));
        let worker = Worker::start(&s, Seconds::ZERO);
        s.wait_until("an object is read", || async { s.faults.call_count(Operation::Get) > 0 }).await;
        let cancelled = |tick: &str| {
            let name = format!(
                "strongroom_ticks_total{{outcome=\"timed_out\",provider=\"{FAULTY}\",tick=\"{tick}\"}}"
            );
            s.read_metric(&name)
        };
        // The second run of the other tick begins after the read.
        for count in [1, 2] {
            s.wait_until("the other tick is cancelled", || async { cancelled("delete_blobs") >= count })
                .await;
            s.clock.advance(chrono::Duration::minutes(2));
        }
        assert_eq!(cancelled("scrub"), 0);
        s.faults.set_plan(Plan::new());
        worker.stop().await;
    });
}

#[test]
fn tick_that_never_ends_grows_old() {
    service_test_with(configure_two_stores, |s| async move {
        purge_a_file_of_each_store(&s).await;
        s.faults.set_plan(hang());
        let worker = Worker::start(&s, Seconds::from_secs(60));
        let cancelled = format!(
            "strongroom_ticks_total{{outcome=\"timed_out\",provider=\"{FAULTY}\",tick=\"delete_blobs\"}}"
        );
        s.wait_until("the tick is cancelled", || async { s.read_metric(&cancelled) > 0 }).await;
        s.clock.advance(chrono::Duration::hours(1));
        let age = |provider: &str| {
            let name =
                format!("strongroom_tick_age_seconds{{provider=\"{provider}\",tick=\"delete_blobs\"}}");
            s.read_metric(&name)
        };
        s.wait_until("the age of the tick shows that it is late", || async {
            age(FAULTY) >= 3_600 && age(HEALTHY) < 3_600
        })
        .await;
        s.faults.set_plan(Plan::new());
        s.clock.advance(chrono::Duration::minutes(2));
        s.wait_until("the tick has ended", || async { age(FAULTY) < 3_600 }).await;
        worker.stop().await;
    });
}

#[test]
fn cancelled_tick_has_not_ended() {
    service_test_with(configure_two_stores, |s| async move {
        purge_a_file_of_each_store(&s).await;
        s.faults.set_plan(hang());
        // The age begins with the first claim.
        run_due_ticks(&s.app, &[Tick::DeleteBlobs]).await;
        s.clock.advance(chrono::Duration::hours(1));
        run_due_ticks(&s.app, &[Tick::DeleteBlobs]).await;
        let cancelled = format!(
            "strongroom_ticks_total{{outcome=\"timed_out\",provider=\"{FAULTY}\",tick=\"delete_blobs\"}}"
        );
        assert_eq!(s.read_metric(&cancelled), 2);
        let mut tx = s.db.system_tx().await.unwrap();
        let ages = schedules::list_ages(&mut tx, &["delete_blobs/faulty"]).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(ages.iter().map(|tick| tick.age_seconds).collect::<Vec<_>>(), [3_600.0]);
        s.faults.set_plan(Plan::new());
    });
}

#[test]
fn failing_store_opens_its_breaker() {
    let configure = |config: &mut Config| {
        configure_two_stores(config);
        config.worker.breaker_failures_max = 2;
        // Not in this test: the breaker probes the store only after this pause.
        config.worker.breaker_backoff_base_seconds = 3_600;
        config.worker.breaker_backoff_max_seconds = 3_600;
    };
    service_test_with(configure, |s| async move {
        purge_a_file_of_each_store(&s).await;
        let down = Fault::Before(StorageErrorKind::Unavailable);
        s.faults.set_plan(Plan::new().with_fault_in_all(Operation::Delete, down));
        for _ in 0..4 {
            delete_due_blobs_in(&s.app, FAULTY).await.unwrap();
        }
        assert_eq!(s.faults.call_count(Operation::Delete), 2, "an open breaker leaves the store alone");
        assert_eq!(delete_due_blobs_in(&s.app, HEALTHY).await.unwrap().done, 1);

        report_breakers(&s.app).await.unwrap();
        let statuses = list_provider_statuses(&s.db, &s.stores, s.app.owners()).await.unwrap();
        let breakers: Vec<_> = statuses
            .iter()
            .map(|status| (status.name.as_str(), status.breaker.clone().unwrap()))
            .map(|(name, breaker)| (name, breaker.state, breaker.open_process_count, breaker.process_count))
            .collect();
        let expected = [(FAULTY, BreakerState::Open, 1, 1), (HEALTHY, BreakerState::Closed, 0, 1)];
        assert_eq!(breakers, expected);
        let error = &statuses[0].breaker.as_ref().unwrap().last_error;
        assert!(error.contains("store is unavailable"), "{error}");
        let level =
            |provider| s.read_metric(&format!("strongroom_storage_breaker_state{{provider=\"{provider}\"}}"));
        assert_eq!((level(FAULTY), level(HEALTHY)), (2, 0));

        // Requests of clients do not use the breaker.
        let id = file_id(&s.alice().upload(spec("b"), b"x").await.unwrap());
        assert_eq!(s.alice().read(&id).await.unwrap(), "x");
    });
}

#[test]
fn hanging_store_delays_no_other_tick() {
    let configure = |config: &mut Config| {
        configure_two_stores(config);
        // Nothing is cancelled in this test.
        (config.worker.tick_deadline_seconds, config.worker.store_call_seconds_max) = (86_400, 3_600);
    };
    service_test_with(configure, |s| async move {
        purge_a_file_of_each_store(&s).await;
        s.faults.set_plan(hang());
        let worker = Worker::start(&s, Seconds::from_secs(60));
        s.wait_until("the work on the other store is done", || async {
            count_objects(&s, HEALTHY).await == 0
        })
        .await;
        assert_eq!(count_objects(&s, FAULTY).await, 1);
        worker.stop().await;
        s.faults.set_plan(Plan::new());
    });
}

#[test]
fn report_of_ended_process_does_not_count() {
    service_test_with(configure_two_stores, |s| async move {
        let process_count = || async {
            let statuses = list_provider_statuses(&s.db, &s.stores, s.app.owners()).await.unwrap();
            statuses[0].breaker.as_ref().map(|breaker| breaker.process_count)
        };
        report_breakers(&s.app).await.unwrap();
        assert_eq!(process_count().await, Some(1));
        s.clock.advance(chrono::Duration::seconds(61));
        assert_eq!(process_count().await, None);
    });
}

#[test]
fn reservations_are_released_while_a_breaker_is_open() {
    let configure = |config: &mut Config| {
        configure_two_stores(config);
        config.worker.breaker_failures_max = 1;
        // Not in this test: the breaker probes the store only after this pause.
        config.worker.breaker_backoff_base_seconds = 3_600;
        config.worker.breaker_backoff_max_seconds = 3_600;
    };
    service_test_with(configure, |s| async move {
        purge_a_file_of_each_store(&s).await;
        let upload = UploadSpec { size_bytes: Some(200_000), ..spec("open") };
        s.alice().create_upload(upload).await.unwrap();
        s.clock.advance(chrono::Duration::hours(25));
        let down = Fault::Before(StorageErrorKind::Unavailable);
        s.faults.set_plan(Plan::new().with_fault_in_all(Operation::Delete, down));
        delete_due_blobs_in(&s.app, FAULTY).await.unwrap();
        worker::run_round(&s.app).await;
        assert_eq!(s.superuser.query_number("SELECT sum(reserved_bytes) FROM quotas").await, 0);
        assert_eq!(
            s.superuser.query_number("SELECT count(*) FROM uploads").await,
            1,
            "its bytes are not deleted"
        );
        for open in s.store.list_multiparts("", None, 10).await.unwrap().multiparts {
            s.store.abort_multipart(&open.key, &open.id).await.unwrap();
        }
    });
}
