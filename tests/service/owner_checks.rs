//! When the owner of a store is checked, which markers count, and what a copy of a database does not do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration as Seconds,
};

use bytes::Bytes;
use chrono::Duration;
use strongroom::{
    app::{
        RoundReport,
        integrity::sweep::{SweepOptions, sweep_stores},
        owner::OwnerState,
    },
    config::import_source::SourceLocation,
    domain::store_owner::OwnerMismatch,
    storage::{
        Decorator, MarkerWrite, MultipartId, ObjectStorage, Payload, PresignRequest, PutOptions,
        StorageError, StorageErrorKind,
        flaky::{Fault, Operation, Plan},
    },
    worker,
};

use crate::{
    direct::complete_without_verification,
    file_expiry::upload_expiring,
    harness::{PART, Service, direct_test, pattern, reason, service_test, service_test_with, spec},
    import::{key, source_config},
    ownership::transfer,
    store_owner::{BEAT, PROVIDER, check, list_keys, mismatch, owners_of, read_marker, sized, upload},
    sweep::new_key,
    tenants::{count_rows_by_table, erase_all_tenants},
    webhooks::local_test,
};

/// Copies the database, and makes the copy the owner of the store. The last check of the original stays valid for
/// the time of a test.
async fn start_new_owner(s: &Service) -> Service {
    s.allow_logged_errors();
    let copy = s.start_copy().await;
    copy.app.owners().adopt_store(PROVIDER).await.unwrap();
    assert_eq!(s.app.owners().known_state(PROVIDER), OwnerState::Owned);
    copy
}

async fn stop_copy(copy: Service) {
    copy.stop().await;
    copy.database.drop_database().await;
}

#[test]
fn round_of_deletions_checks_the_owner_first() {
    service_test(|s| async move {
        let purged = upload(&s.alice(), "purged", b"purged").await;
        s.alice().purge(&purged).await.unwrap();
        s.clock.advance(Duration::hours(73));
        let copy = start_new_owner(&s).await;
        worker::run_round(&s.app).await;
        assert_eq!(list_keys(&s).await.len(), 1, "the object belongs to the new owner");
        assert_eq!(mismatch(&s.app.owners().known_state(PROVIDER)), Some(OwnerMismatch::TakenOver));
        stop_copy(copy).await;
    });
}

#[test]
fn sweep_checks_the_owner_first() {
    service_test(|s| async move {
        let copy = start_new_owner(&s).await;
        let options = SweepOptions { is_database_trusted: true, ..SweepOptions::from_config(&s.app) };
        let report = sweep_stores(&s.app, options).await.unwrap().remove(0);
        assert!(report.problems.concat().contains("belongs to another database"), "{report:?}");
        stop_copy(copy).await;
    });
}

#[test]
fn tenant_is_not_erased_while_deletions_are_disabled() {
    service_test_with(
        |config| config.storage.deletes_enabled = false,
        |s| async move {
            upload(&s.alice(), "a", b"a").await;
            let acme = s.alice().tenant_id().await;
            s.operator().delete_tenant(&acme, false).await.unwrap();
            s.clock.advance(Duration::seconds(15));
            let before = count_rows_by_table(&s, &acme).await;
            erase_all_tenants(&s).await;
            assert_eq!(count_rows_by_table(&s, &acme).await, before, "no row of any table is erased");
            let replica = s.start_replica(|config| config.storage.deletes_enabled = true).await;
            erase_all_tenants(&replica).await;
            assert_eq!(s.superuser.query_number("SELECT count(*) FROM files").await, 0);
            assert!(list_keys(&s).await.is_empty());
            replica.stop().await;
        },
    );
}

#[test]
fn copy_erases_no_tenant() {
    service_test(|s| async move {
        s.allow_logged_errors();
        upload(&s.alice(), "a", b"a").await;
        let acme = s.alice().tenant_id().await;
        s.operator().delete_tenant(&acme, false).await.unwrap();
        s.clock.advance(Duration::seconds(15));
        let copy = s.start_copy().await;
        let before = count_rows_by_table(&copy, &acme).await;
        erase_all_tenants(&copy).await;
        assert_eq!(count_rows_by_table(&copy, &acme).await, before, "no row of any table is erased");
        assert_eq!(list_keys(&s).await.len(), 1);
        erase_all_tenants(&s).await;
        assert!(list_keys(&s).await.is_empty(), "the owner erases it");
        stop_copy(copy).await;
    });
}

