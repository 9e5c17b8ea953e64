//! Several providers side by side: a file stays where it was written, whatever new bytes go to.

use strongroom::{
    config::{Config, provider::ProviderConfig},
    storage::{
        StorageErrorKind,
        flaky::{Fault, Operation, Plan},
    },
    worker,
};
use tonic::Code;

use crate::harness::{Caller, PART, Service, file_id, reason, service_test_with, spec, upload_messages};

fn old_and_new(config: &mut Config) {
    config.storage.providers.clear();
    config.storage.set_primary_provider("old", ProviderConfig::Memory);
    config.storage.set_primary_provider("new", ProviderConfig::Memory);
}

async fn stored(caller: &Caller, name: &str, size: usize) -> String {
    file_id(&caller.upload(spec(name), &vec![b'a'; size]).await.unwrap())
}

async fn objects(s: &Service, provider: &str) -> usize {
    s.stores.get(provider).unwrap().list("", None, 10).await.unwrap().objects.len()
}

/// Two files on the provider that new bytes went to before, one of them in parts.
async fn of_before(s: &Service) -> [String; 2] {
    let before = s.replica(|config| config.storage.provider = "old".to_owned()).await;
    let alice = before.alice();
    let ids = [stored(&alice, "small", 10).await, stored(&alice, "large", 2 * PART + 1).await];
    before.stopped().await;
    ids
}

#[test]
fn files_of_the_provider_of_before_are_readable_beside_new_ones() {
    service_test_with(old_and_new, |s| async move {
        let [small, large] = of_before(&s).await;
        let alice = s.alice();
        let recent = stored(&alice, "recent", 3 * PART).await;
        assert_eq!((objects(&s, "old").await, objects(&s, "new").await), (2, 1));
        for (id, size) in [(small, 10), (large, 2 * PART + 1), (recent, 3 * PART)] {
            assert_eq!(alice.read(&id).await.unwrap().len(), size);
        }
    });
}

#[test]
fn a_purged_file_is_deleted_from_the_provider_that_holds_it() {
    service_test_with(old_and_new, |s| async move {
        let [small, large] = of_before(&s).await;
        let alice = s.alice();
        let recent = stored(&alice, "recent", 10).await;
        for id in [small, recent] {
            alice.purge(&id).await.unwrap();
        }
        s.clock.advance(chrono::Duration::hours(73));
        assert!(worker::run_round(&s.app).await > 0);
        assert_eq!((objects(&s, "old").await, objects(&s, "new").await), (1, 0));
        assert_eq!(s.alice().read(&large).await.unwrap().len(), 2 * PART + 1);
    });
}

#[test]
fn an_upload_that_was_left_behind_on_the_provider_of_before_is_given_up_there() {
    service_test_with(old_and_new, |s| async move {
        let before = s.replica(|config| config.storage.provider = "old".to_owned()).await;
        let plan = Plan::new().with_fault(
            Operation::AbortMultipart,
            1,
            Fault::Before(StorageErrorKind::Unavailable),
        );
        before.faults.set_plan(plan);
        // Two parts and no finish.
        let mut messages = upload_messages(spec("left"), &vec![b'a'; 2 * PART + 1], PART);
        messages.pop();
        before.alice().send(messages).await.unwrap_err();
        before.stopped().await;
        let old = s.stores.get("old").unwrap();
        assert_eq!(old.list_multiparts("", None, 2).await.unwrap().multiparts.len(), 1);
        s.clock.advance(chrono::Duration::hours(25));
        worker::run_round(&s.app).await;
        assert!(old.list_multiparts("", None, 1).await.unwrap().multiparts.is_empty());
    });
}

#[test]
fn a_file_whose_provider_is_not_configured_says_so_to_the_caller_and_to_fsck() {
    service_test_with(old_and_new, |s| async move {
        let [small, _] = of_before(&s).await;
        let after = s.replica(|config| drop(config.storage.providers.remove("old"))).await;
        let status = after.alice().read(&small).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "STORAGE_UNAVAILABLE"));
        assert!(status.message().contains("the provider `old` of this file is not configured"), "{status}");
        assert_eq!(after.alice().get(&small).await.unwrap().name, "small", "the rest of it is there");
        let report = after.fsck().await;
        assert_eq!(report.violations.len(), 2);
        assert!(report.violations.iter().all(|v| v.what.contains("`old` is not configured")), "{report:?}");
        after.stopped().await;
        // The refused read is what operators are told about.
        s.expect_errors_in_the_log();
    });
}
