//! Resumable uploads: resumption after an interruption and on another replica, fencing, retries,
//! cancellation, expiry.

use chrono::Duration;
use futures::{SinkExt, channel::mpsc};
use strongroom::{
    app::uploads::expire::expire_uploads,
    domain::object_key::ObjectKey,
    proto::v1::{Upload, UploadFileRequest, UploadFileResponse, UploadSpec, UploadState},
    storage::{
        MultipartId, StorageErrorKind,
        flaky::{Fault, Operation, Plan},
    },
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{
    PART, Service, file_id, pattern, reason, resume_messages, service_test, sha256, spec, violated_fields,
};

/// Three parts and a remainder.
const SIZE: usize = 3 * PART + 1234;

fn sized(name: &str, size: usize) -> UploadSpec {
    UploadSpec { size_bytes: Some(size as i64), ..spec(name) }
}

/// Returns the offset from which to resume, according to an error.
fn persisted_size_bytes(status: &Status) -> usize {
    let details = status.get_error_details();
    details.error_info().unwrap().metadata["persisted_size_bytes"].parse().unwrap()
}

#[test]
fn upload_resumes_on_another_replica_without_reads() {
    service_test(|s| async move {
        let data = pattern(SIZE);
        let upload = s.alice().create_upload(sized("a.bin", SIZE)).await.unwrap();
        assert_eq!(upload.part_size_bytes, PART as i64);

        let broken = s.alice().resume_upload(&upload.id, &data[..2 * PART + 77], 0, false).await.unwrap_err();
        assert_eq!((broken.code(), reason(&broken)), (Code::Aborted, "UPLOAD_NOT_FINISHED".to_owned()));
        assert_eq!(persisted_size_bytes(&broken), 2 * PART, "whole parts are persisted");

        let replica = s.start_replica(|_| {}).await;
        let alice = replica.alice();
        let at = alice.get_upload(&upload.id).await.unwrap();
        assert_eq!((at.persisted_size_bytes, at.state()), (2 * PART as i64, UploadState::Pending));
        let response = alice.resume_upload(&upload.id, &data, 2 * PART, true).await.unwrap();
        assert_eq!(response.file.as_ref().unwrap().sha256, sha256(&data));
        assert_eq!(s.faults.call_count(Operation::Get) + replica.faults.call_count(Operation::Get), 0);
        assert_eq!(alice.read(&file_id(&response)).await.unwrap(), data);
        replica.stop().await;
    });
}

#[test]
fn created_upload_reserves_its_size() {
    service_test(|s| async move {
        s.ada().set_limit_bytes(1_000_000).await;
        let upload = s.alice().create_upload(sized("a.bin", 900_000)).await.unwrap();
        let quota = s.alice().quota().await.unwrap();
        assert_eq!((quota.used_bytes, quota.reserved_bytes), (0, 900_000));
        for error in [
            s.bob().create_upload(sized("b.bin", 200_000)).await.unwrap_err(),
            s.bob().upload(spec("b.bin"), &pattern(200_000)).await.unwrap_err(),
        ] {
            assert_eq!(reason(&error), "QUOTA_BYTES_EXCEEDED");
        }
        s.alice().cancel_upload(&upload.id).await.unwrap();
        s.bob().upload(spec("b.bin"), &pattern(200_000)).await.unwrap();
    });
}

#[test]
fn invalid_spec_reports_all_fields_on_create() {
    service_test(|s| async move {
        let bad = UploadSpec { category: "nonsense".into(), retention_days: -1, ..spec("run.exe") };
        let error = s.alice().create_upload(bad).await.unwrap_err();
        assert_eq!(violated_fields(&error), ["spec.name", "spec.retention_days", "spec.category"]);
    });
}

#[test]
fn request_id_creates_one_upload() {
    service_test(|s| async move {
        let id = "0198c0de-0000-7000-8000-000000000001";
        let request = UploadSpec { request_id: id.into(), ..sized("a.bin", SIZE) };
        let attempts = (0..8).map(|_| {
            let (alice, request) = (s.alice(), request.clone());
            async move { alice.create_upload(request).await }
        });
        let results = futures::future::join_all(attempts).await;
        let mut created: Vec<Upload> = Vec::new();
        for result in results {
            match result {
                Ok(upload) => created.push(upload),
                Err(busy) => assert_eq!(reason(&busy), "REQUEST_IN_PROGRESS"),
            }
        }
        created.push(s.alice().create_upload(request.clone()).await.unwrap());
        assert!(created.iter().all(|upload| *upload == created[0]), "{created:?}");
        assert_eq!(s.alice().quota().await.unwrap().reserved_bytes, SIZE as i64);
        let other = UploadSpec { title: "other".into(), ..request };
        assert_eq!(reason(&s.alice().create_upload(other).await.unwrap_err()), "REQUEST_ID_REUSED");
        s.alice().cancel_upload(&created[0].id).await.unwrap();
    });
}

#[test]
fn repeated_finish_returns_same_file() {
    service_test(|s| async move {
        let data = pattern(SIZE);
        let upload = s.alice().create_upload(spec("a.bin")).await.unwrap();
        s.alice().resume_upload(&upload.id, &data, 0, false).await.unwrap_err();
        let first = s.alice().resume_upload(&upload.id, &data, 3 * PART, true).await.unwrap();
        let retries = futures::future::join_all((0..4).map(|_| {
            let (alice, data, id) = (s.alice(), data.clone(), upload.id.clone());
            async move { alice.resume_upload(&id, &data, SIZE, true).await.unwrap() }
        }));
        for response in retries.await {
            assert_eq!(response.file, first.file);
        }
        let at = s.alice().get_upload(&upload.id).await.unwrap();
        assert_eq!((at.state(), at.file_id), (UploadState::Committed, file_id(&first)));
        assert_eq!(s.alice().quota().await.unwrap().file_count, 1);
    });
}

/// An `UploadFile` stream that a test writes to step by step.
pub(crate) struct LiveStream {
    messages: mpsc::Sender<UploadFileRequest>,
    response: tokio::task::JoinHandle<Result<UploadFileResponse, Status>>,
}

impl LiveStream {
    pub(crate) fn open(s: &Service) -> Self {
        let (messages, receiver) = mpsc::channel(1);
        let mut files = s.alice().files;
        let response =
            tokio::spawn(async move { files.upload_file(receiver).await.map(tonic::Response::into_inner) });
        Self { messages, response }
    }

    pub(crate) async fn send(&mut self, messages: Vec<UploadFileRequest>) {
        for message in messages {
            self.messages.send(message).await.unwrap();
        }
    }

    /// Sends messages until the server ends the call.
    pub(crate) async fn send_until_closed(&mut self, messages: Vec<UploadFileRequest>) {
        for message in messages {
            if self.messages.send(message).await.is_err() {
                break;
            }
        }
    }

    /// Ends the stream and returns the response.
    pub(crate) async fn finish(self) -> Result<UploadFileResponse, Status> {
        drop(self.messages);
        self.response.await.unwrap()
    }
}

#[test]
fn resumption_fences_previous_stream() {
    service_test(|s| async move {
        let data = pattern(SIZE);
        let upload = s.alice().create_upload(sized("a.bin", SIZE)).await.unwrap();
        let mut first = LiveStream::open(&s);
        first.send(resume_messages(&upload.id, &data[..PART + 5], 0, false)).await;
        s.wait_until("the first part is persisted", || async {
            s.alice().get_upload(&upload.id).await.unwrap().persisted_size_bytes == PART as i64
        })
        .await;

        let second = s.alice().resume_upload(&upload.id, &data, PART, true).await.unwrap();

        first.send_until_closed(resume_messages(&upload.id, &data, PART + 5, true)[1..].to_vec()).await;
        let fenced = first.finish().await.unwrap_err();
        assert_eq!((fenced.code(), reason(&fenced)), (Code::Aborted, "UPLOAD_FENCED".to_owned()));
        assert_eq!(s.alice().read(&file_id(&second)).await.unwrap(), data);
    });
}

#[test]
fn bytes_of_fenced_stream_are_discarded() {
    service_test(|s| async move {
        let data = pattern(SIZE);
        let upload = s.alice().create_upload(sized("a.bin", SIZE)).await.unwrap();
        let mut first = LiveStream::open(&s);
        first.send(resume_messages(&upload.id, &data[..PART + 5], 0, false)).await;
        let stored = || async { s.alice().get_upload(&upload.id).await.unwrap().persisted_size_bytes };
        s.wait_until("the first part is persisted", || async { stored().await == PART as i64 }).await;
        s.alice().resume_upload(&upload.id, &data[..PART], PART, false).await.unwrap_err();

        let mut other = data.clone();
        other[PART + 99] ^= 1;
        let rest = resume_messages(&upload.id, &other[..2 * PART], PART + 5, false);
        first.send_until_closed(rest[1..].to_vec()).await;
        assert_eq!(reason(&first.finish().await.unwrap_err()), "UPLOAD_FENCED");
        assert_eq!(stored().await, PART as i64);
        let response = s.alice().resume_upload(&upload.id, &data, PART, true).await.unwrap();
        assert_eq!(s.alice().read(&file_id(&response)).await.unwrap(), data);
    });
}

#[test]
fn resent_bytes_must_equal_persisted_ones() {
    service_test(|s| async move {
        let data = pattern(SIZE);
        let upload = s.alice().create_upload(sized("a.bin", SIZE)).await.unwrap();
        s.alice().resume_upload(&upload.id, &data[..2 * PART], 0, false).await.unwrap_err();

        let mut other = data.clone();
        other[PART + 3] ^= 1;
        let error = s.alice().resume_upload(&upload.id, &other[..2 * PART], 0, false).await.unwrap_err();
        assert_eq!(
            (error.code(), reason(&error)),
            (Code::InvalidArgument, "UPLOAD_CONTENT_DIFFERS".to_owned())
        );
        // A wrong digest leaves the persisted parts unchanged.
        let mut messages = resume_messages(&upload.id, &data, 2 * PART, true);
        if let Some(strongroom::proto::v1::upload_file_request::Message::Finish(finish)) =
            &mut messages.last_mut().unwrap().message
        {
            finish.sha256 = Some(sha256(&other));
        }
        assert_eq!(reason(&s.alice().send_messages(messages).await.unwrap_err()), "CHECKSUM_MISMATCH");

        // A stream may start at any part boundary.
        let response = s.alice().resume_upload(&upload.id, &data, PART, true).await.unwrap();
        assert_eq!(s.alice().read(&file_id(&response)).await.unwrap(), data);
    });
}

#[test]
fn rejects_stream_that_starts_off_part_boundary() {
    service_test(|s| async move {
        let data = pattern(SIZE);
        let upload = s.alice().create_upload(spec("a.bin")).await.unwrap();
        s.alice().resume_upload(&upload.id, &data[..2 * PART], 0, false).await.unwrap_err();
        for wrong in [1, PART - 1, PART + 1, 2 * PART + 1, 3 * PART] {
            let gap = s.alice().resume_upload(&upload.id, &data, wrong, true).await.unwrap_err();
            assert_eq!((gap.code(), reason(&gap)), (Code::OutOfRange, "UPLOAD_OFFSET_GAP".to_owned()));
            assert_eq!(persisted_size_bytes(&gap), 2 * PART);
        }
        s.alice().resume_upload(&upload.id, &data, 2 * PART, true).await.unwrap();
    });
}

#[test]
fn cancel_releases_reservation_and_fences_stream() {
    service_test(|s| async move {
        let data = pattern(SIZE);
        let upload = s.alice().create_upload(sized("a.bin", SIZE)).await.unwrap();
        let mut live = LiveStream::open(&s);
        live.send(resume_messages(&upload.id, &data[..PART + 5], 0, false)).await;
        s.wait_until("the first part is persisted", || async {
            s.alice().get_upload(&upload.id).await.unwrap().persisted_size_bytes == PART as i64
        })
        .await;
        s.alice().cancel_upload(&upload.id).await.unwrap();
        assert_eq!(s.alice().quota().await.unwrap().reserved_bytes, 0);
        live.send_until_closed(resume_messages(&upload.id, &data, PART + 5, true)[1..].to_vec()).await;
        assert_eq!(reason(&live.finish().await.unwrap_err()), "UPLOAD_FENCED");
        for error in [
            s.alice().get_upload(&upload.id).await.unwrap_err(),
            s.alice().cancel_upload(&upload.id).await.unwrap_err(),
            s.alice().resume_upload(&upload.id, &data, 0, true).await.unwrap_err(),
        ] {
            assert_eq!(error.code(), Code::NotFound);
        }
    });
}

#[test]
fn cancel_of_committed_upload_returns_file_id() {
    service_test(|s| async move {
        let upload = s.alice().create_upload(spec("a.txt")).await.unwrap();
        let response = s.alice().resume_upload(&upload.id, b"hello", 0, true).await.unwrap();
        let error = s.alice().cancel_upload(&upload.id).await.unwrap_err();
        assert_eq!((error.code(), reason(&error)), (Code::FailedPrecondition, "UPLOAD_COMMITTED".to_owned()));
        let details = error.get_error_details();
        assert_eq!(details.error_info().unwrap().metadata["file_id"], file_id(&response));
    });
}

#[test]
fn idle_upload_expires_and_active_one_does_not() {
    service_test(|s| async move {
        let data = pattern(SIZE);
        let idle = s.alice().create_upload(sized("idle.bin", SIZE)).await.unwrap();
        let active = s.alice().create_upload(sized("active.bin", SIZE)).await.unwrap();
        s.clock.advance(Duration::hours(20));
        s.alice().resume_upload(&active.id, &data[..PART], 0, false).await.unwrap_err();
        s.clock.advance(Duration::hours(5));
        assert_eq!(s.alice().get_upload(&idle.id).await.unwrap_err().code(), Code::NotFound);
        expire_uploads(&s.app).await.unwrap();
        assert_eq!(
            s.alice().quota().await.unwrap().reserved_bytes,
            SIZE as i64,
            "the reservation of the active upload"
        );
        s.alice().resume_upload(&active.id, &data, PART, true).await.unwrap();
    });
}

#[test]
fn upload_of_unknown_size_resumes_after_quota_increase() {
    service_test(|s| async move {
        let data = pattern(SIZE);
        s.ada().set_limit_bytes(2 * PART as i64 + 10).await;
        let upload = s.alice().create_upload(spec("a.bin")).await.unwrap();
        assert_eq!(s.alice().quota().await.unwrap().reserved_bytes, 0);
        let error = s.alice().resume_upload(&upload.id, &data, 0, true).await.unwrap_err();
        assert_eq!(reason(&error), "QUOTA_BYTES_EXCEEDED");
        s.wait_until("the parts before the limit are persisted", || async {
            s.alice().get_upload(&upload.id).await.unwrap().persisted_size_bytes == 2 * PART as i64
        })
        .await;
        s.ada().set_limit_bytes(10 * PART as i64).await;
        let response = s.alice().resume_upload(&upload.id, &data, 2 * PART, true).await.unwrap();
        assert_eq!(s.alice().read(&file_id(&response)).await.unwrap(), data);
    });
}

#[test]
fn uploads_empty_files_and_exact_part_multiples() {
    service_test(|s| async move {
        for size in [0, 1, PART, 2 * PART] {
            let data = pattern(size);
            let upload = s.alice().create_upload(sized("a.bin", size)).await.unwrap();
            let response = s.alice().resume_upload(&upload.id, &data, 0, true).await.unwrap();
            assert_eq!(s.alice().read(&file_id(&response)).await.unwrap(), data);
        }
    });
}

#[test]
fn rewritten_part_is_detected_and_reuploaded() {
    service_test(|s| async move {
        let data = pattern(SIZE);
        let upload = s.alice().create_upload(sized("a.bin", SIZE)).await.unwrap();
        s.alice().resume_upload(&upload.id, &data[..2 * PART], 0, false).await.unwrap_err();
        let key = s.superuser.query_texts("SELECT storage_key FROM uploads").await.remove(0);
        let multipart = s.superuser.query_texts("SELECT multipart_id FROM uploads").await.remove(0);
        let late = bytes::Bytes::from(vec![9; PART]);
        let key = ObjectKey::parse(&key).unwrap();
        s.store.put_part(&key, &MultipartId::new(multipart), 1, [late].into_iter().collect()).await.unwrap();

        let error = s.alice().resume_upload(&upload.id, &data, 2 * PART, true).await.unwrap_err();
        assert_eq!((reason(&error), persisted_size_bytes(&error)), ("UPLOAD_NOT_FINISHED".to_owned(), 0));
        let response = s.alice().resume_upload(&upload.id, &data, 0, true).await.unwrap();
        assert_eq!(s.alice().read(&file_id(&response)).await.unwrap(), data);
    });
}

#[test]
fn admin_lists_and_cancels_uploads_of_others() {
    service_test(|s| async move {
        let mut alices = Vec::new();
        for n in 0..3 {
            alices.push(s.alice().create_upload(spec(&format!("{n}.bin"))).await.unwrap().id);
        }
        let bobs = s.bob().create_upload(spec("b.bin")).await.unwrap().id;
        assert_eq!(s.alice().list_upload_ids(2).await, alices);
        assert_eq!(s.bob().list_upload_ids(2).await, std::slice::from_ref(&bobs));
        let all: Vec<String> = alices.iter().cloned().chain([bobs]).collect();
        assert_eq!(s.ada().list_upload_ids(2).await, all);
        assert!(s.gus().list_upload_ids(2).await.is_empty());

        assert_eq!(s.bob().get_upload(&alices[0]).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(s.bob().cancel_upload(&alices[0]).await.unwrap_err().code(), Code::NotFound);
        let error = s.ada().resume_upload(&alices[0], b"x", 0, true).await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound, "only the creator can resume an upload");
        s.alice().resume_upload(&alices[0], b"x", 0, true).await.unwrap();
        for id in &all[1..] {
            s.ada().cancel_upload(id).await.unwrap();
        }
    });
}

#[test]
fn upload_stays_cancelled_when_store_fails_to_abort() {
    service_test(|s| async move {
        let upload = s.alice().create_upload(sized("a.bin", SIZE)).await.unwrap();
        s.faults.set_plan(Plan::new().with_fault(
            Operation::AbortMultipart,
            s.faults.call_count(Operation::AbortMultipart) + 1,
            Fault::Before(StorageErrorKind::Unavailable),
        ));
        s.alice().cancel_upload(&upload.id).await.unwrap();
        assert_eq!(s.alice().quota().await.unwrap().reserved_bytes, 0);
        assert_eq!(s.alice().get_upload(&upload.id).await.unwrap_err().code(), Code::NotFound);
        s.clock.advance(Duration::hours(25));
        expire_uploads(&s.app).await.unwrap();
    });
}

#[test]
fn parts_after_a_gap_are_discarded() {
    service_test(|s| async move {
        let data = pattern(SIZE);
        let upload = s.alice().create_upload(sized("a.bin", SIZE)).await.unwrap();
        s.alice().resume_upload(&upload.id, &data[..3 * PART], 0, false).await.unwrap_err();
        s.superuser.execute("DELETE FROM upload_parts WHERE number = 2").await;

        let mut other = data.clone();
        other[PART + 7] ^= 1;
        let error = s.alice().resume_upload(&upload.id, &other[..2 * PART], PART, false).await.unwrap_err();
        assert_eq!(persisted_size_bytes(&error), 2 * PART);
        assert_eq!(s.alice().get_upload(&upload.id).await.unwrap().persisted_size_bytes, 2 * PART as i64);
        let response = s.alice().resume_upload(&upload.id, &other, 2 * PART, true).await.unwrap();
        assert_eq!(response.file.as_ref().unwrap().sha256, sha256(&other));
        assert_eq!(s.alice().read(&file_id(&response)).await.unwrap(), other);
    });
}

#[test]
fn upload_id_may_equal_request_id_of_another_call() {
    service_test(|s| async move {
        let upload = s.alice().create_upload(spec("a.txt")).await.unwrap();
        let other = UploadSpec { request_id: upload.id.clone(), ..spec("b.txt") };
        s.alice().upload(other, b"other").await.unwrap();
        let response = s.alice().resume_upload(&upload.id, b"hello", 0, true).await.unwrap();
        assert_eq!(s.alice().read(&file_id(&response)).await.unwrap(), b"hello"[..]);
    });
}

#[test]
fn version_upload_to_purged_file_releases_reservation() {
    service_test(|s| async move {
        let id = file_id(&s.alice().upload(spec("a.txt"), b"one").await.unwrap());
        let version = UploadSpec { file_id: id.clone(), size_bytes: Some(5), ..UploadSpec::default() };
        let upload = s.alice().create_upload(version).await.unwrap();
        s.alice().purge(&id).await.unwrap();
        let error = s.alice().resume_upload(&upload.id, b"hello", 0, true).await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
        s.wait_until("the reservation is released", || async {
            s.alice().quota().await.unwrap().reserved_bytes == 0
        })
        .await;
    });
}
