//! Uploads that were assembled but not committed, that expired, or whose parts are larger than the
//! configuration now allows.

use chrono::Duration;
use strongroom::{
    app::uploads::expire::expire_uploads, domain::object_key::ObjectKey, proto::v1::UploadSpec,
    storage::MultipartId,
};
use tonic::Code;
use tonic_types::StatusExt;

use crate::{
    harness::{PART, Service, file_id, pattern, reason, resume_messages, service_test, spec},
    resume::LiveStream,
};

const SIZE: usize = 3 * PART + 1234;

fn sized(name: &str, size: usize) -> UploadSpec {
    UploadSpec { size_bytes: Some(size as i64), ..spec(name) }
}

#[test]
fn assembled_upload_rejects_bytes_and_can_be_finished() {
    service_test(|s| async move {
        let alice = s.alice();
        for size in [0, 2 * PART] {
            let data = pattern(size);
            let id = file_id(&alice.upload(spec("a.txt"), b"one").await.unwrap());
            let version = UploadSpec { file_id: id.clone(), ..UploadSpec::default() };
            let upload = alice.create_upload(version).await.unwrap();
            alice.resume_upload(&upload.id, &data, 0, false).await.unwrap_err();
            alice.archive(&id).await.unwrap();
            let error = alice.resume_upload(&upload.id, &data, size, true).await.unwrap_err();
            assert_eq!(reason(&error), "FILE_NOT_AVAILABLE");
            assert!(s.store.list_multiparts("", None, 1).await.unwrap().multiparts.is_empty());

            let longer = pattern(size + PART);
            for error in [
                alice.resume_upload(&upload.id, &longer, size, false).await.unwrap_err(),
                alice.resume_upload(&upload.id, &longer[..size + 10], size, true).await.unwrap_err(),
                alice.upload_part(&upload.id, size, &longer[size..]).await.unwrap_err(),
            ] {
                assert_eq!(
                    (error.code(), reason(&error)),
                    (Code::InvalidArgument, "SIZE_MISMATCH".to_owned())
                );
                assert!(error.message().contains("complete it"), "{error:?}");
                let details = error.get_error_details();
                assert_eq!(details.error_info().unwrap().metadata["declared_bytes"], size.to_string());
            }
            alice.unarchive(&id).await.unwrap();
            let response = alice.resume_upload(&upload.id, &data, size, true).await.unwrap();
            assert_eq!(response.file.unwrap().version, 2);
            assert!(alice.read(&id).await.unwrap() == data);
        }
    });
}

#[test]
fn bytes_after_lease_expiry_are_rejected() {
    service_test(|s| async move {
        const SIZE: usize = 6 * PART + 1234;
        let data = pattern(SIZE);
        // The first upload reserves four parts at a time and has sent all of them, so more bytes need a
        // reservation. The second one has its whole size reserved, so more bytes only record parts.
        for (spec, persisted) in [(spec("a.bin"), 4 * PART), (sized("b.bin", SIZE), PART)] {
            let upload = s.alice().create_upload(spec).await.unwrap();
            let mut live = LiveStream::open(&s);
            live.send(resume_messages(&upload.id, &data[..persisted], 0, false)).await;
            s.wait_until("the parts sent are persisted", || async {
                s.alice().get_upload(&upload.id).await.unwrap().persisted_size_bytes == persisted as i64
            })
            .await;
            s.clock.advance(Duration::hours(25));
            live.send_until_closed(resume_messages(&upload.id, &data, persisted, true)[1..].to_vec()).await;
            let late = live.finish().await.unwrap_err();
            assert_eq!((late.code(), reason(&late)), (Code::Aborted, "UPLOAD_FENCED".to_owned()));
            assert_eq!(s.alice().get_upload(&upload.id).await.unwrap_err().code(), Code::NotFound);
            expire_uploads(&s.app).await.unwrap();
            let quota = s.alice().quota().await.unwrap();
            assert_eq!((quota.reserved_bytes, quota.file_count), (0, 0));
        }
    });
}

