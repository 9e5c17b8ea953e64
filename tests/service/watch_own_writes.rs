//! Who wrote can wait for it: an answer tells where the event of its change stands.

use strongroom::proto::v1::{
    BatchDeleteFilesRequest, CopyFileRequest, DeleteFileRequest, DeleteFileVersionRequest,
    FileEventKind as Kind, PurgeFileRequest, ReleaseLegalHoldRequest, RestoreFileVersionRequest,
    SetLegalHoldRequest, TransferOwnershipRequest, UploadSpec,
};

use crate::harness::{Watcher, file_id, service_test, spec};
use crate::watch::uploaded;

const REQUEST: &str = "0193a7a0-0000-7000-8000-0000000000aa";

#[test]
fn a_write_of_ones_own_can_be_waited_for() {
    service_test(|s| async move {
        let (alice, mut watcher) = (s.alice(), s.alice().watch().await);
        let answer = alice.upload(spec("a"), b"x").await.unwrap();
        let event = watcher.event().await;
        assert_eq!((&event.position, &event.file_id), (&answer.event_position, &file_id(&answer)));

        let request = DeleteFileRequest { file_id: file_id(&answer), ..DeleteFileRequest::default() };
        let deleted = alice.files.clone().delete_file(request.clone()).await.unwrap().into_inner();
        assert_eq!(watcher.event().await.position, deleted.event_position);
        let again = alice.files.clone().delete_file(request).await.unwrap().into_inner();
        assert_eq!(again.event_position, "", "nothing had to change");
    });
}

/// What an answer tells is where the next event stands, which is of this kind.
async fn is_next(watcher: &mut Watcher, kind: Kind, told: &str) {
    let event = watcher.event().await;
    assert_eq!((event.kind(), event.position.as_str()), (kind, told));
}

/// Goes past what was made to be changed.
async fn heard(watcher: &mut Watcher, count: usize) {
    for _ in 0..count {
        watcher.event().await;
    }
}

#[test]
fn a_change_of_versions_a_copy_and_a_hold_can_be_waited_for() {
    service_test(|s| async move {
        let (ada, mut files) = (s.ada(), s.ada().files);
        let mut watcher = ada.watch().await;
        let file_id = uploaded(&ada, spec("a")).await;
        ada.upload_version(&file_id, b"y").await.unwrap();
        heard(&mut watcher, 2).await;
        let of_version = (file_id.clone(), 1);

        let (file_id, version) = of_version.clone();
        let request = RestoreFileVersionRequest { file_id, version, ..Default::default() };
        let restored = files.restore_file_version(request).await.unwrap().into_inner();
        is_next(&mut watcher, Kind::VersionCreated, &restored.event_position).await;

        let (file_id, version) = of_version;
        let request = DeleteFileVersionRequest { file_id: file_id.clone(), version, ..Default::default() };
        let deleted = files.delete_file_version(request).await.unwrap().into_inner();
        is_next(&mut watcher, Kind::VersionDeleted, &deleted.event_position).await;

        let request = CopyFileRequest { file_id: file_id.clone(), ..Default::default() };
        let copied = files.copy_file(request).await.unwrap().into_inner();
        is_next(&mut watcher, Kind::Created, &copied.event_position).await;

        let (reason, request_id) = ("a dispute".to_owned(), String::new());
        let request = SetLegalHoldRequest {
            file_id: file_id.clone(),
            reason: reason.clone(),
            request_id: request_id.clone(),
        };
        let held = files.set_legal_hold(request.clone()).await.unwrap().into_inner();
        is_next(&mut watcher, Kind::HoldSet, &held.event_position).await;
        let again = files.set_legal_hold(request).await.unwrap().into_inner();
        assert_eq!(again.event_position, "", "it was held already");

        let request = ReleaseLegalHoldRequest { file_id, reason, request_id };
        let released = files.release_legal_hold(request.clone()).await.unwrap().into_inner();
        is_next(&mut watcher, Kind::HoldReleased, &released.event_position).await;
        let again = files.release_legal_hold(request).await.unwrap().into_inner();
        assert_eq!(again.event_position, "", "it was released already");
    });
}

#[test]
fn many_changes_in_one_are_waited_for_by_the_last() {
    service_test(|s| async move {
        let (ada, mut files) = (s.ada(), s.ada().files);
        let mut watcher = ada.watch().await;
        let file_ids = s.uploads(&["a", "b", "c"]).await;
        heard(&mut watcher, 3).await;
        let mut transfer = TransferOwnershipRequest {
            from_user_id: "alice".to_owned(),
            to_user_id: "bob".to_owned(),
            dry_run: true,
            ..Default::default()
        };
        let counted = files.transfer_ownership(transfer.clone()).await.unwrap().into_inner();
        assert_eq!(counted.event_position, "", "it was only counted");
        (transfer.dry_run, transfer.request_id) = (false, REQUEST.to_owned());
        let given = files.transfer_ownership(transfer.clone()).await.unwrap().into_inner();
        for _ in 0..2 {
            assert!(watcher.event().await.position < given.event_position);
        }
        is_next(&mut watcher, Kind::OwnerChanged, &given.event_position).await;
        assert_eq!(files.transfer_ownership(transfer.clone()).await.unwrap().into_inner(), given, "a retry");
        transfer.request_id.clear();
        let none = files.transfer_ownership(transfer).await.unwrap().into_inner();
        assert_eq!(none.event_position, "", "nothing was left to give");

        let request = BatchDeleteFilesRequest { file_ids, request_id: String::new() };
        let deleted = files.batch_delete_files(request.clone()).await.unwrap().into_inner();
        for _ in 0..2 {
            assert!(watcher.event().await.position < deleted.event_position);
        }
        is_next(&mut watcher, Kind::Deleted, &deleted.event_position).await;
        let again = files.batch_delete_files(request).await.unwrap().into_inner();
        assert_eq!(again.event_position, "", "they were in the trash already");
    });
}

#[test]
fn a_retry_is_told_the_position_of_the_first_time() {
    service_test(|s| async move {
        let alice = s.alice();
        let retried = UploadSpec { request_id: REQUEST.to_owned(), ..spec("a") };
        let first = alice.upload(retried.clone(), b"x").await.unwrap();
        uploaded(&alice, spec("b")).await;
        let again = alice.upload(retried, b"x").await.unwrap();
        assert_eq!(first.event_position.len(), 32);
        assert_eq!(again.event_position, first.event_position);

        let request = PurgeFileRequest {
            file_id: file_id(&first),
            request_id: "0193a7a0-0000-7000-8000-0000000000ab".into(),
            ..PurgeFileRequest::default()
        };
        let first = alice.files.clone().purge_file(request.clone()).await.unwrap().into_inner();
        let again = alice.files.clone().purge_file(request).await.unwrap().into_inner();
        assert_eq!(again.event_position, first.event_position);
    });
}
