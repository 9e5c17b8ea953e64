//! Uploads that are gone on with: after a break, on another replica, by another stream, again after their end.

use chrono::Duration;
use futures::{SinkExt, channel::mpsc};
use strongroom::{
    app::uploads::expire::expire,
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

/// Three parts and some.
const SIZE: usize = 3 * PART + 1234;

fn sized(name: &str, size: usize) -> UploadSpec {
    UploadSpec { size_bytes: Some(size as i64), ..spec(name) }
}

/// The offset that a refusal names, to go on from.
fn persisted(status: &Status) -> usize {
    let details = status.get_error_details();
    details.error_info().unwrap().metadata["persisted_size_bytes"].parse().unwrap()
}

#[test]
fn an_upload_goes_on_where_it_broke_also_on_another_replica_and_nothing_is_read_again() {
    service_test(|s| async move {
        let data = pattern(SIZE);
        let upload = s.alice().create(sized("a.bin", SIZE)).await.unwrap();
        assert_eq!(upload.part_size_bytes, PART as i64);

        let broken = s.alice().go_on(&upload.id, &data[..2 * PART + 77], 0, false).await.unwrap_err();
        assert_eq!((broken.code(), reason(&broken)), (Code::Aborted, "UPLOAD_NOT_FINISHED".to_owned()));
        assert_eq!(persisted(&broken), 2 * PART, "whole parts are kept");

        let replica = s.replica(|_| {}).await;
        let alice = replica.alice();
        let at = alice.upload_at(&upload.id).await.unwrap();
        assert_eq!((at.persisted_size_bytes, at.state()), (2 * PART as i64, UploadState::Open));
        let answer = alice.go_on(&upload.id, &data, 2 * PART, true).await.unwrap();
        assert_eq!(answer.file.as_ref().unwrap().sha256, sha256(&data));
        assert_eq!(s.faults.calls(Operation::Get) + replica.faults.calls(Operation::Get), 0);
        assert_eq!(alice.read(&file_id(&answer)).await.unwrap(), data);
        replica.stopped().await;
    });
}

#[test]
fn a_created_upload_holds_its_room_before_a_byte_is_sent() {
    service_test(|s| async move {
        s.ada().limit_bytes(1_000_000).await;
        let upload = s.alice().create(sized("a.bin", 900_000)).await.unwrap();
        let quota = s.alice().quota().await.unwrap();
        assert_eq!((quota.used_bytes, quota.reserved_bytes), (0, 900_000));
        for refused in [
            s.bob().create(sized("b.bin", 200_000)).await.unwrap_err(),
            s.bob().upload(spec("b.bin"), &pattern(200_000)).await.unwrap_err(),
        ] {
            assert_eq!(reason(&refused), "QUOTA_BYTES_EXCEEDED");
        }
        s.alice().cancel(&upload.id).await.unwrap();
        s.bob().upload(spec("b.bin"), &pattern(200_000)).await.unwrap();
    });
}

#[test]
fn everything_wrong_with_a_spec_is_told_when_its_upload_is_created() {
    service_test(|s| async move {
        let bad = UploadSpec { category: "nonsense".into(), retention_days: -1, ..spec("run.exe") };
        let refused = s.alice().create(bad).await.unwrap_err();
        assert_eq!(violated_fields(&refused), ["spec.name", "spec.retention_days", "spec.category"]);
    });
}

#[test]
fn one_request_id_creates_one_upload() {
    service_test(|s| async move {
        let id = "0198c0de-0000-7000-8000-000000000001";
        let asked = UploadSpec { request_id: id.into(), ..sized("a.bin", SIZE) };
        let tries = (0..8).map(|_| {
            let (alice, asked) = (s.alice(), asked.clone());
            async move { alice.create(asked).await }
        });
        let answers = futures::future::join_all(tries).await;
        let mut created: Vec<Upload> = Vec::new();
        for answer in answers {
            match answer {
                Ok(upload) => created.push(upload),
                Err(busy) => assert_eq!(reason(&busy), "REQUEST_IN_PROGRESS"),
            }
        }
        created.push(s.alice().create(asked.clone()).await.unwrap());
        assert!(created.iter().all(|upload| *upload == created[0]), "{created:?}");
        assert_eq!(s.alice().quota().await.unwrap().reserved_bytes, SIZE as i64);
        let other = UploadSpec { title: "other".into(), ..asked };
        assert_eq!(reason(&s.alice().create(other).await.unwrap_err()), "REQUEST_ID_REUSED");
        s.alice().cancel(&created[0].id).await.unwrap();
    });
}

#[test]
fn finishing_twice_answers_the_same_file_also_at_once() {
    service_test(|s| async move {
        let data = pattern(SIZE);
        let upload = s.alice().create(spec("a.bin")).await.unwrap();
        s.alice().go_on(&upload.id, &data, 0, false).await.unwrap_err();
        let first = s.alice().go_on(&upload.id, &data, 3 * PART, true).await.unwrap();
        let again = futures::future::join_all((0..4).map(|_| {
            let (alice, data, id) = (s.alice(), data.clone(), upload.id.clone());
            async move { alice.go_on(&id, &data, SIZE, true).await.unwrap() }
        }));
        for answer in again.await {
            assert_eq!(answer.file, first.file);
        }
        let at = s.alice().upload_at(&upload.id).await.unwrap();
        assert_eq!((at.state(), at.file_id), (UploadState::Committed, file_id(&first)));
        assert_eq!(s.alice().quota().await.unwrap().file_count, 1);
    });
}

/// A stream that is written to step by step.
pub(crate) struct Live {
    messages: mpsc::Sender<UploadFileRequest>,
    answer: tokio::task::JoinHandle<Result<UploadFileResponse, Status>>,
}

impl Live {
    pub(crate) fn begin(s: &Service) -> Self {
        let (messages, receiver) = mpsc::channel(1);
        let mut files = s.alice().files;
        let answer =
            tokio::spawn(async move { files.upload_file(receiver).await.map(tonic::Response::into_inner) });
        Self { messages, answer }
    }

    pub(crate) async fn send(&mut self, messages: Vec<UploadFileRequest>) {
        for message in messages {
            self.messages.send(message).await.unwrap();
        }
    }

    /// The same of what may be refused before all of it is sent.
    pub(crate) async fn send_while_heard(&mut self, messages: Vec<UploadFileRequest>) {
        for message in messages {
            if self.messages.send(message).await.is_err() {
                break;
            }
        }
    }

    /// Ends the stream, and answers what came of it.
    pub(crate) async fn answer(self) -> Result<UploadFileResponse, Status> {
        drop(self.messages);
        self.answer.await.unwrap()
    }
}

#[test]
fn who_goes_on_with_an_upload_fences_whoever_sent_before() {
    service_test(|s| async move {
        let data = pattern(SIZE);
        let upload = s.alice().create(sized("a.bin", SIZE)).await.unwrap();
        let mut first = Live::begin(&s);
        first.send(resume_messages(&upload.id, &data[..PART + 5], 0, false)).await;
        s.until("the first part is stored", || async {
            s.alice().upload_at(&upload.id).await.unwrap().persisted_size_bytes == PART as i64
        })
        .await;

        let second = s.alice().go_on(&upload.id, &data, PART, true).await.unwrap();

        first.send_while_heard(resume_messages(&upload.id, &data, PART + 5, true)[1..].to_vec()).await;
        let fenced = first.answer().await.unwrap_err();
        assert_eq!((fenced.code(), reason(&fenced)), (Code::Aborted, "UPLOAD_FENCED".to_owned()));
        assert_eq!(s.alice().read(&file_id(&second)).await.unwrap(), data);
    });
}

#[test]
fn nothing_that_a_fenced_writer_still_sends_counts() {
    service_test(|s| async move {
        let data = pattern(SIZE);
        let upload = s.alice().create(sized("a.bin", SIZE)).await.unwrap();
        let mut first = Live::begin(&s);
        first.send(resume_messages(&upload.id, &data[..PART + 5], 0, false)).await;
        let stored = || async { s.alice().upload_at(&upload.id).await.unwrap().persisted_size_bytes };
        s.until("the first part is stored", || async { stored().await == PART as i64 }).await;
        s.alice().go_on(&upload.id, &data[..PART], PART, false).await.unwrap_err();

        let mut other = data.clone();
        other[PART + 99] ^= 1;
        let rest = resume_messages(&upload.id, &other[..2 * PART], PART + 5, false);
        first.send_while_heard(rest[1..].to_vec()).await;
        assert_eq!(reason(&first.answer().await.unwrap_err()), "UPLOAD_FENCED");
        assert_eq!(stored().await, PART as i64);
        let answer = s.alice().go_on(&upload.id, &data, PART, true).await.unwrap();
        assert_eq!(s.alice().read(&file_id(&answer)).await.unwrap(), data);
    });
}

#[test]
fn bytes_sent_again_are_compared_with_those_that_are_stored() {
    service_test(|s| async move {
        let data = pattern(SIZE);
        let upload = s.alice().create(sized("a.bin", SIZE)).await.unwrap();
        s.alice().go_on(&upload.id, &data[..2 * PART], 0, false).await.unwrap_err();

        let mut other = data.clone();
        other[PART + 3] ^= 1;
        let refused = s.alice().go_on(&upload.id, &other[..2 * PART], 0, false).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused)),
            (Code::InvalidArgument, "UPLOAD_CONTENT_DIFFERS".to_owned())
        );
        // A digest that does not fit what was sent changes nothing of what is stored.
        let mut messages = resume_messages(&upload.id, &data, 2 * PART, true);
        if let Some(strongroom::proto::v1::upload_file_request::Message::Finish(finish)) =
            &mut messages.last_mut().unwrap().message
        {
            finish.sha256 = Some(sha256(&other));
        }
        assert_eq!(reason(&s.alice().send(messages).await.unwrap_err()), "CHECKSUM_MISMATCH");

        // From any part on.
        let answer = s.alice().go_on(&upload.id, &data, PART, true).await.unwrap();
        assert_eq!(s.alice().read(&file_id(&answer)).await.unwrap(), data);
    });
}

