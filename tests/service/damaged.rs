//! Files whose objects are missing or damaged: what everyone is told, what still works, and what comes back.

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

async fn stored(s: &Service, data: &[u8]) -> (String, ObjectKey) {
    let id = file_id(&s.alice().upload(spec("a"), data).await.unwrap());
    (id, s.store.list("", None, 10).await.unwrap().objects.remove(0).key)
}

async fn replace(s: &Service, key: &ObjectKey, data: &[u8]) {
    s.store.delete(key).await.unwrap();
    let body = Payload::from(Bytes::copy_from_slice(data));
    s.store.put(key, body, &PutOptions::default()).await.unwrap();
}

/// Waits until the file says that it is lost.
async fn lost(s: &Service, id: &str) -> File {
    let alice = s.alice();
    s.until("it is marked", || async { alice.get(id).await.unwrap().state() == FileState::Error }).await;
    alice.get(id).await.unwrap()
}

async fn assert_data_loss(s: &Service, id: &str, expected: &str) {
    let refused = s.alice().read(id).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::DataLoss, expected));
}

#[test]
fn a_file_whose_object_is_missing_says_so_and_can_still_be_listed_deleted_and_purged() {
    service_test(|s| async move {
        s.expect_errors_in_the_log();
        let alice = s.alice();
        let (id, key) = stored(&s, b"bytes").await;
        let before = alice.get(&id).await.unwrap();
        s.store.delete(&key).await.unwrap();
        assert_data_loss(&s, &id, "OBJECT_MISSING").await;
        let after = lost(&s, &id).await;
        assert_eq!(after.state_reason(), FileStateReason::ObjectMissing);
        assert_ne!(after.etag, before.etag);
        assert_data_loss(&s, &id, "OBJECT_MISSING").await;
        let version = &alice.versions(&id, 0).await.unwrap()[0];
        assert_eq!(
            (version.state(), version.state_reason()),
            (FileState::Error, FileStateReason::ObjectMissing)
        );
        let told =
            "SELECT format('%s %s', (SELECT count(*) FROM events WHERE kind = 44), details ->> 'reason')
                    FROM audit_entries WHERE action = 45 AND actor_kind = 4";
        assert_eq!(s.owner.texts(told).await, ["1 object_missing"]);

        assert_eq!(alice.names(ListFilesRequest::default()).await, ["a"]);
        alice.rename(&id, "b").await.unwrap();
        alice.delete(&id).await.unwrap();
        assert_eq!(alice.undelete(&id).await.unwrap().state(), FileState::Error, "the trash heals nothing");
        assert_eq!(reason(&alice.archive(&id).await.unwrap_err()), "FILE_NOT_AVAILABLE");
        alice.purge(&id).await.unwrap();
        assert_eq!(alice.quota().await.unwrap().used_bytes, 0);
    });
}

#[test]
fn a_file_whose_bytes_are_others_is_marked_after_a_second_look() {
    service_test(|s| async move {
        s.expect_errors_in_the_log();
        let data = pattern(3 * PART);
        let (id, key) = stored(&s, &data).await;
        let mut rotten = data.clone();
        rotten[PART] ^= 1;
        replace(&s, &key, &rotten).await;
        assert_data_loss(&s, &id, "OBJECT_DAMAGED").await;
        assert_eq!(lost(&s, &id).await.state_reason(), FileStateReason::ObjectDamaged);
        assert_data_loss(&s, &id, "OBJECT_DAMAGED").await;
        // A new version makes the file readable again; the old one stays what it is.
        let healed = s.alice().upload_version(&id, &data).await.unwrap();
        assert_eq!(
            (healed.state(), healed.state_reason()),
            (FileState::Available, FileStateReason::Unspecified)
        );
        assert_eq!(s.alice().get(&id).await.unwrap(), healed);
        assert_eq!(s.alice().read(&id).await.unwrap(), data[..]);
        assert_eq!(reason(&s.alice().read_version(&id, 1).await.unwrap_err()), "OBJECT_DAMAGED");
    });
}

#[test]
fn an_object_of_another_length_is_marked_also_by_who_reads_only_a_range() {
    service_test(|s| async move {
        s.expect_errors_in_the_log();
        let data = pattern(3 * PART);
        let (id, key) = stored(&s, &data).await;
        replace(&s, &key, &data[..PART]).await;
        let range = DownloadFileRequest {
            file_id: id.clone(),
            read_offset: 2 * PART as i64,
            ..DownloadFileRequest::default()
        };
        let refused = s.alice().download(range).await.unwrap_err();
        assert_eq!(reason(&refused), "OBJECT_DAMAGED");
        assert_eq!(lost(&s, &id).await.state_reason(), FileStateReason::ObjectDamaged);
    });
}

