//! Uploads whose parts the store discarded by its own rule, and completions that the store rejects.

use chrono::Duration;
use futures::{SinkExt, channel::mpsc};
use strongroom::{
    proto::v1::UploadSpec,
    storage::{
        StorageErrorKind,
        flaky::{Fault, Operation, Plan},
    },
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{
    PART, Service, direct_test, file_id, pattern, reason, service_test, spec, upload_messages,
};

const SIZE: usize = 3 * PART + 1234;

fn sized(name: &str, size: usize) -> UploadSpec {
    UploadSpec { size_bytes: Some(size as i64), ..spec(name) }
}

/// Aborts all multipart uploads, as the lifecycle rule of a store does.
async fn abort_in_store(s: &Service) {
    for open in s.store.list_multiparts("", None, 100).await.unwrap().multiparts {
        s.store.abort_multipart(&open.key, &open.id).await.unwrap();
    }
}

/// Checks that the client is asked to send all bytes again.
fn assert_begins_again(error: &Status) {
    assert_eq!((error.code(), reason(error).as_str()), (Code::Aborted, "UPLOAD_NOT_FINISHED"));
    let details = error.get_error_details();
    assert_eq!(details.error_info().unwrap().metadata["persisted_size_bytes"], "0");
}

#[test]
fn aborted_upload_begins_again_whichever_call_notices_it() {
    service_test(|s| async move {
        let (alice, data) = (s.alice(), pattern(SIZE));
        for sent in [2 * PART, SIZE] {
            let upload = alice.create_upload(sized("a.bin", SIZE)).await.unwrap();
            for (n, part) in data[..sent].chunks(PART).enumerate() {
                alice.upload_part(&upload.id, n * PART, part).await.unwrap();
            }
            abort_in_store(&s).await;
            let error = match sent {
                SIZE => alice.complete_upload(&upload.id, SIZE).await.unwrap_err(),
                _ => alice.upload_part(&upload.id, sent, &data[sent..sent + PART]).await.unwrap_err(),
            };
            assert_begins_again(&error);
            assert_eq!(alice.get_upload(&upload.id).await.unwrap().persisted_size_bytes, 0);
            // A stream notices it as well.
            alice.upload_part(&upload.id, 0, &data[..PART]).await.unwrap();
            abort_in_store(&s).await;
            let error = alice.resume_upload(&upload.id, &data, PART, true).await.unwrap_err();
            assert_begins_again(&error);
            assert_eq!(alice.get_upload(&upload.id).await.unwrap().persisted_size_bytes, 0);
            let response = alice.resume_upload(&upload.id, &data, 0, true).await.unwrap();
            assert!(alice.read(&file_id(&response)).await.unwrap() == data);
        }
        assert!(s.store.list_multiparts("", None, 1).await.unwrap().multiparts.is_empty());
        assert_eq!(s.store.list("", None, 10).await.unwrap().objects.len(), 2);
    });
}

#[test]
fn upload_that_is_aborted_again_and_again_expires() {
    service_test(|s| async move {
        let (alice, data) = (s.alice(), pattern(SIZE));
        let upload = alice.create_upload(sized("a.bin", SIZE)).await.unwrap();
        for _ in 0..6 {
            alice.upload_part(&upload.id, 0, &data[..PART]).await.unwrap();
            abort_in_store(&s).await;
            let error = alice.upload_part(&upload.id, PART, &data[PART..2 * PART]).await.unwrap_err();
            assert_begins_again(&error);
        }
        let expire_time = alice.get_upload(&upload.id).await.unwrap().expire_time;
        s.clock.advance(Duration::hours(20));
        let stored = s.alice().upload_part(&upload.id, 0, &data[..PART]).await.unwrap();
        assert_eq!(stored.persisted_size_bytes, PART as i64);
        assert_eq!(s.alice().get_upload(&upload.id).await.unwrap().expire_time, expire_time, "not renewed");
        s.clock.advance(Duration::hours(20));
        let ended = s.alice().upload_part(&upload.id, PART, &data[PART..2 * PART]).await.unwrap_err();
        assert_eq!(ended.code(), Code::NotFound);
        strongroom::worker::run_round(&s.app).await;
        s.assert_nothing_is_left().await;
    });
}

#[test]
fn aborted_stream_ends_with_its_own_reason() {
    service_test(|s| async move {
        let alice = s.alice();
        let mut messages = upload_messages(sized("slow", 4 * PART), &pattern(4 * PART), PART);
        let rest = messages.split_off(3);
        let (mut sender, stream) = mpsc::channel(1);
        let mut files = alice.files.clone();
        let running = tokio::spawn(async move { files.upload_file(stream).await });
        for message in messages {
            sender.send(message).await.unwrap();
        }
        s.wait_until("the first part is sent to the store", || async {
            s.faults.call_count(Operation::PutPart) >= 1
        })
        .await;
        abort_in_store(&s).await;
        for message in rest {
            // The service may have ended the call already.
            let _ = sender.send(message).await;
        }
        drop(sender);
        let status = running.await.unwrap().unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Aborted, "UPLOAD_PARTS_LOST"));
        s.assert_nothing_is_left().await;
    });
}