#[test]
fn every_write_and_deletion_of_a_copy_is_refused() {
    service_test(|s| async move {
        s.allow_logged_errors();
        upload(&s.alice(), "kept", b"kept").await;
        let kept = s.store.list("", None, 1).await.unwrap().objects.remove(0);
        let copy = s.start_copy().await;
        let stores = copy.app.owners().checked_stores();
        let (store, new) = (stores.primary(), new_key(&s, "live", None).await);
        let (id, options) = (MultipartId::new("upload"), PutOptions::default());
        let body = || Payload::from(Bytes::from_static(b"x"));
        let url = PresignRequest::Put {
            key: new.clone(),
            size_bytes: 1,
            expires_in: Seconds::from_secs(60),
            content_type: None,
        };
        let refused = [
            store.put(&new, body(), &options).await.err(),
            store.start_multipart(&new, PART as u64, &options).await.err(),
            store.put_part(&new, &id, 1, body()).await.err(),
            store.copy_part(&new, &id, 1, &kept).await.err(),
            store.complete_multipart(&new, &id, &[], None).await.err(),
            store.copy(&kept.key, &new, &options).await.err(),
            store.presign(&url).await.err(),
            store.abort_multipart(&new, &id).await.err(),
            store.delete(&kept.key).await.err(),
            store.delete_batch(std::slice::from_ref(&kept.key)).await.err(),
        ];
        for (n, error) in refused.iter().enumerate() {
            let kind = error.as_ref().map(|error| error.kind);
            assert_eq!(kind, Some(StorageErrorKind::Refused), "call {n}");
        }
        assert_eq!(store.head(&kept.key).await.unwrap(), kept);
        stop_copy(copy).await;
    });
}

#[test]
fn writes_continue_and_deletions_wait_while_checks_fail() {
    service_test(|s| async move {
        let alice = s.alice();
        let purged = upload(&alice, "purged", b"purged").await;
        alice.purge(&purged).await.unwrap();
        s.clock.advance(Duration::hours(73));
        let down = Fault::Before(StorageErrorKind::Unavailable);
        s.faults.set_plan(Plan::new().with_fault_in_all(Operation::ReadMarker, down));
        s.app.owners().check_store(PROVIDER).await.unwrap_err();
        upload(&s.alice(), "new", b"new").await;
        worker::run_round(&s.app).await;
        assert_eq!(list_keys(&s).await.len(), 2, "nothing is deleted without a check");
        s.faults.set_plan(Plan::new());
        worker::run_round(&s.app).await;
        assert_eq!(list_keys(&s).await.len(), 1);
    });
}

#[test]
fn rows_of_another_past_are_not_those_of_the_marker() {
    service_test(|s| async move {
        s.allow_logged_errors();
        s.clock.advance(BEAT);
        assert_eq!(check(&s).await, OwnerState::Owned);
        // An earlier state of the database, which wrote a second marker to another store.
        s.superuser.execute("UPDATE store_beats SET token = gen_random_uuid() WHERE beat = 2").await;
        assert_eq!(mismatch(&check(&s).await), Some(OwnerMismatch::Restored));
    });
}

#[test]
fn marker_from_the_future_is_renewed() {
    service_test(|s| async move {
        for (days, beat) in [(2, 2), (-2, 3)] {
            s.clock.advance(Duration::days(days));
            assert_eq!(check(&s).await, OwnerState::Owned);
            assert_eq!(read_marker(s.store.as_ref()).await.beat.beat, beat);
        }
    });
}

#[test]
fn only_the_latest_markers_have_rows() {
    service_test(|s| async move {
        for _ in 0..105 {
            s.clock.advance(BEAT);
            assert_eq!(check(&s).await, OwnerState::Owned);
        }
        assert_eq!(read_marker(s.store.as_ref()).await.beat.beat, 106);
        assert_eq!(s.superuser.query_number("SELECT count(*) FROM store_beats").await, 100);
        assert_eq!(s.superuser.query_number("SELECT min(beat) FROM store_beats").await, 7);
    });
}

#[test]
fn unreadable_marker_is_not_replaced() {
    service_test(|s| async move {
        s.allow_logged_errors();
        let damaged = Bytes::from_static(b"{}");
        s.store.write_marker("live", damaged.clone(), MarkerWrite::Replace).await.unwrap();
        assert_eq!(mismatch(&check(&s).await), Some(OwnerMismatch::MarkerUnreadable));
        assert_eq!(s.store.read_marker("live").await.unwrap(), Some(damaged));
    });
}

#[test]
fn incarnation_names_the_cluster() {
    service_test(|s| async move {
        let incarnation = s.superuser.query_texts("SELECT app.event_incarnation()").await.concat();
        let system = "SELECT system_identifier::text FROM pg_control_system()";
        let system = s.superuser.query_texts(system).await.concat();
        assert!(incarnation.contains(&system), "{incarnation} of {system}");
    });
}

/// A store to which another database writes its marker after the first look.
#[derive(Debug)]
struct Raced {
    inner: Arc<dyn ObjectStorage>,
    has_looked: AtomicBool,
}

impl Raced {
    const PROVIDER: &str = "raced";
}

impl Decorator for Raced {
    fn inner(&self) -> &dyn ObjectStorage {
        &*self.inner
    }

    fn provider(&self) -> &str {
        Self::PROVIDER
    }