#[test]
fn a_stream_begins_where_the_stored_bytes_end_or_at_a_part() {
    service_test(|s| async move {
        let data = pattern(SIZE);
        let upload = s.alice().create(spec("a.bin")).await.unwrap();
        s.alice().go_on(&upload.id, &data[..2 * PART], 0, false).await.unwrap_err();
        for wrong in [1, PART - 1, PART + 1, 2 * PART + 1, 3 * PART] {
            let gap = s.alice().go_on(&upload.id, &data, wrong, true).await.unwrap_err();
            assert_eq!((gap.code(), reason(&gap)), (Code::OutOfRange, "UPLOAD_OFFSET_GAP".to_owned()));
            assert_eq!(persisted(&gap), 2 * PART);
        }
        s.alice().go_on(&upload.id, &data, 2 * PART, true).await.unwrap();
    });
}

#[test]
fn a_cancelled_upload_gives_back_its_room_and_its_bytes_and_its_stream_is_fenced() {
    service_test(|s| async move {
        let data = pattern(SIZE);
        let upload = s.alice().create(sized("a.bin", SIZE)).await.unwrap();
        let mut live = Live::begin(&s);
        live.send(resume_messages(&upload.id, &data[..PART + 5], 0, false)).await;
        s.until("the first part is stored", || async {
            s.alice().upload_at(&upload.id).await.unwrap().persisted_size_bytes == PART as i64
        })
        .await;
        s.alice().cancel(&upload.id).await.unwrap();
        assert_eq!(s.alice().quota().await.unwrap().reserved_bytes, 0);
        live.send_while_heard(resume_messages(&upload.id, &data, PART + 5, true)[1..].to_vec()).await;
        assert_eq!(reason(&live.answer().await.unwrap_err()), "UPLOAD_FENCED");
        for gone in [
            s.alice().upload_at(&upload.id).await.unwrap_err(),
            s.alice().cancel(&upload.id).await.unwrap_err(),
            s.alice().go_on(&upload.id, &data, 0, true).await.unwrap_err(),
        ] {
            assert_eq!(gone.code(), Code::NotFound);
        }
    });
}