#[test]
fn parts_above_configured_size_need_enough_budget() {
    service_test(|s| async move {
        let data = pattern(SIZE);
        let upload = s.alice().create_upload(sized("a.bin", SIZE)).await.unwrap();
        // In addition to a part of the configured size, the budget of the first replica has room for half a
        // part of this upload, and that of the second one for two parts.
        let replica = |budget_bytes: usize| {
            s.start_replica(move |config| {
                config.uploads.part_size_bytes = PART / 4;
                config.uploads.byte_budget_bytes = PART / 4 + budget_bytes;
            })
        };
        let (small, roomy) = (replica(PART / 2).await, replica(2 * PART).await);
        let error = small.alice().resume_upload(&upload.id, &data, 0, true).await.unwrap_err();
        assert_eq!(
            (error.code(), reason(&error)),
            (Code::FailedPrecondition, "UPLOAD_PARTS_TOO_LARGE".to_owned())
        );
        let error =
            roomy.alice().resume_upload(&upload.id, &data[..SIZE - 1234], 0, false).await.unwrap_err();
        assert_eq!(reason(&error), "UPLOAD_NOT_FINISHED");
        let last = &data[3 * PART..];
        let error = small.alice().resume_upload(&upload.id, &data, 3 * PART, true).await.unwrap_err();
        assert_eq!(reason(&error), "UPLOAD_PARTS_TOO_LARGE");
        roomy.alice().upload_part(&upload.id, 3 * PART, last).await.unwrap();
        let file = small.alice().complete_upload(&upload.id, SIZE).await.unwrap();
        assert!(s.alice().read(&file.id).await.unwrap() == data, "completion needs no budget");
        small.stop().await;
        roomy.stop().await;
    });
}

/// Creates an upload, damages one of its parts in the store and finishes it, so that it begins again. Returns its id.
async fn restart_upload(s: &Service, data: &[u8], restart_count: u32) -> String {
    let upload = s.alice().create_upload(sized("a.bin", data.len())).await.unwrap();
    s.alice().resume_upload(&upload.id, &data[..3 * PART], 0, false).await.unwrap_err();
    let of_upload = format!("FROM uploads WHERE id = '{}'", upload.id);
    let key = s.superuser.query_texts(&format!("SELECT storage_key {of_upload}")).await.remove(0);
    let multipart = s.superuser.query_texts(&format!("SELECT multipart_id {of_upload}")).await.remove(0);
    let set = format!("UPDATE uploads SET restart_count = {restart_count} WHERE id = '{}'", upload.id);
    s.superuser.execute(&set).await;
    let late = bytes::Bytes::from(vec![9; PART]);
    let key = ObjectKey::parse(&key).unwrap();
    s.store.put_part(&key, &MultipartId::new(multipart), 1, [late].into_iter().collect()).await.unwrap();
    let error = s.alice().resume_upload(&upload.id, data, 3 * PART, true).await.unwrap_err();
    assert_eq!(reason(&error), "UPLOAD_NOT_FINISHED");
    upload.id
}

#[test]
fn parts_of_restarted_upload_renew_its_lease() {
    service_test(|s| async move {
        let data = pattern(SIZE);
        let restarted = restart_upload(&s, &data, 0).await;
        let too_often = restart_upload(&s, &data, 3).await;
        for id in [&restarted, &too_often] {
            s.alice().get_upload(id).await.unwrap();
        }
        s.clock.advance(Duration::hours(20));
        for id in [&restarted, &too_often] {
            s.alice().resume_upload(id, &data[..PART], 0, false).await.unwrap_err();
        }
        s.clock.advance(Duration::hours(20));
        let ended = s.alice().resume_upload(&too_often, &data, PART, true).await.unwrap_err();
        assert_eq!(ended.code(), Code::NotFound, "restarts without end keep no upload open");
        let response = s.alice().resume_upload(&restarted, &data, PART, true).await.unwrap();
        assert!(s.alice().read(&file_id(&response)).await.unwrap() == data);
        // Releases what the other upload has reserved.
        strongroom::worker::run_round(&s.app).await;
    });
}
