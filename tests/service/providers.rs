//! Several storage providers. A file stays with its provider when new uploads go to another one.

use std::sync::Arc;

use strongroom::{
    app::storage::status::list_provider_statuses,
    config::{Config, provider::ProviderConfig},
    storage::{
        BucketProtection, Decorator, ObjectStorage, StorageError, StorageErrorKind, Stores,
        flaky::{Fault, Operation, Plan},
    },
    worker,
};
use tonic::Code;

use crate::{
    harness::{
        Caller, PART, Service, UNLIMITED, file_id, reason, service_test, service_test_with, spec,
        upload_messages,
    },
    store_owner::PROVIDER,
};

fn configure_old_and_new(config: &mut Config) {
    config.storage.providers.clear();
    config.storage.set_primary_provider("old", ProviderConfig::Memory);
    config.storage.set_primary_provider("new", ProviderConfig::Memory);
}

async fn upload_file(caller: &Caller, name: &str, size: usize) -> String {
    file_id(&caller.upload(spec(name), &vec![b'a'; size]).await.unwrap())
}

async fn count_objects(s: &Service, provider: &str) -> usize {
    s.stores.get(provider).unwrap().list("", None, 10).await.unwrap().objects.len()
}

/// Uploads two files to the provider `old`, one of them in several parts.
async fn upload_to_old_provider(s: &Service) -> [String; 2] {
    let before = s.start_replica(|config| config.storage.provider = "old".to_owned()).await;
    let alice = before.alice();
    let ids = [upload_file(&alice, "small", 10).await, upload_file(&alice, "large", 2 * PART + 1).await];
    before.stop().await;
    ids
}

#[test]
fn files_on_previous_provider_stay_readable() {
    service_test_with(configure_old_and_new, |s| async move {
        let [small, large] = upload_to_old_provider(&s).await;
        let alice = s.alice();
        let recent = upload_file(&alice, "recent", 3 * PART).await;
        assert_eq!((count_objects(&s, "old").await, count_objects(&s, "new").await), (2, 1));
        for (id, size) in [(small, 10), (large, 2 * PART + 1), (recent, 3 * PART)] {
            assert_eq!(alice.read(&id).await.unwrap().len(), size);
        }
    });
}

#[test]
fn purge_deletes_objects_from_their_own_provider() {
    service_test_with(configure_old_and_new, |s| async move {
        let [small, large] = upload_to_old_provider(&s).await;
        let alice = s.alice();
        let recent = upload_file(&alice, "recent", 10).await;
        for id in [small, recent] {
            alice.purge(&id).await.unwrap();
        }
        s.clock.advance(chrono::Duration::hours(73));
        assert!(worker::run_round(&s.app).await.done > 0);
        assert_eq!((count_objects(&s, "old").await, count_objects(&s, "new").await), (1, 0));
        assert_eq!(s.alice().read(&large).await.unwrap().len(), 2 * PART + 1);
    });
}

#[test]
fn expired_upload_is_aborted_on_its_own_provider() {
    service_test_with(configure_old_and_new, |s| async move {
        let before = s.start_replica(|config| config.storage.provider = "old".to_owned()).await;
        let plan = Plan::new().with_fault(
            Operation::AbortMultipart,
            1,
            Fault::Before(StorageErrorKind::Unavailable),
        );
        before.faults.set_plan(plan);
        // Two parts without a finish message.
        let mut messages = upload_messages(spec("left"), &vec![b'a'; 2 * PART + 1], PART);
        messages.pop();
        before.alice().send_messages(messages).await.unwrap_err();
        before.stop().await;
        let old = s.stores.get("old").unwrap();
        assert_eq!(old.list_multiparts("", None, 2).await.unwrap().multiparts.len(), 1);
        s.clock.advance(chrono::Duration::hours(25));
        worker::run_round(&s.app).await;
        assert!(old.list_multiparts("", None, 1).await.unwrap().multiparts.is_empty());
    });
}

#[test]
fn unconfigured_provider_is_reported_by_read_and_fsck() {
    service_test_with(configure_old_and_new, |s| async move {
        let [small, _] = upload_to_old_provider(&s).await;
        let after = s.start_replica(|config| drop(config.storage.providers.remove("old"))).await;
        let status = after.alice().read(&small).await.unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::FailedPrecondition, "STORAGE_NOT_CONFIGURED")
        );
        assert!(status.message().contains("the provider `old` of this file is not configured"), "{status}");
        assert_eq!(after.alice().get(&small).await.unwrap().name, "small", "the record is available");
        let report = after.run_fsck().await;
        assert_eq!(report.violations.len(), 2);
        assert!(
            report.violations.iter().all(|v| v.problem.contains("`old` is not configured")),
            "{report:?}"
        );
        after.stop().await;
        // The failed read logs an error for the operators.
        s.allow_logged_errors();
    });
}

/// A store whose bucket keeps the versions of its objects.
#[derive(Debug)]
struct Versioned(Arc<dyn ObjectStorage>);

fn versioning() -> BucketProtection {
    BucketProtection { bucket: "files".to_owned(), has_versions: true, has_object_lock: false }
}

impl Decorator for Versioned {
    fn inner(&self) -> &dyn ObjectStorage {
        &*self.0
    }

    async fn list_protections(&self) -> Result<Vec<BucketProtection>, StorageError> {
        Ok(vec![versioning()])
    }
}

#[test]
fn status_has_the_buckets_that_keep_bytes() {
    service_test(|s| async move {
        let store: Arc<dyn ObjectStorage> = Arc::new(Versioned(Arc::clone(&s.store)));
        let stores = Stores::new([store], PROVIDER, UNLIMITED).unwrap();
        let statuses = list_provider_statuses(&s.db, &stores, s.app.owners()).await.unwrap();
        assert_eq!(statuses[0].protections, [versioning()]);
    });
}