#[test]
fn a_committed_upload_cannot_be_cancelled_and_says_which_file_it_is() {
    service_test(|s| async move {
        let upload = s.alice().create(spec("a.txt")).await.unwrap();
        let answer = s.alice().go_on(&upload.id, b"hello", 0, true).await.unwrap();
        let refused = s.alice().cancel(&upload.id).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused)),
            (Code::FailedPrecondition, "UPLOAD_COMMITTED".to_owned())
        );
        let details = refused.get_error_details();
        assert_eq!(details.error_info().unwrap().metadata["file_id"], file_id(&answer));
    });
}

#[test]
fn an_upload_that_is_silent_for_its_lease_is_given_up_and_one_that_moves_is_not() {
    service_test(|s| async move {
        let data = pattern(SIZE);
        let silent = s.alice().create(sized("silent.bin", SIZE)).await.unwrap();
        let moving = s.alice().create(sized("moving.bin", SIZE)).await.unwrap();
        s.clock.advance(Duration::hours(20));
        s.alice().go_on(&moving.id, &data[..PART], 0, false).await.unwrap_err();
        s.clock.advance(Duration::hours(5));
        assert_eq!(s.alice().upload_at(&silent.id).await.unwrap_err().code(), Code::NotFound);
        expire(&s.app).await.unwrap();
        assert_eq!(s.alice().quota().await.unwrap().reserved_bytes, SIZE as i64, "of the one that moved");
        s.alice().go_on(&moving.id, &data, PART, true).await.unwrap();
    });
}