    async fn read_marker(&self, prefix: &str) -> Result<Option<Bytes>, StorageError> {
        match self.has_looked.swap(true, Ordering::Relaxed) {
            true => self.inner.read_marker(prefix).await,
            false => Ok(None),
        }
    }
}

#[test]
fn marker_that_was_created_meanwhile_is_kept() {
    service_test(|s| async move {
        s.allow_logged_errors();
        let first = read_marker(s.store.as_ref()).await;
        let copy = s.start_copy().await;
        let store = Arc::new(Raced { inner: Arc::clone(&s.store), has_looked: AtomicBool::new(false) });
        let state = owners_of(&copy, &store).check_store(Raced::PROVIDER).await.unwrap();
        assert_eq!(mismatch(&state), Some(OwnerMismatch::Copied));
        assert_eq!(read_marker(s.store.as_ref()).await, first);
        stop_copy(copy).await;
    });
}

#[test]
fn copy_refuses_changes_of_uploads_files_and_tenants() {
    let old = tempfile::tempdir().unwrap();
    std::fs::write(old.path().join("notes.txt"), b"notes").unwrap();
    let source = source_config(SourceLocation::Directory(old.path().to_owned()), "*");
    service_test_with(source, |s| async move {
        s.allow_logged_errors();
        let (alice, data) = (s.alice(), pattern(2 * PART));
        let file = upload(&alice, "file", b"1").await;
        alice.upload_version(&file, b"2").await.unwrap();
        let trashed = upload(&alice, "trashed", b"trashed").await;
        alice.delete(&trashed).await.unwrap();
        let open = alice.create_upload(sized("open", data.len())).await.unwrap();
        let acme = alice.tenant_id().await;
        let copy = s.start_copy().await;
        let (alice, ada, operator) = (copy.alice(), copy.ada(), copy.operator());
        let results = [
            ("undelete", alice.undelete(&trashed).await.map(drop)),
            ("restore version", alice.restore_version(&file, 1).await.map(drop)),
            ("delete version", alice.delete_version(&file, 1).await.map(drop)),
            ("hold", ada.set_legal_hold(&file, "case").await.map(drop)),
            ("transfer", transfer(&ada, ("alice", "bob"), |_| {}).await.map(drop)),
            ("import", ada.import_files("old", false, [key("notes.txt")]).await.map(drop)),
            ("send part", alice.upload_part(&open.id, 0, &data[..PART]).await.map(drop)),
            ("cancel", alice.cancel_upload(&open.id).await),
            ("reclaim", operator.reclaim(&acme).await.map(drop)),
            ("delete tenant", operator.delete_tenant(&acme, false).await.map(drop)),
        ];
        for (call, result) in results {
            let status = result.expect_err(call);
            assert_eq!(reason(&status), "STORAGE_NOT_OWNED", "{call}: {status}");
        }
        s.alice().cancel_upload(&open.id).await.unwrap();
        stop_copy(copy).await;
    });
}

#[test]
fn copy_deletes_no_expired_file() {
    service_test(|s| async move {
        s.allow_logged_errors();
        upload_expiring(&s, &s.alice(), "a").await;
        let copy = s.start_copy().await;
        s.clock.advance(Duration::hours(2));
        worker::run_round(&copy.app).await;
        assert_eq!(copy.superuser.query_number("SELECT count(*) FROM jobs").await, 0);
        assert_eq!(worker::run_round(&s.app).await.done, 1, "the owner deletes it");
        stop_copy(copy).await;
    });
}

#[test]
fn copy_keeps_open_uploads() {
    service_test(|s| async move {
        s.allow_logged_errors();
        s.alice().create_upload(sized("open", 10)).await.unwrap();
        let copy = s.start_copy().await;
        s.clock.advance(Duration::hours(25));
        worker::run_round(&copy.app).await;
        let open = "SELECT count(*) FROM uploads WHERE state = {upload_state.open}";
        assert_eq!(copy.superuser.query_number(open).await, 1);
        worker::run_round(&s.app).await;
        s.assert_nothing_is_left().await;
        stop_copy(copy).await;
    });
}

#[test]
fn copy_runs_no_job() {
    direct_test(|s| async move {
        s.allow_logged_errors();
        complete_without_verification(&s, &s.alice(), spec("a.bin"), &pattern(1000)).await;
        let copy = s.start_copy().await;
        assert_eq!(worker::run_due_jobs(&copy.app).await, RoundReport::default());
        assert_eq!(worker::run_due_jobs(&s.app).await.done, 1);
        stop_copy(copy).await;
    });
}

#[test]
fn copy_sends_no_event() {
    local_test(
        |_| {},
        |s, receiver| async move {
            s.allow_logged_errors();
            s.create_webhook_to(&receiver.url).await;
            let files = s.upload_files(&["a"]).await;
            let copy = s.start_copy().await;
            assert_eq!(copy.deliver_all().await, 0);
            assert_eq!(s.deliver_all().await, 1);
            assert_eq!(receiver.received_file_ids(), files);
            stop_copy(copy).await;
        },
    );
}
