//! Files whose objects are missing or damaged: the errors, the RPCs that still work, and the repair.

use bytes::Bytes;
use strongroom::{
    domain::object_key::ObjectKey,
    proto::v1::{DownloadFileRequest, File, FileState, FileStateReason, ListFilesRequest},
    storage::{
        Payload, PutOptions, StorageErrorKind,
        flaky::{Fault, Operation, Plan},
    },
};
use tonic::Code;

use crate::harness::{PART, Service, file_id, pattern, reason, service_test, spec};

async fn upload_file(s: &Service, data: &[u8]) -> (String, ObjectKey) {
    let id = file_id(&s.alice().upload(spec("a"), data).await.unwrap());
    (id, s.store.list("", None, 10).await.unwrap().objects.remove(0).key)
}

/// Replaces an object of the primary store, whose keys are never written twice.
pub(crate) async fn replace_object(s: &Service, key: &ObjectKey, data: &[u8]) {
    s.store.delete(key).await.unwrap();
    let body = Payload::from(Bytes::copy_from_slice(data));
    s.store.put(key, body, &PutOptions::default()).await.unwrap();
}

/// Waits until the file is in state `ERROR`.
async fn wait_until_lost(s: &Service, id: &str) -> File {
    let alice = s.alice();
    s.wait_until("the file is marked", || async { alice.get(id).await.unwrap().state() == FileState::Error })
        .await;
    alice.get(id).await.unwrap()
}

async fn assert_data_loss(s: &Service, id: &str, expected: &str) {
    let error = s.alice().read(id).await.unwrap_err();
    assert_eq!((error.code(), reason(&error).as_str()), (Code::DataLoss, expected));
}

#[test]
fn file_without_object_can_be_listed_deleted_and_purged() {
    service_test(|s| async move {
        s.allow_logged_errors();
        let alice = s.alice();
        let (id, key) = upload_file(&s, b"bytes").await;
        let before = alice.get(&id).await.unwrap();
        s.store.delete(&key).await.unwrap();
        assert_data_loss(&s, &id, "OBJECT_MISSING").await;
        let after = wait_until_lost(&s, &id).await;
        assert_eq!(after.state_reason(), FileStateReason::ObjectMissing);
        assert_ne!(after.etag, before.etag);
        assert_data_loss(&s, &id, "OBJECT_MISSING").await;
        let version = &alice.list_versions(&id, 0).await.unwrap()[0];
        assert_eq!(
            (version.state(), version.state_reason()),
            (FileState::Error, FileStateReason::ObjectMissing)
        );
        let records = "SELECT format('%s %s', (SELECT count(*) FROM events
                WHERE kind = {event_kind.file_damaged}), details ->> 'reason')
                    FROM audit_entries WHERE action = {audit_action.file_damage}
                        AND actor_kind = {actor_kind.system}";
        assert_eq!(s.superuser.query_texts(records).await, ["1 object_missing"]);
        s.wait_until("the damage is counted", || async {
            s.read_metric("strongroom_scrub_objects_total{outcome=\"damaged\"") == 1
        })
        .await;

        assert_eq!(alice.list_names(ListFilesRequest::default()).await, ["a"]);
        alice.rename(&id, "b").await.unwrap();
        alice.delete(&id).await.unwrap();
        assert_eq!(alice.undelete(&id).await.unwrap().state(), FileState::Error, "undelete repairs nothing");
        assert_eq!(reason(&alice.archive(&id).await.unwrap_err()), "FILE_NOT_AVAILABLE");
        alice.purge(&id).await.unwrap();
        assert_eq!(alice.quota().await.unwrap().used_bytes, 0);
    });
}