#[test]
fn aborted_direct_upload_ends_with_its_own_reason() {
    direct_test(|s| async move {
        let (alice, data) = (s.alice(), pattern(SIZE));
        let direct = alice.create_direct_upload(sized("a.bin", SIZE)).await.unwrap();
        let parts = s.put_parts(&direct, &data).await;
        abort_in_store(&s).await;
        let status = alice.complete_direct_upload(&direct.id, &parts).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Aborted, "UPLOAD_PARTS_LOST"));
        assert_eq!(alice.get_upload(&direct.id).await.unwrap_err().code(), Code::NotFound);
        s.assert_nothing_is_left().await;
    });
}

#[test]
fn rejected_completion_keeps_upload_and_parts() {
    service_test(|s| async move {
        let (alice, data) = (s.alice(), pattern(SIZE));
        let upload = alice.create_upload(sized("a.bin", SIZE)).await.unwrap();
        for (n, part) in data.chunks(PART).enumerate() {
            alice.upload_part(&upload.id, n * PART, part).await.unwrap();
        }
        for kind in [StorageErrorKind::Other, StorageErrorKind::Unavailable, StorageErrorKind::Transient] {
            let rejected = Fault::Before(kind);
            s.faults.set_plan(Plan::new().with_fault(Operation::CompleteMultipart, 1, rejected));
            let error = alice.complete_upload(&upload.id, SIZE).await.unwrap_err();
            let actual = (error.code(), reason(&error));
            assert_eq!(actual, (Code::Unavailable, "STORAGE_UNAVAILABLE".to_owned()), "{kind:?}");
            assert!(error.get_error_details().retry_info().is_some());
            let kept = alice.get_upload(&upload.id).await.unwrap();
            assert_eq!(kept.persisted_size_bytes, SIZE as i64, "{kind:?}");
        }
        let file = alice.complete_upload(&upload.id, SIZE).await.unwrap();
        assert_eq!(s.faults.call_count(Operation::PutPart), 0, "no part was sent again");
        assert!(alice.read(&file.id).await.unwrap() == data);
    });
}

#[test]
fn rejected_completion_of_direct_upload_keeps_parts() {
    direct_test(|s| async move {
        let (alice, data) = (s.alice(), pattern(SIZE));
        let direct = alice.create_direct_upload(sized("a.bin", SIZE)).await.unwrap();
        let parts = s.put_parts(&direct, &data).await;
        let rejected = Fault::Before(StorageErrorKind::Other);
        s.faults.set_plan(Plan::new().with_fault(Operation::CompleteMultipart, 1, rejected));
        let error = alice.complete_direct_upload(&direct.id, &parts).await.unwrap_err();
        assert_eq!(reason(&error), "STORAGE_UNAVAILABLE");
        alice.complete_direct_upload(&direct.id, &parts).await.unwrap();
        strongroom::worker::run_round(&s.app).await;
    });
}

#[test]
fn upload_begins_again_if_store_assembled_other_bytes() {
    service_test(|s| async move {
        s.allow_logged_errors();
        let (alice, data) = (s.alice(), pattern(SIZE));
        let upload = alice.create_upload(sized("a.bin", SIZE)).await.unwrap();
        // The object exists, and the store reports another checksum than that of the parts.
        let damaged = Fault::After(StorageErrorKind::Damaged);
        s.faults.set_plan(Plan::new().with_fault(Operation::CompleteMultipart, 1, damaged));
        assert_begins_again(&alice.resume_upload(&upload.id, &data, 0, true).await.unwrap_err());
        let response = alice.resume_upload(&upload.id, &data, 0, true).await.unwrap();
        assert!(alice.read(&file_id(&response)).await.unwrap() == data);
        assert_eq!(s.store.list("", None, 10).await.unwrap().objects.len(), 1, "the other bytes are deleted");
        s.faults.set_plan(Plan::new().with_fault(Operation::CompleteMultipart, 1, damaged));
        let status = alice.upload(sized("b.bin", SIZE), &data).await.unwrap_err();
        assert_eq!(reason(&status), "UPLOAD_PARTS_LOST");
    });
}

#[test]
fn upload_that_begins_again_renews_its_lease() {
    service_test(|s| async move {
        let (alice, data) = (s.alice(), pattern(SIZE));
        let upload = alice.create_upload(sized("a.bin", SIZE)).await.unwrap();
        alice.upload_part(&upload.id, 0, &data[..PART]).await.unwrap();
        abort_in_store(&s).await;
        assert_begins_again(&alice.upload_part(&upload.id, PART, &data[PART..2 * PART]).await.unwrap_err());
        let expire_seconds = || async {
            let upload = s.alice().get_upload(&upload.id).await.unwrap();
            upload.expire_time.unwrap().seconds
        };
        let before = expire_seconds().await;
        s.clock.advance(Duration::hours(20));
        s.alice().upload_part(&upload.id, 0, &data[..PART]).await.unwrap();
        assert_eq!(expire_seconds().await, before + 20 * 3_600);
        let response = s.alice().resume_upload(&upload.id, &data, PART, true).await.unwrap();
        assert!(s.alice().read(&file_id(&response)).await.unwrap() == data);
    });
}
