//! Responses to mutations contain the position of their event, so that a writer can wait for it in a watch.

use strongroom::proto::v1::{
    BatchDeleteFilesRequest, CopyFileRequest, DeleteFileRequest, DeleteFileVersionRequest,
    FileEventKind as Kind, PurgeFileRequest, ReleaseLegalHoldRequest, RestoreFileVersionRequest,
    SetLegalHoldRequest, TransferOwnershipRequest, UploadSpec,
};

use crate::harness::{Watcher, file_id, service_test, spec};
use crate::watch::upload_file;

const REQUEST: &str = "0193a7a0-0000-7000-8000-0000000000aa";

#[test]
fn write_response_contains_event_position() {
    service_test(|s| async move {
        let (alice, mut watcher) = (s.alice(), s.alice().watch_files().await);
        let response = alice.upload(spec("a"), b"x").await.unwrap();
        let event = watcher.next_event().await;
        assert_eq!((&event.position, &event.file_id), (&response.event_position, &file_id(&response)));

        let request = DeleteFileRequest { file_id: file_id(&response), ..DeleteFileRequest::default() };
        let deleted = alice.files.clone().delete_file(request.clone()).await.unwrap().into_inner();
        assert_eq!(watcher.next_event().await.position, deleted.event_position);
        let again = alice.files.clone().delete_file(request).await.unwrap().into_inner();
        assert_eq!(again.event_position, "", "no change, no event");
    });
}

/// Asserts the kind and the position of the next event.
async fn assert_next_event(watcher: &mut Watcher, kind: Kind, position: &str) {
    let event = watcher.next_event().await;
    assert_eq!((event.kind(), event.position.as_str()), (kind, position));
}

async fn skip_events(watcher: &mut Watcher, count: usize) {
    for _ in 0..count {
        watcher.next_event().await;
    }
}

#[test]
fn version_copy_and_hold_responses_contain_position() {
    service_test(|s| async move {
        let (ada, mut files) = (s.ada(), s.ada().files);
        let mut watcher = ada.watch_files().await;
        let file_id = upload_file(&ada, spec("a")).await;
        ada.upload_version(&file_id, b"y").await.unwrap();
        skip_events(&mut watcher, 2).await;
        let first_version = (file_id.clone(), 1);

        let (file_id, version) = first_version.clone();
        let request = RestoreFileVersionRequest { file_id, version, ..Default::default() };
        let restored = files.restore_file_version(request).await.unwrap().into_inner();
        assert_next_event(&mut watcher, Kind::VersionCreated, &restored.event_position).await;

        let (file_id, version) = first_version;
        let request = DeleteFileVersionRequest { file_id: file_id.clone(), version, ..Default::default() };
        let deleted = files.delete_file_version(request).await.unwrap().into_inner();
        assert_next_event(&mut watcher, Kind::VersionDeleted, &deleted.event_position).await;

        let request = CopyFileRequest { file_id: file_id.clone(), ..Default::default() };
        let copied = files.copy_file(request).await.unwrap().into_inner();
        assert_next_event(&mut watcher, Kind::Created, &copied.event_position).await;

        let (reason, request_id) = ("a dispute".to_owned(), String::new());
        let request = SetLegalHoldRequest {
            file_id: file_id.clone(),
            reason: reason.clone(),
            request_id: request_id.clone(),
        };
        let held = files.set_legal_hold(request.clone()).await.unwrap().into_inner();
        assert_next_event(&mut watcher, Kind::HoldSet, &held.event_position).await;
        let again = files.set_legal_hold(request).await.unwrap().into_inner();
        assert_eq!(again.event_position, "", "the file was on hold already");

        let request = ReleaseLegalHoldRequest { file_id, reason, request_id };
        let released = files.release_legal_hold(request.clone()).await.unwrap().into_inner();
        assert_next_event(&mut watcher, Kind::HoldReleased, &released.event_position).await;
        let again = files.release_legal_hold(request).await.unwrap().into_inner();
        assert_eq!(again.event_position, "", "the hold was released already");
    });
}

#[test]
fn batch_response_contains_position_of_last_event() {
    service_test(|s| async move {
        let (ada, mut files) = (s.ada(), s.ada().files);
        let mut watcher = ada.watch_files().await;
        let file_ids = s.upload_files(&["a", "b", "c"]).await;
        skip_events(&mut watcher, 3).await;
        let mut transfer = TransferOwnershipRequest {
            from_user_id: "alice".to_owned(),
            to_user_id: "bob".to_owned(),
            dry_run: true,
            ..Default::default()
        };
        let counted = files.transfer_ownership(transfer.clone()).await.unwrap().into_inner();
        assert_eq!(counted.event_position, "", "a dry run has no event");
        (transfer.dry_run, transfer.request_id) = (false, REQUEST.to_owned());
        let transferred = files.transfer_ownership(transfer.clone()).await.unwrap().into_inner();
        for _ in 0..2 {
            assert!(watcher.next_event().await.position < transferred.event_position);
        }
        assert_next_event(&mut watcher, Kind::OwnerChanged, &transferred.event_position).await;
        assert_eq!(
            files.transfer_ownership(transfer.clone()).await.unwrap().into_inner(),
            transferred,
            "a retry"
        );
        transfer.request_id.clear();
        let none = files.transfer_ownership(transfer).await.unwrap().into_inner();
        assert_eq!(none.event_position, "", "no files are left to transfer");

        let request = BatchDeleteFilesRequest { file_ids, request_id: String::new() };
        let deleted = files.batch_delete_files(request.clone()).await.unwrap().into_inner();
        for _ in 0..2 {
            assert!(watcher.next_event().await.position < deleted.event_position);
        }
        assert_next_event(&mut watcher, Kind::Deleted, &deleted.event_position).await;
        let again = files.batch_delete_files(request).await.unwrap().into_inner();
        assert_eq!(again.event_position, "", "the files were in the trash already");
    });
}

#[test]
fn retry_returns_position_of_first_call() {
    service_test(|s| async move {
        let alice = s.alice();
        let retried = UploadSpec { request_id: REQUEST.to_owned(), ..spec("a") };
        let first = alice.upload(retried.clone(), b"x").await.unwrap();
        upload_file(&alice, spec("b")).await;
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
