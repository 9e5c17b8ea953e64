//! Failing uploads: storage faults, a full quota, an expired lease. `tests/faults` covers broken connections
//! and clients.

use futures::{SinkExt, channel::mpsc};
use strongroom::{
    proto::v1::{ListFilesRequest, UploadSpec},
    storage::{
        StorageErrorKind,
        flaky::{Fault, Operation, Plan},
    },
};
use tonic::Code;
use tonic_types::StatusExt;

use crate::{
    harness::{PART, file_id, reason, service_test, spec, upload_messages},
    upload::pattern,
};

#[test]
fn storage_error_fails_upload_and_leaves_nothing() {
    service_test(|s| async move {
        let alice = s.alice();
        let failing = [
            (10, Operation::Put),
            (3 * PART, Operation::StartMultipart),
            (3 * PART, Operation::PutPart),
            (3 * PART, Operation::CompleteMultipart),
        ];
        for (size, operation) in failing {
            for kind in
                [StorageErrorKind::Transient, StorageErrorKind::Unavailable, StorageErrorKind::NoSpace]
            {
                s.faults.set_plan(Plan::new().with_fault(operation, 1, Fault::Before(kind)));
                let status = alice.upload(spec("a"), &pattern(size)).await.unwrap_err();
                let is_full = kind == StorageErrorKind::NoSpace;
                let expected = match is_full {
                    true => (Code::ResourceExhausted, "STORAGE_FULL"),
                    false => (Code::Unavailable, "STORAGE_UNAVAILABLE"),
                };
                let got = (status.code(), reason(&status));
                assert_eq!((got.0, got.1.as_str()), expected, "{operation:?} {kind:?}");
                assert_eq!(status.get_error_details().retry_info().is_some(), !is_full);
                s.assert_nothing_is_left().await;
            }
        }
        s.faults.set_plan(Plan::new());
        alice.upload(spec("a"), &pattern(3 * PART)).await.unwrap();
    });
}

#[test]
fn lost_response_of_store_leaves_no_object() {
    service_test(|s| async move {
        for (size, operation) in
            [(10, Operation::Put), (3 * PART, Operation::PutPart), (3 * PART, Operation::CompleteMultipart)]
        {
            let lost = Fault::After(StorageErrorKind::Transient);
            s.faults.set_plan(Plan::new().with_fault(operation, 1, lost));
            let status = s.alice().upload(spec("a"), &pattern(size)).await.unwrap_err();
            assert_eq!(status.code(), Code::Unavailable, "{operation:?}");
            s.assert_nothing_is_left().await;
        }
    });
}

#[test]
fn late_part_failure_aborts_whole_upload() {
    service_test(|s| async move {
        let late = Fault::Before(StorageErrorKind::Transient);
        s.faults.set_plan(Plan::new().with_fault(Operation::PutPart, 7, late));
        let status = s.alice().upload(spec("a"), &pattern(12 * PART)).await.unwrap_err();
        assert_eq!(reason(&status), "STORAGE_UNAVAILABLE");
        s.assert_nothing_is_left().await;
    });
}

#[test]
fn upload_beyond_quota_releases_its_reservation() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        ada.set_limit_bytes(2 * PART as i64).await;
        for (size, is_size_known) in
            [(2 * PART + 1, true), (2 * PART + 1, false), (20 * PART, true), (20 * PART, false)]
        {
            let sized = UploadSpec { size_bytes: is_size_known.then_some(size as i64), ..spec("a") };
            let status = alice.upload(sized, &pattern(size)).await.unwrap_err();
            let actual = (status.code(), reason(&status));
            assert_eq!(
                actual,
                (Code::ResourceExhausted, "QUOTA_BYTES_EXCEEDED".to_owned()),
                "{size} {is_size_known}"
            );
            let details = status.get_error_details();
            assert!(details.quota_failure().is_some() && details.retry_info().is_none());
            s.assert_nothing_is_left().await;
        }
        // An upload that fills the quota exactly succeeds, with a known size or without.
        let id = file_id(&alice.upload(spec("a"), &pattern(2 * PART)).await.unwrap());
        let status = alice.upload(spec("b"), b"x").await.unwrap_err();
        assert_eq!(reason(&status), "QUOTA_BYTES_EXCEEDED");
        alice.upload(spec("empty"), b"").await.unwrap();
        ada.purge(&id).await.unwrap();
        let sized = UploadSpec { size_bytes: Some(2 * PART as i64), ..spec("c") };
        alice.upload(sized, &pattern(2 * PART)).await.unwrap();
    });
}

