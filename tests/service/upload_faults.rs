//! Uploads that go wrong for reasons of their own: a store that fails, a quota that is full, a lease that runs out. What
//! breaks from outside, such as clients that disappear, is in `tests/faults`.

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
fn a_store_that_refuses_is_unavailable_and_leaves_nothing() {
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
                assert_eq!(
                    (status.code(), reason(&status).as_str()),
                    (Code::Unavailable, "STORAGE_UNAVAILABLE"),
                    "{operation:?} {kind:?}"
                );
                assert!(status.get_error_details().retry_info().is_some());
                s.assert_nothing_is_left().await;
            }
        }
        s.faults.set_plan(Plan::new());
        alice.upload(spec("a"), &pattern(3 * PART)).await.unwrap();
    });
}

#[test]
fn a_write_whose_answer_was_lost_leaves_no_object_behind() {
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
fn a_part_that_fails_late_in_the_stream_takes_the_whole_upload_with_it() {
    service_test(|s| async move {
        let late = Fault::Before(StorageErrorKind::Transient);
        s.faults.set_plan(Plan::new().with_fault(Operation::PutPart, 7, late));
        let status = s.alice().upload(spec("a"), &pattern(12 * PART)).await.unwrap_err();
        assert_eq!(reason(&status), "STORAGE_UNAVAILABLE");
        s.assert_nothing_is_left().await;
    });
}

#[test]
fn an_upload_beyond_the_quota_is_refused_and_its_reservation_released() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        ada.limit_bytes(2 * PART as i64).await;
        for (size, is_told) in
            [(2 * PART + 1, true), (2 * PART + 1, false), (20 * PART, true), (20 * PART, false)]
        {
            let told = UploadSpec { size_bytes: is_told.then_some(size as i64), ..spec("a") };
            let status = alice.upload(told, &pattern(size)).await.unwrap_err();
            let got = (status.code(), reason(&status));
            assert_eq!(got, (Code::ResourceExhausted, "QUOTA_BYTES_EXCEEDED".to_owned()), "{size} {is_told}");
            let details = status.get_error_details();
            assert!(details.quota_failure().is_some() && details.retry_info().is_none());
            s.assert_nothing_is_left().await;
        }
        // What fits to the byte is taken, told or not.
        let id = file_id(&alice.upload(spec("a"), &pattern(2 * PART)).await.unwrap());
        let status = alice.upload(spec("b"), b"x").await.unwrap_err();
        assert_eq!(reason(&status), "QUOTA_BYTES_EXCEEDED");
        alice.upload(spec("empty"), b"").await.unwrap();
        ada.purge(&id).await.unwrap();
        let told = UploadSpec { size_bytes: Some(2 * PART as i64), ..spec("c") };
        alice.upload(told, &pattern(2 * PART)).await.unwrap();
    });
}

#[test]
fn an_upload_of_unknown_size_reserves_before_it_takes_and_fits_to_the_last_byte() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        // Steps are four parts; eleven parts and a bit fit only if the last step is cut to what is needed.
        let size = 11 * PART + 123;
        ada.limit_bytes(size as i64).await;
        alice.upload(spec("a"), &pattern(size)).await.unwrap();
        let book = s.book(&alice).await;
        assert_eq!((book.used_bytes, book.reserved_bytes), (size as i64, 0));
    });
}

#[test]
fn while_a_large_upload_runs_its_room_is_taken() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        ada.limit_bytes(10 * PART as i64).await;
        let (mut sender, stream) = mpsc::channel(1);
        let mut files = alice.files.clone();
        let told = UploadSpec { size_bytes: Some(8 * PART as i64), ..spec("large") };
        let mut messages = upload_messages(told, &pattern(8 * PART), PART);
        let rest = messages.split_off(4);
        let running = tokio::spawn(async move { files.upload_file(stream).await });
        for message in messages {
            sender.send(message).await.unwrap();
        }
        s.until("the reservation", || async { s.book(&alice).await.reserved_bytes == 8 * PART as i64 }).await;
        assert_eq!(s.book(&alice).await.reserved_file_count, 1);
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
        let book = s.book(&alice).await;
        assert_eq!((book.used_bytes, book.reserved_bytes, book.file_count), (9 * PART as i64, 0, 2));
    });
}

#[test]
fn what_a_store_would_not_take_back_is_removed_when_the_lease_ends() {
    service_test(|s| async move {
        let refused = Fault::Before(StorageErrorKind::Unavailable);
        for operation in [Operation::AbortMultipart, Operation::Delete] {
            s.faults.set_plan(Plan::new().with_fault(operation, 1, refused).with_fault(
                Operation::CompleteMultipart,
                1,
                refused,
            ));
            let status = s.alice().upload(spec("a"), &pattern(3 * PART)).await.unwrap_err();
            assert_eq!(reason(&status), "STORAGE_UNAVAILABLE");
            s.until("the clean-up was tried", || async { s.faults.call_count(operation) == 1 }).await;
            s.clock.advance(chrono::Duration::hours(25));
            s.until("the worker cleans up", || async {
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
fn an_upload_that_outlives_its_lease_is_given_up_and_can_no_longer_commit() {
    service_test(|s| async move {
        let alice = s.alice();
        let told = UploadSpec { size_bytes: Some(4 * PART as i64), ..spec("slow") };
        let mut messages = upload_messages(told, &pattern(4 * PART), PART);
        let rest = messages.split_off(3);
        let (mut sender, stream) = mpsc::channel(1);
        let mut files = alice.files.clone();
        let running = tokio::spawn(async move { files.upload_file(stream).await });
        for message in messages {
            sender.send(message).await.unwrap();
        }
        s.until("the first part", || async { s.faults.call_count(Operation::PutPart) >= 1 }).await;
        assert_eq!(strongroom::worker::run_round(&s.app).await, 0, "its lease holds");
        s.clock.advance(chrono::Duration::hours(25));
        assert_eq!(strongroom::worker::run_round(&s.app).await, 1, "now it does not");
        let reserved = "SELECT sum(reserved_bytes) FROM quotas";
        assert_eq!(s.owner.number(reserved).await, 0);
        for message in rest {
            // The service may have refused it already.
            let _ = sender.send(message).await;
        }
        drop(sender);
        let status = running.await.unwrap().unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Aborted, "UPLOAD_FENCED"));
        s.assert_nothing_is_left().await;
    });
}
