//! The sweeper where stores, names and databases do not stand in the usual one-to-one.

use chrono::Duration;
use strongroom::{
    app::integrity::sweep::{SweepOptions, sweep_stores},
    config::provider::ProviderConfig,
    storage::AdapterOptions,
};

use crate::{
    harness::{Site, file_id, service_test, service_test_in, spec},
    sweep::{GRACE, counts, is_there, orphan, swept, swept_with},
};

#[test]
fn a_store_that_two_names_mean_keeps_what_rows_call_by_either() {
    let root = tempfile::tempdir().unwrap();
    let arrange = |site: &mut Site| {
        site.config.storage.providers.clear();
        for name in ["former", "present"] {
            site.config.storage.set_primary_provider(name, ProviderConfig::Memory);
        }
        site.storage.adapter = AdapterOptions::Local { root: root.path().to_owned() };
    };
    service_test_in(None, arrange, |s| async move {
        let before = s.replica(|config| config.storage.provider = "former".to_owned()).await;
        let former = file_id(&before.alice().upload(spec("a"), b"former").await.unwrap());
        before.stopped().await;
        let present = file_id(&s.alice().upload(spec("b"), b"present").await.unwrap());
        let orphan = orphan(&s).await;
        for _ in 0..3 {
            s.clock.advance(GRACE * 2);
            for report in sweep_stores(&s.app, SweepOptions::from_config(&s.app)).await.unwrap() {
                assert_eq!((report.listed_objects > 1, report.problems.len()), (true, 0), "{report:?}");
            }
        }
        assert!(!is_there(&s, &orphan).await);
        assert_eq!(s.alice().read(&former).await.unwrap(), "former");
        assert_eq!(s.alice().read(&present).await.unwrap(), "present");
    });
}

#[test]
fn a_sweep_that_loses_its_lock_removes_nothing_more_and_still_reports() {
    service_test(|s| async move {
        let orphan = orphan(&s).await;
        s.clock.advance(GRACE);
        swept(&s).await;
        s.clock.advance(GRACE);
        // The round has listed and waits before it removes.
        s.owner.run("BEGIN; LOCK TABLE sweep_candidates IN ACCESS EXCLUSIVE MODE").await;
        let app = s.app.clone();
        let round =
            tokio::spawn(async move { sweep_stores(&app, SweepOptions::from_config(&app)).await.unwrap() });
        let waiting = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                       WHERE d.datname = current_database() AND NOT l.granted";
        s.until("the round waits", || async { s.owner.number(waiting).await > 0 }).await;
        let ended = "SELECT count(pg_terminate_backend(l.pid)) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                     WHERE d.datname = current_database() AND l.locktype = 'advisory'";
        assert_eq!(s.owner.number(ended).await, 1);
        s.owner.run("COMMIT").await;
        let report = round.await.unwrap().remove(0);
        assert!(report.problems[0].contains("lock of this sweep was lost"), "{report:?}");
        assert_eq!((counts(&report), report.waiting.count), ((0, 0), 1));
        assert!(is_there(&s, &orphan).await);
        assert_eq!(counts(&swept(&s).await), (0, 1));
    });
}

#[test]
fn a_database_that_does_not_know_most_of_what_was_stored_lately_removes_nothing_unless_it_is_trusted() {
    service_test(|s| async move {
        s.alice().upload(spec("a"), b"known").await.unwrap();
        s.clock.advance(Duration::days(10));
        for _ in 0..21 {
            orphan(&s).await;
        }
        for found in [21, 0] {
            s.clock.advance(GRACE * 2);
            let report = swept(&s).await;
            assert_eq!((counts(&report), report.waiting.count), ((found, 0), 21));
            assert!(report.problems[0].contains("another database"), "{report:?}");
        }
        let trusting = SweepOptions { is_database_trusted: true, ..SweepOptions::from_config(&s.app) };
        let report = swept_with(&s, trusting).await;
        assert_eq!((counts(&report), report.problems.len()), ((0, 21), 0));
    });
}
