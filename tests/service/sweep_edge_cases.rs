//! Sweeps with unusual setups: two providers for one store, a lost lock, and a database that does not match
//! the store.

use chrono::Duration;
use strongroom::{
    app::integrity::sweep::{SweepOptions, sweep_stores},
    config::provider::ProviderConfig,
    storage::AdapterOptions,
};

use crate::{
    harness::{Setup, file_id, service_test, service_test_in, spec},
    sweep::{GRACE, counts, object_exists, put_orphan, run_sweep, run_sweep_with},
};

#[test]
fn store_with_two_provider_names_keeps_objects_of_both() {
    let root = tempfile::tempdir().unwrap();
    let arrange = |setup: &mut Setup| {
        setup.config.storage.providers.clear();
        for name in ["former", "present"] {
            setup.config.storage.set_primary_provider(name, ProviderConfig::Memory);
        }
        setup.storage.adapter = AdapterOptions::Local { root: root.path().to_owned() };
    };
    service_test_in(None, arrange, |s| async move {
        let before = s.start_replica(|config| config.storage.provider = "former".to_owned()).await;
        let former = file_id(&before.alice().upload(spec("a"), b"former").await.unwrap());
        before.stop().await;
        let present = file_id(&s.alice().upload(spec("b"), b"present").await.unwrap());
        let orphan = put_orphan(&s).await;
        for _ in 0..3 {
            s.clock.advance(GRACE * 2);
            for report in sweep_stores(&s.app, SweepOptions::from_config(&s.app)).await.unwrap() {
                assert_eq!((report.listed_objects > 1, report.problems.len()), (true, 0), "{report:?}");
            }
        }
        assert!(!object_exists(&s, &orphan).await);
        assert_eq!(s.alice().read(&former).await.unwrap(), "former");
        assert_eq!(s.alice().read(&present).await.unwrap(), "present");
    });
}

#[test]
fn sweep_that_loses_its_lock_deletes_nothing_more() {
    service_test(|s| async move {
        let orphan = put_orphan(&s).await;
        s.clock.advance(GRACE);
        run_sweep(&s).await;
        s.clock.advance(GRACE);
        // Blocks the round after it listed the objects and before it deletes them.
        s.superuser.execute("BEGIN; LOCK TABLE sweep_candidates IN ACCESS EXCLUSIVE MODE").await;
        let app = s.app.clone();
        let round =
            tokio::spawn(async move { sweep_stores(&app, SweepOptions::from_config(&app)).await.unwrap() });
        let waiting = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                       WHERE d.datname = current_database() AND NOT l.granted";
        s.wait_until("the round waits", || async { s.superuser.query_number(waiting).await > 0 }).await;
        let terminated = "SELECT count(pg_terminate_backend(l.pid)) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                     WHERE d.datname = current_database() AND l.locktype = 'advisory'";
        assert_eq!(s.superuser.query_number(terminated).await, 1);
        let held = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                    WHERE d.datname = current_database() AND l.locktype = 'advisory'";
        s.wait_until("the lock is lost", || async { s.superuser.query_number(held).await == 0 }).await;
        s.superuser.execute("COMMIT").await;
        let report = round.await.unwrap().remove(0);
        assert!(report.problems[0].contains("lock of this sweep was lost"), "{report:?}");
        assert_eq!((counts(&report), report.waiting.count), ((0, 0), 1));
        assert!(object_exists(&s, &orphan).await);
        assert_eq!(counts(&run_sweep(&s).await), (0, 1));
    });
}

#[test]
fn sweep_refuses_database_without_most_recent_objects() {
    service_test(|s| async move {
        s.alice().upload(spec("a"), b"known").await.unwrap();
        s.clock.advance(Duration::days(10));
        for _ in 0..21 {
            put_orphan(&s).await;
        }
        for found in [21, 0] {
            s.clock.advance(GRACE * 2);
            let report = run_sweep(&s).await;
            assert_eq!((counts(&report), report.waiting.count), ((found, 0), 21));
            assert!(report.problems[0].contains("another database"), "{report:?}");
        }
        let trusted = SweepOptions { is_database_trusted: true, ..SweepOptions::from_config(&s.app) };
        let report = run_sweep_with(&s, trusted).await;
        assert_eq!((counts(&report), report.problems.len()), ((0, 21), 0));
    });
}
