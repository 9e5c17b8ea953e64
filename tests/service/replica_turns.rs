//! Copies to the replica provider are made by turns of tenants and providers: a tenant with many pending blobs, or a
//! provider that fails, delays no others. Copies of any duration are made.

use bytes::Bytes;
use chrono::Duration;
use strongroom::{
    config::{Config, provider::ProviderConfig},
    db::stray_objects::{self, StrayObject},
    domain::ids::TenantId,
    storage::{
        PutOptions, StorageErrorKind,
        flaky::{Fault, Operation, Plan},
    },
    worker::{schedule::run_ticks_now, tick::Tick},
};

use crate::{
    harness::{file_id, pattern, service_test_with, spec},
    replica::{CLAIM, COPIES, configure_copies, list_keys, repair, replicate},
    scrub::{scrub, upload_file},
};

/// A provider beside the primary one, whose calls have no faults.
const OTHER: &str = "other";

const MANY: usize = 30;

/// Breakers that the first failure opens for a long time.
fn configure_breakers(config: &mut Config) {
    config.worker.breaker_failures_max = 1;
    (config.worker.breaker_backoff_base_seconds, config.worker.breaker_backoff_max_seconds) = (3_600, 3_600);
}

#[test]
fn many_blobs_of_one_tenant_delay_no_other_tenant() {
    service_test_with(configure_copies, |s| async move {
        for _ in 0..MANY {
            upload_file(&s, 10).await;
        }
        s.mallory().upload(spec("late"), &pattern(77)).await.unwrap();
        let copied = "SELECT count(*) FROM blobs WHERE replica_key IS NOT NULL";
        let late = "SELECT count(*) FROM blobs WHERE replica_key IS NOT NULL AND size_bytes = 77";
        replicate(&s).await;
        assert_eq!(s.superuser.query_number(late).await, 1);
        assert!(s.superuser.query_number(copied).await > 1, "the other tenant has turns too");
        while replicate(&s).await > 0 {}
        assert_eq!(s.superuser.query_number(copied).await, MANY as i64 + 1);
    });
}

#[test]
fn many_damaged_blobs_of_one_tenant_delay_no_other_tenant() {
    service_test_with(configure_copies, |s| async move {
        s.allow_logged_errors();
        for _ in 0..MANY {
            upload_file(&s, 10).await;
        }
        let late = file_id(&s.mallory().upload(spec("late"), &pattern(77)).await.unwrap());
        while replicate(&s).await > 0 {}
        for key in list_keys(&s, "main").await {
            s.store.delete(&key).await.unwrap();
        }
        s.clock.advance(Duration::seconds(1));
        assert_eq!(scrub(&s).await, 2 * (MANY + 1), "the originals are missing, and the copies are intact");
        repair(&s).await;
        assert_eq!(s.mallory().read(&late).await.unwrap(), pattern(77));
        while repair(&s).await > 0 {}
        let lost = "SELECT count(*) FROM versions WHERE state_reason IS NOT NULL";
        assert_eq!(s.superuser.query_number(lost).await, 0);
    });
}

#[test]
fn blobs_of_a_failing_provider_wait_for_its_breaker() {
    let configure = |config: &mut Config| {
        configure_copies(config);
        config.storage.providers.insert(OTHER.to_owned(), ProviderConfig::Memory);
        configure_breakers(config);
    };
    service_test_with(configure, |s| async move {
        for _ in 0..3 {
            upload_file(&s, 10).await;
        }
        let other = s.start_replica(|config| config.storage.provider = OTHER.to_owned()).await;
        other.alice().upload(spec("b"), &pattern(20)).await.unwrap();
        other.stop().await;
        let down = Fault::Before(StorageErrorKind::Unavailable);
        s.faults.set_plan(Plan::new().with_fault_in_all(Operation::Get, down));
        for round in 0..3 {
            assert_eq!(replicate(&s).await, usize::from(round == 0), "only the blob of the other provider");
            assert_eq!(s.faults.call_count(Operation::Get), 1, "the breaker is open");
            let attempts = "SELECT count(*) FROM stray_objects";
            assert_eq!(s.superuser.query_number(attempts).await, 1, "a blob that waits is not attempted");
            s.clock.advance(CLAIM);
        }
        assert_eq!(s.superuser.query_number("SELECT sum(failure_count) FROM blob_claims").await, 0);
        s.faults.set_plan(Plan::new());
        run_ticks_now(&s.app, &[Tick::DeleteStrayObjects]).await;
    });
}

#[test]
fn repair_waits_for_the_breaker_of_the_copy() {
    let configure = |config: &mut Config| {
        configure_copies(config);
        configure_breakers(config);
        // The copies are in the store with faults.
        config.storage.replica_provider = Some("main".to_owned());
        config.storage.providers.insert(OTHER.to_owned(), ProviderConfig::Memory);
    };
    service_test_with(configure, |s| async move {
        s.allow_logged_errors();
        let other = s.start_replica(|config| config.storage.provider = OTHER.to_owned()).await;
        let id = upload_file(&other, 10).await;
        other.stop().await;
        assert_eq!(replicate(&s).await, 1);
        let lost = list_keys(&s, OTHER).await.remove(0);
        s.stores.get(OTHER).unwrap().delete(&lost).await.unwrap();
        s.clock.advance(Duration::seconds(1));
        scrub(&s).await;
        let down = Fault::Before(StorageErrorKind::Unavailable);
        s.faults.set_plan(Plan::new().with_fault_in_all(Operation::ReadMetadata, down));
        for _ in 0..3 {
            assert_eq!(repair(&s).await, 0);
            assert_eq!(s.faults.call_count(Operation::ReadMetadata), 1);
            let attempts = "SELECT count(*) FROM stray_objects";
            assert_eq!(s.superuser.query_number(attempts).await, 1, "a blob that waits is not attempted");
            s.clock.advance(CLAIM);
        }
        s.faults.set_plan(Plan::new());
        let again = s.start_replica(|_| {}).await;
        assert_eq!(repair(&again).await, 1, "the breaker of another process is closed");
        assert_eq!(again.alice().read(&id).await.unwrap(), pattern(10));
        again.stop().await;
    });
}

#[test]
fn copy_in_progress_is_kept_for_longer_than_a_day() {
    service_test_with(configure_copies, |s| async move {
        upload_file(&s, 10).await;
        let tenant: TenantId = s.alice().tenant_id().await.parse().unwrap();
        let key = list_keys(&s, "main").await.remove(0);
        let copies = s.stores.get(COPIES).unwrap();
        copies.put(&key, Bytes::from_static(b"x").into(), &PutOptions::default()).await.unwrap();
        let provider = COPIES.to_owned();
        let copy = StrayObject { tenant, provider, key, may_be_unfinished: true, size_bytes: 0 };
        let mut tx = s.db.system_tx().await.unwrap();
        stray_objects::insert(&mut tx, &copy, 24).await.unwrap();
        tx.commit().await.unwrap();
        for _ in 0..3 {
            s.clock.advance(Duration::hours(20));
            let mut tx = s.db.system_tx().await.unwrap();
            stray_objects::postpone(&mut tx, &copy, 24).await.unwrap();
            tx.commit().await.unwrap();
            run_ticks_now(&s.app, &[Tick::DeleteStrayObjects]).await;
            assert_eq!(list_keys(&s, COPIES).await.len(), 1, "the copy goes on");
        }
        s.clock.advance(Duration::hours(25));
        run_ticks_now(&s.app, &[Tick::DeleteStrayObjects]).await;
        assert!(list_keys(&s, COPIES).await.is_empty(), "the process of the copy has ended");
    });
}