#[test]
fn an_upload_of_unknown_size_reserves_as_it_comes_and_goes_on_when_there_is_room_again() {
    service_test(|s| async move {
        let data = pattern(SIZE);
        s.ada().limit_bytes(2 * PART as i64 + 10).await;
        let upload = s.alice().create(spec("a.bin")).await.unwrap();
        assert_eq!(s.alice().quota().await.unwrap().reserved_bytes, 0);
        let refused = s.alice().go_on(&upload.id, &data, 0, true).await.unwrap_err();
        assert_eq!(reason(&refused), "QUOTA_BYTES_EXCEEDED");
        s.until("what came before is stored", || async {
            s.alice().upload_at(&upload.id).await.unwrap().persisted_size_bytes == 2 * PART as i64
        })
        .await;
        s.ada().limit_bytes(10 * PART as i64).await;
        let answer = s.alice().go_on(&upload.id, &data, 2 * PART, true).await.unwrap();
        assert_eq!(s.alice().read(&file_id(&answer)).await.unwrap(), data);
    });
}

#[test]
fn empty_files_and_files_of_whole_parts_can_be_uploaded_too() {
    service_test(|s| async move {
        for size in [0, 1, PART, 2 * PART] {
            let data = pattern(size);
            let upload = s.alice().create(sized("a.bin", size)).await.unwrap();
            let answer = s.alice().go_on(&upload.id, &data, 0, true).await.unwrap();
            assert_eq!(s.alice().read(&file_id(&answer)).await.unwrap(), data);
        }
    });
}

#[test]
fn a_part_that_a_fenced_writer_wrote_once_more_is_found_and_sent_again() {
    service_test(|s| async move {
        let data = pattern(SIZE);
        let upload = s.alice().create(sized("a.bin", SIZE)).await.unwrap();
        s.alice().go_on(&upload.id, &data[..2 * PART], 0, false).await.unwrap_err();
        let key = s.owner.texts("SELECT storage_key FROM uploads").await.remove(0);
        let multipart = s.owner.texts("SELECT multipart_id FROM uploads").await.remove(0);
        let late = bytes::Bytes::from(vec![9; PART]);
        let key = ObjectKey::parse(&key).unwrap();
        s.store.put_part(&key, &MultipartId::new(multipart), 1, [late].into_iter().collect()).await.unwrap();

        let refused = s.alice().go_on(&upload.id, &data, 2 * PART, true).await.unwrap_err();
        assert_eq!((reason(&refused), persisted(&refused)), ("UPLOAD_NOT_FINISHED".to_owned(), 0));
        let answer = s.alice().go_on(&upload.id, &data, 0, true).await.unwrap();
        assert_eq!(s.alice().read(&file_id(&answer)).await.unwrap(), data);
    });
}

