//! A store belongs to one database. A copy of the database, an earlier state of it, and the former owner of a
//! store can read, and change nothing.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use chrono::Duration;
use strongroom::{
    app::{
        integrity::sweep::{SweepOptions, sweep_stores},
        owner::{OwnerParts, OwnerState, StoreOwners},
    },
    domain::{
        clock::SystemIds,
        ids::TenantId,
        store_owner::{OwnerMarker, OwnerMismatch},
    },
    proto::v1::{CopyFileRequest, UploadSpec},
    storage::{Decorator, MarkerWrite, ObjectStorage, StorageError, Stores},
    worker,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::{
    harness::{
        Caller, PART, Service, UNLIMITED, file_id, pattern, reason, service_test, service_test_with, spec,
    },
    restore::discard,
    sweep::{new_key, put_object},
};

pub(crate) const PROVIDER: &str = "memory";
/// Longer than the interval between two markers.
pub(crate) const BEAT: Duration = Duration::seconds(61);

pub(crate) fn sized(name: &str, size: usize) -> UploadSpec {
    UploadSpec { size_bytes: Some(size as i64), ..spec(name) }
}

pub(crate) async fn upload(caller: &Caller, name: &str, data: &[u8]) -> String {
    file_id(&caller.upload(spec(name), data).await.unwrap())
}

/// Returns the keys of all objects, in order.
pub(crate) async fn list_keys(s: &Service) -> Vec<String> {
    let page = s.store.list("", None, 100).await.unwrap();
    page.objects.iter().map(|object| object.key.to_string()).collect()
}

async fn run_all_background_work(s: &Service) {
    for _ in 0..4 {
        worker::run_round(&s.app).await;
    }
    let options = SweepOptions { is_database_trusted: true, ..SweepOptions::from_config(&s.app) };
    sweep_stores(&s.app, options).await.unwrap();
}

pub(crate) fn mismatch(state: &OwnerState) -> Option<OwnerMismatch> {
    match state {
        OwnerState::NotOwned(not_owner) => Some(not_owner.mismatch),
        _ => None,
    }
}

pub(crate) async fn check(s: &Service) -> OwnerState {
    s.app.owners().check_store(PROVIDER).await.unwrap()
}

/// Calls everything that changes a file or stores bytes, and returns the errors.
async fn change_everything(caller: &Caller, file: &str) -> Vec<Status> {
    let copy = CopyFileRequest { file_id: file.to_owned(), ..CopyFileRequest::default() };
    vec![
        caller.upload(spec("new"), b"new").await.unwrap_err(),
        caller.upload(spec("large"), &pattern(2 * PART + 1)).await.unwrap_err(),
        caller.upload_version(file, b"next").await.unwrap_err(),
        caller.create_upload(sized("later", 10)).await.unwrap_err(),
        caller.rename(file, "renamed").await.unwrap_err(),
        caller.copy(copy).await.unwrap_err(),
        caller.archive(file).await.unwrap_err(),
        caller.delete(file).await.unwrap_err(),
        caller.purge(file).await.unwrap_err(),
        caller.batch_delete(&[file]).await.unwrap_err(),
    ]
}

#[test]
fn copy_deletes_nothing_from_store_of_its_original() {
    service_test(|s| async move {
        // The copy logs that the store is not its own.
        s.allow_logged_errors();
        let (alice, data) = (s.alice(), pattern(3 * PART + 1));
        let kept = upload(&alice, "kept", b"kept").await;
        let trashed = upload(&alice, "trashed", b"trashed").await;
        alice.delete(&trashed).await.unwrap();
        let open = alice.create_upload(sized("open.bin", data.len())).await.unwrap();
        alice.resume_upload(&open.id, &data[..2 * PART], 0, false).await.unwrap_err();
        let copy = s.start_copy().await;

        // The original continues with the objects that the copy has other plans for.
        let completed = file_id(&alice.resume_upload(&open.id, &data, 2 * PART, true).await.unwrap());
        alice.undelete(&trashed).await.unwrap();
        let later = upload(&alice, "later", b"later").await;
        let before = list_keys(&s).await;
        let moved = "SELECT b.storage_key FROM blobs b JOIN versions v ON (v.tenant_id, v.blob_id) = (b.tenant_id, b.id)
                     JOIN files f ON (f.tenant_id, f.id) = (v.tenant_id, v.file_id) WHERE f.name = 'later'";
        let moved = s.superuser.query_texts(moved).await.remove(0);
        let stray = format!(
            "INSERT INTO stray_objects (tenant_id, provider, storage_key, may_be_unfinished, delete_after)
             VALUES ('{}', '{PROVIDER}', '{moved}', false, now())",
            alice.tenant_id().await
        );
        copy.superuser.execute(&stray).await;
        assert_eq!(copy.alice().read(&kept).await.unwrap(), b"kept"[..], "a copy can read");

        // The lease of the upload, the time in the trash, and all delays end.
        s.clock.advance(Duration::days(40));
        run_all_background_work(&copy).await;
        let delete_tenant = "UPDATE tenants SET state = {tenant_state.deleting}, state_time = create_time";
        copy.superuser.execute(delete_tenant).await;
        run_all_background_work(&copy).await;

        assert_eq!(list_keys(&s).await, before, "no object was deleted");
        for (id, expected) in [
            (&kept, &b"kept"[..]),
            (&trashed, &b"trashed"[..]),
            (&later, &b"later"[..]),
            (&completed, &data[..]),
        ] {
            assert_eq!(s.alice().read(id).await.unwrap(), expected, "{id}");
        }
        assert_eq!(copy.superuser.query_number("SELECT count(*) FROM files").await, 2, "nothing was purged");
        copy.stop().await;
        copy.database.drop_database().await;
    });
}

#[test]
fn copy_may_read_and_change_nothing() {
    service_test(|s| async move {
        s.allow_logged_errors();
        let kept = upload(&s.alice(), "kept", b"kept").await;
        let before = list_keys(&s).await;
        let copy = s.start_copy().await;
        assert_eq!(mismatch(&copy.app.owners().known_state(PROVIDER)), Some(OwnerMismatch::Copied));
        for status in change_everything(&copy.alice(), &kept).await {
            assert_eq!(
                (status.code(), reason(&status).as_str()),
                (Code::FailedPrecondition, "STORAGE_NOT_OWNED")
            );
            assert!(status.message().contains("strongroom storage adopt"), "{status}");
            let info = status.get_details_error_info().unwrap();
            assert_eq!(
                (info.metadata["provider"].as_str(), info.metadata["owner_epoch"].as_str()),
                (PROVIDER, "1")
            );
        }
        assert_eq!(copy.alice().read(&kept).await.unwrap(), b"kept"[..]);
        assert_eq!(copy.alice().get(&kept).await.unwrap().name, "kept");
        assert_eq!(
            (copy.read_metric("strongroom_storage_owned"), s.read_metric("strongroom_storage_owned")),
            (0, 1)
        );
        assert_eq!(list_keys(&s).await, before);
        copy.stop().await;
        copy.database.drop_database().await;
    });
}

#[test]
fn adoption_fences_the_former_owner() {
    service_test_with(
        |config| config.storage.owner_check_seconds = 0,
        |s| async move {
            s.allow_logged_errors();
            let kept = upload(&s.alice(), "kept", b"kept").await;
            let copy = s.start_copy().await;
            let found = copy.app.owners().inspect_owner(PROVIDER).await.unwrap();
            assert_eq!((found.is_owner, found.owner.unwrap().beat.epoch), (false, 1));
            assert_eq!(copy.app.owners().adopt_store(PROVIDER).await.unwrap().beat.epoch, 2);

            // Without a check of its own: the upload finds the new owner.
            let refused = s.alice().upload(spec("late"), b"late").await.unwrap_err();
            assert_eq!(reason(&refused), "STORAGE_NOT_OWNED");
            assert_eq!(refused.get_details_error_info().unwrap().metadata["owner_epoch"], "2");
            assert_eq!(mismatch(&s.app.owners().known_state(PROVIDER)), Some(OwnerMismatch::TakenOver));
            for status in change_everything(&s.alice(), &kept).await {
                assert_eq!(reason(&status), "STORAGE_NOT_OWNED");
            }
            assert_eq!(s.alice().read(&kept).await.unwrap(), b"kept"[..]);

            // The new owner stores, and deletes after the decision about the lost hours.
            let before = list_keys(&s).await;
            let mine = upload(&copy.alice(), "mine", b"mine").await;
            copy.alice().purge(&mine).await.unwrap();
            s.clock.advance(Duration::hours(73));
            worker::run_round(&copy.app).await;
            assert_eq!(list_keys(&s).await.len(), before.len() + 1, "undecided");
            discard(&copy).await;
            worker::run_round(&copy.app).await;
            assert_eq!(list_keys(&s).await, before);

            assert_eq!(s.app.owners().adopt_store(PROVIDER).await.unwrap().beat.epoch, 3);
            upload(&s.alice(), "again", b"again").await;
            let refused = copy.alice().upload(spec("late"), b"late").await.unwrap_err();
            assert_eq!(reason(&refused), "STORAGE_NOT_OWNED");
            copy.stop().await;
            copy.database.drop_database().await;
        },
    );
}

#[test]
fn owner_renews_its_marker_and_replicas_share_it() {
    service_test(|s| async move {
        let replica = s.start_replica(|_| {}).await;
        let first = read_marker(s.store.as_ref()).await;
        assert_eq!((first.beat.epoch, first.beat.beat), (1, 1));
        assert_eq!((check(&s).await, check(&replica).await), (OwnerState::Owned, OwnerState::Owned));
        assert_eq!(read_marker(s.store.as_ref()).await, first, "the next marker is not due");
        for beat in 2..5 {
            s.clock.advance(BEAT);
            assert_eq!((check(&replica).await, check(&s).await), (OwnerState::Owned, OwnerState::Owned));
            assert_eq!(read_marker(s.store.as_ref()).await.beat.beat, beat);
        }
        replica.stop().await;
    });
}

#[test]
fn restore_in_place_is_noticed() {
    service_test_with(
        |config| config.storage.owner_check_seconds = 0,
        |s| async move {
            s.allow_logged_errors();
            let kept = upload(&s.alice(), "kept", b"kept").await;
            for _ in 0..2 {
                s.clock.advance(BEAT);
                assert_eq!(check(&s).await, OwnerState::Owned);
            }
            // The same server and the same database, with the rows of an earlier time.
            s.superuser.execute("DELETE FROM store_beats WHERE beat > 1").await;
            let refused = s.alice().upload(spec("new"), b"new").await.unwrap_err();
            assert_eq!(reason(&refused), "STORAGE_NOT_OWNED");
            assert_eq!(mismatch(&check(&s).await), Some(OwnerMismatch::Restored));
            assert_eq!(s.alice().read(&kept).await.unwrap(), b"kept"[..]);
            s.app.owners().adopt_store(PROVIDER).await.unwrap();
            upload(&s.alice(), "new", b"new").await;
        },
    );
}

pub(crate) async fn read_marker(store: &dyn ObjectStorage) -> OwnerMarker {
    OwnerMarker::parse(&store.read_marker("live").await.unwrap().unwrap()).unwrap()
}

/// A store as a version without markers left it: it has the objects of another one, and no marker.
#[derive(Debug)]
struct Unmarked {
    inner: Arc<dyn ObjectStorage>,
    marker: Mutex<Option<Bytes>>,
}

impl Unmarked {
    const PROVIDER: &str = "unmarked";

    fn wrap(s: &Service) -> Arc<Self> {
        Arc::new(Self { inner: Arc::clone(&s.store), marker: Mutex::default() })
    }

    fn delete_marker(&self) {
        *self.marker.lock().unwrap() = None;
    }
}

impl Decorator for Unmarked {
    fn inner(&self) -> &dyn ObjectStorage {
        &*self.inner
    }

    fn provider(&self) -> &str {
        Self::PROVIDER
    }

    async fn read_marker(&self, _: &str) -> Result<Option<Bytes>, StorageError> {
        Ok(self.marker.lock().unwrap().clone())
    }

    async fn write_marker(&self, _: &str, body: Bytes, _: MarkerWrite) -> Result<(), StorageError> {
        *self.marker.lock().unwrap() = Some(body);
        Ok(())
    }
}

/// A store under another provider name.
#[derive(Debug)]
pub(crate) struct Renamed(pub(crate) Arc<dyn ObjectStorage>);

impl Renamed {
    pub(crate) const PROVIDER: &str = "renamed";
}

impl Decorator for Renamed {
    fn inner(&self) -> &dyn ObjectStorage {
        &*self.0
    }

    fn provider(&self) -> &str {
        Self::PROVIDER
    }
}

/// Returns the checks of a store by the database of a service.
pub(crate) fn owners_of<S: ObjectStorage>(s: &Service, store: &Arc<S>) -> StoreOwners {
    let store: Arc<dyn ObjectStorage> = Arc::clone(store) as _;
    let provider = store.provider().to_owned();
    StoreOwners::new(OwnerParts {
        db: s.db.clone(),
        stores: Stores::new([store], &provider, UNLIMITED).unwrap(),
        clock: s.clock.clone(),
        ids: Arc::new(SystemIds),
        metrics: None,
        limits: s.app.limits().owner,
        key_prefix: "live".to_owned(),
    })
}

#[test]
fn upgraded_store_is_claimed_once_by_its_database() {
    service_test(|s| async move {
        s.allow_logged_errors();
        upload(&s.alice(), "a", b"a").await;
        let store = Unmarked::wrap(&s);
        let owners = owners_of(&s, &store);
        assert_eq!(owners.check_store(Unmarked::PROVIDER).await.unwrap(), OwnerState::Owned);
        s.clock.advance(BEAT);
        assert_eq!(owners.check_store(Unmarked::PROVIDER).await.unwrap(), OwnerState::Owned);
        assert_eq!(read_marker(store.as_ref()).await.beat.beat, 2);
        store.delete_marker();
        let state = owners.check_store(Unmarked::PROVIDER).await.unwrap();
        assert_eq!(mismatch(&state), Some(OwnerMismatch::MarkerMissing));
    });
}

#[test]
fn store_with_unknown_objects_is_refused() {
    service_test(|s| async move {
        s.allow_logged_errors();
        let foreign = new_key(&s, "live", Some(TenantId::from_uuid(Uuid::from_u128(7)))).await;
        put_object(&s, &foreign).await;
        let store = Unmarked::wrap(&s);
        let owners = owners_of(&s, &store);
        let state = owners.check_store(Unmarked::PROVIDER).await.unwrap();
        assert_eq!(mismatch(&state), Some(OwnerMismatch::UnknownObjects));
        assert!(store.marker.lock().unwrap().is_none());
        // Objects of another installation with another prefix do not count.
        s.store.delete(&foreign).await.unwrap();
        let other = new_key(&s, "live/other", Some(TenantId::from_uuid(Uuid::from_u128(7)))).await;
        put_object(&s, &other).await;
        assert_eq!(owners.check_store(Unmarked::PROVIDER).await.unwrap(), OwnerState::Owned);
        s.store.delete(&other).await.unwrap();
    });
}

#[test]
fn providers_of_one_store_renew_its_marker_together() {
    service_test(|s| async move {
        s.allow_logged_errors();
        let renamed = owners_of(&s, &Arc::new(Renamed(Arc::clone(&s.store))));
        let check_renamed = || async { renamed.check_store(Renamed::PROVIDER).await.unwrap() };
        assert_eq!((check_renamed().await, check(&s).await), (OwnerState::Owned, OwnerState::Owned));
        for beat in [2, 4] {
            s.clock.advance(BEAT);
            assert_eq!((check_renamed().await, check(&s).await), (OwnerState::Owned, OwnerState::Owned));
            assert_eq!(read_marker(s.store.as_ref()).await.beat.beat, beat);
            s.clock.advance(BEAT);
            assert_eq!((check(&s).await, check_renamed().await), (OwnerState::Owned, OwnerState::Owned));
            assert_eq!(read_marker(s.store.as_ref()).await.beat.beat, beat + 1);
        }
        let beats = "SELECT count(*) FROM store_beats";
        assert_eq!(s.superuser.query_number(beats).await, 5, "each marker has one row");
        assert!(renamed.inspect_owner(Renamed::PROVIDER).await.unwrap().is_owner);

        // An earlier state of the database does not own the store, whatever the name of the provider.
        s.superuser.execute("DELETE FROM store_beats WHERE beat > 1").await;
        for state in [check_renamed().await, check(&s).await] {
            assert_eq!(mismatch(&state), Some(OwnerMismatch::Restored));
        }
        assert_eq!(renamed.adopt_store(Renamed::PROVIDER).await.unwrap().beat.epoch, 2);
        assert_eq!((check(&s).await, check_renamed().await), (OwnerState::Owned, OwnerState::Owned));
    });
}

#[test]
fn nothing_is_deleted_while_deletions_are_disabled() {
    service_test_with(
        |config| config.storage.deletes_enabled = false,
        |s| async move {
            let alice = s.alice();
            let purged = upload(&alice, "purged", b"purged").await;
            alice.purge(&purged).await.unwrap();
            let data = pattern(3 * PART);
            for is_cancelled in [false, true] {
                let open = alice.create_upload(sized("open", data.len())).await.unwrap();
                alice.resume_upload(&open.id, &data[..2 * PART], 0, false).await.unwrap_err();
                if is_cancelled {
                    alice.cancel_upload(&open.id).await.unwrap();
                }
            }
            // An empty file ends its multipart upload without parts.
            let empty = alice.create_upload(sized("empty", 0)).await.unwrap();
            alice.complete_upload(&empty.id, 0).await.unwrap();
            s.clock.advance(Duration::hours(73));
            run_all_background_work(&s).await;
            assert_eq!(s.alice().quota().await.unwrap().reserved_bytes, 0, "reservations are released");
            assert_eq!(list_keys(&s).await.len(), 2, "the purged file and the empty one");
            let multiparts = s.store.list_multiparts("", None, 10).await.unwrap().multiparts;
            assert!(multiparts.len() >= 2, "{multiparts:?}");

            let replica = s.start_replica(|config| config.storage.deletes_enabled = true).await;
            run_all_background_work(&replica).await;
            s.clock.advance(Duration::hours(25));
            run_all_background_work(&replica).await;
            assert_eq!(list_keys(&s).await.len(), 1);
            replica.stop().await;
        },
    );
}