#[test]
fn upload_of_unknown_size_can_fill_quota_exactly() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        // An upload of unknown size reserves four parts at a time. Eleven parts and a remainder fit only if
        // the last reservation is reduced to the bytes needed.
        let size = 11 * PART + 123;
        ada.set_limit_bytes(size as i64).await;
        alice.upload(spec("a"), &pattern(size)).await.unwrap();
        let row = s.quota_row(&alice).await;
        assert_eq!((row.used_bytes, row.reserved_bytes), (size as i64, 0));
    });
}

#[test]
fn running_upload_holds_its_reservation() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        ada.set_limit_bytes(10 * PART as i64).await;
        let (mut sender, stream) = mpsc::channel(1);
        let mut files = alice.files.clone();
        let sized = UploadSpec { size_bytes: Some(8 * PART as i64), ..spec("large") };
        let mut messages = upload_messages(sized, &pattern(8 * PART), PART);
        let rest = messages.split_off(4);
        let running = tokio::spawn(async move { files.upload_file(stream).await });
        for message in messages {
            sender.send(message).await.unwrap();
        }
        s.wait_until("the size is reserved", || async {
            s.quota_row(&alice).await.reserved_bytes == 8 * PART as i64
        })
        .await;
        assert_eq!(s.quota_row(&alice).await.reserved_file_count, 1);
        let second = UploadSpec { size_bytes: Some(3 * PART as i64), ..spec("second") };
        let status = alice.upload(second, &pattern(3 * PART)).await.unwrap_err();
        assert_eq!(reason(&status), "QUOTA_BYTES_EXCEEDED");
        alice.upload(spec("small"), &pattern(PART)).await.unwrap();
        assert_eq!(alice.list(ListFilesRequest::default()).await.unwrap().files.len(), 1);
        for message in rest {
            sender.send(message).await.unwrap();
        }
        drop(sender);
        running.await.unwrap().unwrap();
        let row = s.quota_row(&alice).await;
        assert_eq!((row.used_bytes, row.reserved_bytes, row.file_count), (9 * PART as i64, 0, 2));
    });
}

#[test]
fn failed_clean_up_is_repeated_after_lease_expiry() {
    service_test(|s| async move {
        let fault = Fault::Before(StorageErrorKind::Unavailable);
        for operation in [Operation::AbortMultipart, Operation::Delete] {
            s.faults.set_plan(Plan::new().with_fault(operation, 1, fault).with_fault(
                Operation::CompleteMultipart,
                1,
                fault,
            ));
            let status = s.alice().upload(spec("a"), &pattern(3 * PART)).await.unwrap_err();
            assert_eq!(reason(&status), "STORAGE_UNAVAILABLE");
            s.wait_until("the clean-up was tried", || async { s.faults.call_count(operation) == 1 }).await;
            s.clock.advance(chrono::Duration::hours(25));
            s.wait_until("the worker cleans up", || async {
                strongroom::worker::run_round(&s.app).await;
                s.store.list_multiparts("", None, 10).await.unwrap().multiparts.is_empty()
                    && s.store.list("", None, 10).await.unwrap().objects.is_empty()
            })
            .await;
            s.assert_nothing_is_left().await;
        }
    });
}

#[test]
fn upload_cannot_commit_after_lease_expiry() {
    service_test(|s| async move {
        let alice = s.alice();
        // The tenant exists. Otherwise the worker would settle its first call too.
        alice.quota().await.unwrap();
        let sized = UploadSpec { size_bytes: Some(4 * PART as i64), ..spec("slow") };
        let mut messages = upload_messages(sized, &pattern(4 * PART), PART);
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
        assert_eq!(strongroom::worker::run_round(&s.app).await.done, 0, "the lease has not expired");
        s.clock.advance(chrono::Duration::hours(25));
        assert_eq!(strongroom::worker::run_round(&s.app).await.done, 1, "the lease has expired");
        let reserved = "SELECT sum(reserved_bytes) FROM quotas";
        assert_eq!(s.superuser.query_number(reserved).await, 0);
        for message in rest {
            // The service may have ended the call already.
            let _ = sender.send(message).await;
        }
        drop(sender);
        let status = running.await.unwrap().unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Aborted, "UPLOAD_FENCED"));
        s.assert_nothing_is_left().await;
    });
}