#[test]
fn uploads_are_their_creators_and_an_admin_sees_and_cancels_them_all() {
    service_test(|s| async move {
        let mut mine = Vec::new();
        for n in 0..3 {
            mine.push(s.alice().create(spec(&format!("{n}.bin"))).await.unwrap().id);
        }
        let bobs = s.bob().create(spec("b.bin")).await.unwrap().id;
        assert_eq!(s.alice().uploads(2).await, mine);
        assert_eq!(s.bob().uploads(2).await, std::slice::from_ref(&bobs));
        let all: Vec<String> = mine.iter().cloned().chain([bobs]).collect();
        assert_eq!(s.ada().uploads(2).await, all);
        assert!(s.gus().uploads(2).await.is_empty());

        assert_eq!(s.bob().upload_at(&mine[0]).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(s.bob().cancel(&mine[0]).await.unwrap_err().code(), Code::NotFound);
        let refused = s.ada().go_on(&mine[0], b"x", 0, true).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "only its creator goes on with it");
        s.alice().go_on(&mine[0], b"x", 0, true).await.unwrap();
        for id in &all[1..] {
            s.ada().cancel(id).await.unwrap();
        }
    });
}

#[test]
fn a_cancelled_upload_stays_cancelled_though_the_store_keeps_its_bytes_for_now() {
    service_test(|s| async move {
        let upload = s.alice().create(sized("a.bin", SIZE)).await.unwrap();
        s.faults.set_plan(Plan::new().on(
            Operation::AbortMultipart,
            s.faults.calls(Operation::AbortMultipart) + 1,
            Fault::Before(StorageErrorKind::Unavailable),
        ));
        s.alice().cancel(&upload.id).await.unwrap();
        assert_eq!(s.alice().quota().await.unwrap().reserved_bytes, 0);
        assert_eq!(s.alice().upload_at(&upload.id).await.unwrap_err().code(), Code::NotFound);
        s.clock.advance(Duration::hours(25));
        expire(&s.app).await.unwrap();
    });
}

#[test]
fn parts_behind_a_gap_do_not_come_back_when_the_gap_is_filled_with_other_bytes() {
    service_test(|s| async move {
        let data = pattern(SIZE);
        let upload = s.alice().create(sized("a.bin", SIZE)).await.unwrap();
        s.alice().go_on(&upload.id, &data[..3 * PART], 0, false).await.unwrap_err();
        s.owner.run("DELETE FROM upload_parts WHERE number = 2").await;

        let mut other = data.clone();
        other[PART + 7] ^= 1;
        let paused = s.alice().go_on(&upload.id, &other[..2 * PART], PART, false).await.unwrap_err();
        assert_eq!(persisted(&paused), 2 * PART);
        assert_eq!(s.alice().upload_at(&upload.id).await.unwrap().persisted_size_bytes, 2 * PART as i64);
        let answer = s.alice().go_on(&upload.id, &other, 2 * PART, true).await.unwrap();
        assert_eq!(answer.file.as_ref().unwrap().sha256, sha256(&other));
        assert_eq!(s.alice().read(&file_id(&answer)).await.unwrap(), other);
    });
}

#[test]
fn the_id_of_an_upload_may_be_the_request_id_of_another_change() {
    service_test(|s| async move {
        let upload = s.alice().create(spec("a.txt")).await.unwrap();
        let other = UploadSpec { request_id: upload.id.clone(), ..spec("b.txt") };
        s.alice().upload(other, b"other").await.unwrap();
        let answer = s.alice().go_on(&upload.id, b"hello", 0, true).await.unwrap();
        assert_eq!(s.alice().read(&file_id(&answer)).await.unwrap(), b"hello"[..]);
    });
}

#[test]
fn a_version_of_a_file_that_is_gone_gives_its_room_back() {
    service_test(|s| async move {
        let id = file_id(&s.alice().upload(spec("a.txt"), b"one").await.unwrap());
        let version = UploadSpec { file_id: id.clone(), size_bytes: Some(5), ..UploadSpec::default() };
        let upload = s.alice().create(version).await.unwrap();
        s.alice().purge(&id).await.unwrap();
        let gone = s.alice().go_on(&upload.id, b"hello", 0, true).await.unwrap_err();
        assert_eq!(gone.code(), Code::NotFound);
        s.until("it is given back", || async { s.alice().quota().await.unwrap().reserved_bytes == 0 }).await;
    });
}
