//! The sweeper where stores, names and databases do not stand in the usual one-to-one.

use strongroom::{
    app::integrity::sweep::{SweepOptions, sweep},
    config::provider::ProviderConfig,
    storage::AdapterOptions,
};

use crate::{
    harness::{Site, file_id, service_test_in, spec},
    sweep::{GRACE, is_there, orphan},
};

#[test]
fn a_store_that_two_names_mean_keeps_what_rows_call_by_either() {
    let root = tempfile::tempdir().unwrap();
    let arrange = |site: &mut Site| {
        site.config.storage.providers.clear();
        for name in ["former", "present"] {
            site.config.storage.write_to(name, ProviderConfig::Memory);
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
            for report in sweep(&s.app, SweepOptions::configured(&s.app)).await.unwrap() {
                assert_eq!((report.listed_objects > 1, report.problems.len()), (true, 0), "{report:?}");
            }
        }
        assert!(!is_there(&s, &orphan).await);
        assert_eq!(s.alice().read(&former).await.unwrap(), "former");
        assert_eq!(s.alice().read(&present).await.unwrap(), "present");
    });
}