#[test]
fn file_with_damaged_object_is_marked_after_second_read() {
    service_test(|s| async move {
        s.allow_logged_errors();
        let data = pattern(3 * PART);
        let (id, key) = upload_file(&s, &data).await;
        let mut damaged = data.clone();
        damaged[PART] ^= 1;
        replace_object(&s, &key, &damaged).await;
        assert_data_loss(&s, &id, "OBJECT_DAMAGED").await;
        assert_eq!(wait_until_lost(&s, &id).await.state_reason(), FileStateReason::ObjectDamaged);
        assert_data_loss(&s, &id, "OBJECT_DAMAGED").await;
        // A new version makes the file readable again; the damaged version does not change.
        let repaired = s.alice().upload_version(&id, &data).await.unwrap();
        assert_eq!(
            (repaired.state(), repaired.state_reason()),
            (FileState::Available, FileStateReason::Unspecified)
        );
        assert_eq!(s.alice().get(&id).await.unwrap(), repaired);
        assert_eq!(s.alice().read(&id).await.unwrap(), data[..]);
        assert_eq!(reason(&s.alice().read_version(&id, 1).await.unwrap_err()), "OBJECT_DAMAGED");
    });
}

#[test]
fn range_read_marks_object_of_wrong_length() {
    service_test(|s| async move {
        s.allow_logged_errors();
        let data = pattern(3 * PART);
        let (id, key) = upload_file(&s, &data).await;
        replace_object(&s, &key, &data[..PART]).await;
        let range = DownloadFileRequest {
            file_id: id.clone(),
            read_offset: 2 * PART as i64,
            ..DownloadFileRequest::default()
        };
        let error = s.alice().download(range).await.unwrap_err();
        assert_eq!(reason(&error), "OBJECT_DAMAGED");
        assert_eq!(wait_until_lost(&s, &id).await.state_reason(), FileStateReason::ObjectDamaged);
    });
}

#[test]
fn unavailable_store_or_single_bad_read_marks_no_file() {
    service_test(|s| async move {
        s.allow_logged_errors();
        let data = pattern(3 * PART);
        let (id, key) = upload_file(&s, &data).await;
        let unavailable = Fault::Before(StorageErrorKind::Unavailable);
        for fault in [
            unavailable,
            Fault::Before(StorageErrorKind::Transient),
            Fault::Before(StorageErrorKind::NotFound),
            Fault::EndStream { after_bytes: 100 },
            Fault::CutStream { after_bytes: 100 },
        ] {
            s.faults.set_plan(Plan::new().with_fault(Operation::Get, 1, fault));
            s.alice().read(&id).await.unwrap_err();
            wait_until_idle(&s).await;
            assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Available, "{fault:?}");
        }
        // The object is missing, but either the head or the list fails, so nothing confirms it.
        s.store.delete(&key).await.unwrap();
        for operation in [Operation::Head, Operation::List] {
            s.faults.set_plan(Plan::new().with_fault(operation, 1, unavailable));
            assert_data_loss(&s, &id, "OBJECT_MISSING").await;
            wait_until_idle(&s).await;
            assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Available, "{operation:?}");
        }
        assert_data_loss(&s, &id, "OBJECT_MISSING").await;
        wait_until_lost(&s, &id).await;
    });
}

/// Waits until no background work is running.
async fn wait_until_idle(s: &Service) {
    s.wait_until("background work ends", || async { s.app.is_idle() }).await;
}

#[test]
fn only_versions_of_lost_object_are_marked() {
    service_test(|s| async move {
        s.allow_logged_errors();
        let alice = s.alice();
        let (id, key) = upload_file(&s, b"one").await;
        alice.upload_version(&id, b"two").await.unwrap();
        let request =
            strongroom::proto::v1::CopyFileRequest { file_id: id.clone(), version: 1, ..Default::default() };
        let copy = alice.copy(request).await.unwrap().id;
        alice.restore_version(&id, 1).await.unwrap();
        s.store.delete(&key).await.unwrap();
        assert_data_loss(&s, &copy, "OBJECT_MISSING").await;
        wait_until_lost(&s, &copy).await;
        let states: Vec<FileState> =
            alice.list_versions(&id, 0).await.unwrap().iter().map(|version| version.state()).collect();
        assert_eq!(states, [FileState::Error, FileState::Available, FileState::Error]);
        assert_eq!(alice.get(&id).await.unwrap().state(), FileState::Error);
        assert_eq!(reason(&alice.restore_version(&id, 1).await.unwrap_err()), "FILE_NOT_AVAILABLE");
        assert_eq!(alice.restore_version(&id, 2).await.unwrap().state(), FileState::Available);
        assert_eq!(alice.read(&id).await.unwrap(), b"two"[..]);
    });
}