#[test]
fn neither_a_store_that_is_away_nor_one_bad_read_marks_a_file() {
    service_test(|s| async move {
        s.expect_errors_in_the_log();
        let data = pattern(3 * PART);
        let (id, key) = stored(&s, &data).await;
        let away = Fault::Before(StorageErrorKind::Unavailable);
        for fault in [
            away,
            Fault::Before(StorageErrorKind::Transient),
            Fault::Before(StorageErrorKind::NotFound),
            Fault::EndStream { after_bytes: 100 },
            Fault::CutStream { after_bytes: 100 },
            Fault::FlipBit,
        ] {
            s.faults.set_plan(Plan::new().with_fault(Operation::Get, 1, fault));
            s.alice().read(&id).await.unwrap_err();
            settled(&s).await;
            assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Available, "{fault:?}");
        }
        // It is gone, but the store can be asked about it only half.
        s.store.delete(&key).await.unwrap();
        for operation in [Operation::Head, Operation::List] {
            s.faults.set_plan(Plan::new().with_fault(operation, 1, away));
            assert_data_loss(&s, &id, "OBJECT_MISSING").await;
            settled(&s).await;
            assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Available, "{operation:?}");
        }
        assert_data_loss(&s, &id, "OBJECT_MISSING").await;
        lost(&s, &id).await;
    });
}

/// Waits until nothing is looked at in the background any more.
async fn settled(s: &Service) {
    s.until("nobody looks again", || async { s.app.is_idle() }).await;
}

#[test]
fn every_version_on_a_lost_object_is_marked_and_no_other() {
    service_test(|s| async move {
        s.expect_errors_in_the_log();
        let alice = s.alice();
        let (id, key) = stored(&s, b"one").await;
        alice.upload_version(&id, b"two").await.unwrap();
        let request =
            strongroom::proto::v1::CopyFileRequest { file_id: id.clone(), version: 1, ..Default::default() };
        let copy = alice.copy(request).await.unwrap().id;
        alice.restore_version(&id, 1).await.unwrap();
        s.store.delete(&key).await.unwrap();
        assert_data_loss(&s, &copy, "OBJECT_MISSING").await;
        lost(&s, &copy).await;
        let states: Vec<FileState> =
            alice.versions(&id, 0).await.unwrap().iter().map(|version| version.state()).collect();
        assert_eq!(states, [FileState::Error, FileState::Available, FileState::Error]);
        assert_eq!(alice.get(&id).await.unwrap().state(), FileState::Error);
        assert_eq!(reason(&alice.restore_version(&id, 1).await.unwrap_err()), "FILE_NOT_AVAILABLE");
        assert_eq!(alice.restore_version(&id, 2).await.unwrap().state(), FileState::Available);
        assert_eq!(alice.read(&id).await.unwrap(), b"two"[..]);
    });
}

#[test]
fn fsck_marks_what_is_lost_only_when_asked_and_brings_back_what_is_whole_again() {
    service_test(|s| async move {
        let alice = s.alice();
        let (id, key) = stored(&s, b"bytes").await;
        let untouched = file_id(&alice.upload(spec("b"), b"whole").await.unwrap());
        let state = || async { alice.get(&id).await.unwrap().state() };
        replace(&s, &key, b"bites").await;
        assert_eq!(s.fsck().await.violations.len(), 1);
        assert_eq!(state().await, FileState::Available, "it only looks");
        let report = s.fsck_with(true).await;
        assert_eq!((report.violations.len(), report.marked_versions, report.repaired_versions), (1, 1, 0));
        assert_eq!(state().await, FileState::Error);
        assert_eq!(s.fsck().await.violations, [], "what says that it is lost breaks no promise");

        // Still wrong: it stays.
        assert_eq!(s.fsck_with(true).await.repaired_versions, 0);
        s.store.delete(&key).await.unwrap();
        assert_eq!(s.fsck_with(true).await.repaired_versions, 0);
        // The operator has found a backup.
        let body = Payload::from(Bytes::from_static(b"bytes"));
        s.store.put(&key, body, &PutOptions::default()).await.unwrap();
        assert_eq!(s.fsck().await.repaired_versions, 0);
        assert_eq!(state().await, FileState::Error);
        assert_eq!(s.fsck_with(true).await.repaired_versions, 1);
        assert_eq!(state().await, FileState::Available);
        assert_eq!(alice.read(&id).await.unwrap(), b"bytes"[..]);
        assert_eq!(alice.read(&untouched).await.unwrap(), b"whole"[..]);
        let told = "SELECT count(*) FROM events AS e JOIN audit_entries AS a USING (file_id, version)
                    WHERE e.kind = 45 AND a.action = 46";
        assert_eq!(s.owner.number(told).await, 1);
    });
}
