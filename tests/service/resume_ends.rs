//! Uploads that were put together, ran out of time, or have larger parts than are configured now, before they became a file.

use chrono::Duration;
use strongroom::{app::uploads::expire::expire_uploads, proto::v1::UploadSpec};
use tonic::Code;
use tonic_types::StatusExt;

use crate::{
    harness::{PART, file_id, pattern, reason, resume_messages, service_test, spec},
    resume::Live,
};

const SIZE: usize = 3 * PART + 1234;

fn sized(name: &str, size: usize) -> UploadSpec {
    UploadSpec { size_bytes: Some(size as i64), ..spec(name) }
}

#[test]
fn an_upload_that_was_put_together_and_not_committed_takes_no_more_bytes_and_can_be_finished_again() {
    service_test(|s| async move {
        let alice = s.alice();
        for size in [0, 2 * PART] {
            let data = pattern(size);
            let id = file_id(&alice.upload(spec("a.txt"), b"one").await.unwrap());
            let version = UploadSpec { file_id: id.clone(), ..UploadSpec::default() };
            let upload = alice.create(version).await.unwrap();
            alice.go_on(&upload.id, &data, 0, false).await.unwrap_err();
            alice.archive(&id).await.unwrap();
            let refused = alice.go_on(&upload.id, &data, size, true).await.unwrap_err();
            assert_eq!(reason(&refused), "FILE_NOT_AVAILABLE");
            assert!(s.store.list_multiparts("", None, 1).await.unwrap().multiparts.is_empty());

            let longer = pattern(size + PART);
            for refused in [
                alice.go_on(&upload.id, &longer, size, false).await.unwrap_err(),
                alice.go_on(&upload.id, &longer[..size + 10], size, true).await.unwrap_err(),
                alice.part(&upload.id, size, &longer[size..]).await.unwrap_err(),
            ] {
                assert_eq!(
                    (refused.code(), reason(&refused)),
                    (Code::InvalidArgument, "SIZE_MISMATCH".to_owned())
                );
                assert!(refused.message().contains("complete it"), "{refused:?}");
                let details = refused.get_error_details();
                assert_eq!(details.error_info().unwrap().metadata["declared_bytes"], size.to_string());
            }
            alice.unarchive(&id).await.unwrap();
            let answer = alice.go_on(&upload.id, &data, size, true).await.unwrap();
            assert_eq!(answer.file.unwrap().version, 2);
            assert!(alice.read(&id).await.unwrap() == data);
        }
    });
}

#[test]
fn bytes_that_come_after_the_lease_has_run_out_are_refused_and_renew_nothing() {
    service_test(|s| async move {
        const SIZE: usize = 6 * PART + 1234;
        let data = pattern(SIZE);
        // One reserves four parts at once, and all of them have come; the other only records its parts.
        for (spec, before) in [(spec("a.bin"), 4 * PART), (sized("b.bin", SIZE), PART)] {
            let upload = s.alice().create(spec).await.unwrap();
            let mut live = Live::begin(&s);
            live.send(resume_messages(&upload.id, &data[..before], 0, false)).await;
            s.until("what came is stored", || async {
                s.alice().upload_at(&upload.id).await.unwrap().persisted_size_bytes == before as i64
            })
            .await;
            s.clock.advance(Duration::hours(25));
            live.send_while_heard(resume_messages(&upload.id, &data, before, true)[1..].to_vec()).await;
            let late = live.answer().await.unwrap_err();
            assert_eq!((late.code(), reason(&late)), (Code::Aborted, "UPLOAD_FENCED".to_owned()));
            assert_eq!(s.alice().upload_at(&upload.id).await.unwrap_err().code(), Code::NotFound);
            expire_uploads(&s.app).await.unwrap();
            let quota = s.alice().quota().await.unwrap();
            assert_eq!((quota.reserved_bytes, quota.file_count), (0, 0));
        }
    });
}

#[test]
fn parts_larger_than_are_configured_now_go_on_where_there_is_room_for_them_and_are_refused_clearly_where_not()
{
    service_test(|s| async move {
        let data = pattern(SIZE);
        let upload = s.alice().create(sized("a.bin", SIZE)).await.unwrap();
        // Beyond a part of its own, the first has room for half a part of this upload; the second for two.
        let replica = |budget_bytes: usize| {
            s.replica(move |config| {
                config.uploads.part_size_bytes = PART / 4;
                config.uploads.byte_budget_bytes = PART / 4 + budget_bytes;
            })
        };
        let (small, roomy) = (replica(PART / 2).await, replica(2 * PART).await);
        let refused = small.alice().go_on(&upload.id, &data, 0, true).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused)),
            (Code::FailedPrecondition, "UPLOAD_PARTS_TOO_LARGE".to_owned())
        );
        let at = roomy.alice().go_on(&upload.id, &data[..SIZE - 1234], 0, false).await.unwrap_err();
        assert_eq!(reason(&at), "UPLOAD_NOT_FINISHED");
        let last = &data[3 * PART..];
        let refused = small.alice().go_on(&upload.id, &data, 3 * PART, true).await.unwrap_err();
        assert_eq!(reason(&refused), "UPLOAD_PARTS_TOO_LARGE");
        roomy.alice().part(&upload.id, 3 * PART, last).await.unwrap();
        let file = small.alice().complete(&upload.id, SIZE).await.unwrap();
        assert!(s.alice().read(&file.id).await.unwrap() == data, "to finish it takes no room");
        small.stopped().await;
        roomy.stopped().await;
    });
}