#[test]
fn damage_of_a_former_version_does_not_change_the_file() {
    service_test(|s| async move {
        s.allow_logged_errors();
        let alice = s.alice();
        let (id, key) = upload_file(&s, b"one").await;
        alice.upload_version(&id, b"two").await.unwrap();
        s.store.delete(&key).await.unwrap();
        assert_eq!(reason(&alice.read_version(&id, 1).await.unwrap_err()), "OBJECT_MISSING");
        s.wait_until("the version is marked", || async {
            alice
                .list_versions(&id, 0)
                .await
                .unwrap()
                .iter()
                .any(|version| version.state() == FileState::Error)
        })
        .await;
        let file = alice.get(&id).await.unwrap();
        assert_eq!((file.state(), file.state_reason()), (FileState::Available, FileStateReason::Unspecified));
        assert_eq!(alice.read(&id).await.unwrap(), b"two"[..]);
    });
}

#[test]
fn fsck_marks_lost_versions_and_restores_repaired_ones() {
    service_test(|s| async move {
        s.allow_logged_errors();
        let alice = s.alice();
        let (id, key) = upload_file(&s, b"bytes").await;
        let untouched = file_id(&alice.upload(spec("b"), b"whole").await.unwrap());
        let state = || async { alice.get(&id).await.unwrap().state() };
        s.faults.set_plan(Plan::new().with_fault(Operation::Get, 1, Fault::EndStream { after_bytes: 3 }));
        let report = s.run_fsck_with_faults().await;
        assert_eq!((report.violations.len(), report.marked_versions), (1, 0));
        assert!(report.violations[0].problem.contains("read in part"), "{:?}", report.violations);
        s.faults.set_plan(Plan::new());
        replace_object(&s, &key, b"bites").await;
        assert_eq!(s.run_fsck().await.violations.len(), 1);
        assert_eq!(state().await, FileState::Available, "fsck changes nothing without repair");
        let report = s.run_fsck_with(true).await;
        assert_eq!((report.violations.len(), report.marked_versions, report.repaired_versions), (1, 1, 0));
        assert_eq!(state().await, FileState::Error);
        assert_eq!(s.run_fsck().await.violations, [], "a version that is marked as lost is not a violation");

        // The object is still wrong, so the version stays marked.
        assert_eq!(s.run_fsck_with(true).await.repaired_versions, 0);
        s.store.delete(&key).await.unwrap();
        assert_eq!(s.run_fsck_with(true).await.repaired_versions, 0);
        // The operator restores the object from a backup.
        let body = Payload::from(Bytes::from_static(b"bytes"));
        s.store.put(&key, body, &PutOptions::default()).await.unwrap();
        assert_eq!(s.run_fsck().await.repaired_versions, 0);
        assert_eq!(state().await, FileState::Error);
        assert_eq!(s.run_fsck_with(true).await.repaired_versions, 1);
        assert_eq!(state().await, FileState::Available);
        assert_eq!(alice.read(&id).await.unwrap(), b"bytes"[..]);
        assert_eq!(alice.read(&untouched).await.unwrap(), b"whole"[..]);
        let records = "SELECT count(*) FROM events AS e JOIN audit_entries AS a USING (file_id, version)
                    WHERE e.kind = {event_kind.file_repaired} AND a.action = {audit_action.file_repair}";
        assert_eq!(s.superuser.query_number(records).await, 1);
    });
}
