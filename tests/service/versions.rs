//! File versions: upload, restore, deletion and listing.

use futures::{SinkExt, channel::mpsc};
use strongroom::proto::v1::{
    DeleteFileVersionRequest, File, ListFileVersionsRequest, Quota, RestoreFileVersionRequest, UploadSpec,
};
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{
    Caller, PART, Service, chunk, file_id, finish, pattern, reason, service_test, spec, spec_message,
    violated_fields,
};

async fn upload_file(s: &Service) -> String {
    let spec = UploadSpec { tags: vec!["blue".to_owned()], title: "title".to_owned(), ..spec("a.txt") };
    file_id(&s.alice().upload(spec, b"one").await.unwrap())
}

fn version_spec(id: &str) -> UploadSpec {
    UploadSpec { file_id: id.to_owned(), ..UploadSpec::default() }
}

fn version_numbers(versions: &[strongroom::proto::v1::FileVersion]) -> Vec<i32> {
    versions.iter().map(|version| version.version).collect()
}

#[test]
fn new_version_changes_content_and_keeps_record() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&s).await;
        let before = alice.get(&id).await.unwrap();
        let spec = UploadSpec { change_description: "now longer".to_owned(), ..version_spec(&id) };
        let after = alice.upload(spec, b"two is longer").await.unwrap().file.unwrap();
        let expected = File {
            version: 2,
            revision: 2,
            size_bytes: 13,
            sha256: crate::harness::sha256(b"two is longer"),
            declared_mime_type: String::new(),
            etag: after.etag.clone(),
            update_time: after.update_time,
            mime_type: after.mime_type.clone(),
            ..before.clone()
        };
        assert_eq!(after, expected);
        assert_ne!(after.etag, before.etag);
        assert_eq!(alice.get(&id).await.unwrap(), after, "the response contains the stored record");
        assert_eq!(alice.read(&id).await.unwrap(), b"two is longer"[..]);
        assert_eq!(alice.read_version(&id, 1).await.unwrap(), b"one"[..]);
        assert_eq!(alice.read_version(&id, 2).await.unwrap(), b"two is longer"[..]);
        assert_eq!(alice.read_version(&id, 3).await.unwrap_err().code(), Code::NotFound);

        let versions = alice.list_versions(&id, 0).await.unwrap();
        assert_eq!(version_numbers(&versions), [2, 1]);
        assert_eq!((versions[0].is_current, versions[1].is_current), (true, false));
        assert_eq!(versions[0].change_description, "now longer");
        assert_eq!((versions[1].size_bytes, versions[1].created_by.as_str()), (3, "alice"));
        let events =
            "SELECT count(*) FROM events WHERE kind = {event_kind.file_version_created} AND version = 2";
        assert_eq!(s.superuser.query_number(events).await, 1);
    });
}

#[test]
fn each_version_is_charged_and_file_counts_once() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&s).await;
        // The same bytes create a version too.
        assert_eq!(alice.upload_version(&id, b"one").await.unwrap().version, 2);
        // The bytes of an image are counted as an image, and so is the file from now on.
        let png = [b"\x89PNG\r\n\x1a\n".as_slice(), &[0; 92]].concat();
        alice.upload_version(&id, &png).await.unwrap();
        let quota = alice.quota().await.unwrap();
        assert_eq!((quota.used_bytes, quota.file_count), (106, 1));
        let counters = "SELECT format('%s %s %s', media_kind, file_count, total_bytes) FROM usage_counters
                        ORDER BY media_kind";
        assert_eq!(s.superuser.query_texts(counters).await, ["1 1 100", "5 0 6"]);
        alice.restore_version(&id, 1).await.unwrap();
        assert_eq!(s.superuser.query_texts(counters).await, ["1 0 100", "5 1 9"]);

        // Delete, undelete and purge, with a trash that counts and one that does not.
        alice.delete(&id).await.unwrap();
        alice.undelete(&id).await.unwrap();
        let pupil = s.pupil();
        let homework = file_id(&pupil.upload(spec("b"), b"12").await.unwrap());
        pupil.upload_version(&homework, &png).await.unwrap();
        pupil.delete(&homework).await.unwrap();
        assert_eq!(pupil.quota().await.unwrap().used_bytes, 0, "the trash of the school does not count");
        pupil.undelete(&homework).await.unwrap();
        let quota = pupil.quota().await.unwrap();
        assert_eq!((quota.used_bytes, quota.file_count), (102, 1));
        pupil.purge(&homework).await.unwrap();
        alice.purge(&id).await.unwrap();
        assert_eq!(alice.quota().await.unwrap().used_bytes, 0);
    });
}

#[test]
fn version_needs_free_bytes_but_no_free_file() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&s).await;
        let limits =
            strongroom::proto::v1::Quota { limit_bytes: 10, file_count_max: 1, ..Default::default() };
        s.ada().update_quota("", limits, &["limit_bytes", "file_count_max"]).await.unwrap();
        alice.upload_version(&id, b"123").await.unwrap();
        for error in [
            alice.upload_version(&id, b"12345").await.unwrap_err(),
            alice
                .upload(UploadSpec { size_bytes: Some(5), ..version_spec(&id) }, b"12345")
                .await
                .unwrap_err(),
        ] {
            assert_eq!(reason(&error), "QUOTA_BYTES_EXCEEDED");
        }
        alice.restore_version(&id, 1).await.unwrap();
        assert_eq!(reason(&alice.restore_version(&id, 1).await.unwrap_err()), "QUOTA_BYTES_EXCEEDED");
        assert_eq!(version_numbers(&alice.list_versions(&id, 0).await.unwrap()), [3, 2, 1]);
        assert_eq!(alice.quota().await.unwrap().used_bytes, 9);
    });
}

#[test]
fn version_spec_with_file_fields_reports_all_of_them() {
    service_test(|s| async move {
        let id = upload_file(&s).await;
        let bad = UploadSpec {
            name: "b".to_owned(),
            title: "b".to_owned(),
            tags: vec!["b".to_owned()],
            retention_days: 1,
            change_description: "x".repeat(501),
            ..version_spec(&id)
        };
        let error = s.alice().upload(bad, b"two").await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        let fields =
            ["spec.name", "spec.title", "spec.tags", "spec.retention_days", "spec.change_description"];
        assert_eq!(violated_fields(&error), fields);
        let error = s.alice().upload(version_spec("7"), b"two").await.unwrap_err();
        assert_eq!(violated_fields(&error), ["spec.file_id"]);
    });
}

#[test]
fn only_owner_and_admins_upload_versions() {
    service_test(|s| async move {
        let id = upload_file(&s).await;
        let error = s.bob().upload_version(&id, b"two").await.unwrap_err();
        assert_eq!((error.code(), reason(&error).as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
        let denials = "SELECT count(*) FROM audit_entries WHERE NOT is_allowed
            AND action = {audit_action.file_upload} AND actor_id = 'bob'";
        assert_eq!(s.superuser.query_number(denials).await, 1);
        assert_eq!(s.mallory().upload_version(&id, b"two").await.unwrap_err().code(), Code::NotFound);
        let random = uuid::Uuid::from_u128(7).to_string();
        assert_eq!(s.alice().upload_version(&random, b"two").await.unwrap_err().code(), Code::NotFound);
        let by_ada = s.ada().upload_version(&id, b"two").await.unwrap();
        assert_eq!((by_ada.owner_id.as_str(), by_ada.updated_by.as_str()), ("alice", "ada"));
        assert_eq!((by_ada.title.as_str(), by_ada.tags[0].as_str()), ("title", "blue"));
    });
}

#[test]
fn deleted_or_archived_file_rejects_versions() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&s).await;
        alice.upload_version(&id, b"two").await.unwrap();
        alice.archive(&id).await.unwrap();
        for error in [alice.upload_version(&id, b"three").await, alice.restore_version(&id, 1).await]
            .map(Result::unwrap_err)
        {
            assert_eq!(reason(&error), "FILE_NOT_AVAILABLE");
            assert_eq!(error.get_details_error_info().unwrap().metadata["state"], "FILE_STATE_ARCHIVED");
        }
        alice.unarchive(&id).await.unwrap();
        alice.delete(&id).await.unwrap();
        for error in [
            alice.upload_version(&id, b"three").await,
            alice.restore_version(&id, 1).await,
            alice.delete_version(&id, 1).await,
        ]
        .map(Result::unwrap_err)
        {
            assert_eq!((error.code(), reason(&error).as_str()), (Code::FailedPrecondition, "FILE_DELETED"));
        }
        assert_eq!(
            version_numbers(&alice.list_versions(&id, 0).await.unwrap()),
            [2, 1],
            "versions in the trash can be listed"
        );
    });
}

/// Starts the upload of a version, makes another change, and finishes the upload, which must fail.
async fn upload_version_during(
    alice: &Caller,
    id: &str,
    data: &[u8],
    change: impl Future<Output = ()>,
) -> tonic::Status {
    let (mut messages, stream) = mpsc::channel(64);
    let mut files = alice.files.clone();
    let response = tokio::spawn(async move { files.upload_file(stream).await });
    let spec = UploadSpec { size_bytes: Some(data.len() as i64), ..version_spec(id) };
    messages.send(spec_message(spec)).await.unwrap();
    for (n, bytes) in data.chunks(PART / 2).enumerate() {
        messages.send(chunk(n * (PART / 2), bytes)).await.unwrap();
    }
    change.await;
    messages.send(finish(data.len())).await.unwrap();
    drop(messages);
    response.await.unwrap().unwrap_err()
}

#[test]
fn version_upload_fails_if_file_changes_state_meanwhile() {
    service_test(|s| async move {
        let alice = s.alice();
        let data = pattern(3 * PART);
        let id = upload_file(&s).await;
        // An upload with a reservation has passed the check at its start.
        let open = "SELECT count(*) FROM uploads WHERE state = {upload_state.open}";
        let wait_until_open =
            || s.wait_until("the upload is open", || async { s.superuser.query_number(open).await == 1 });
        let error = upload_version_during(&alice, &id, &data, async {
            wait_until_open().await;
            alice.archive(&id).await.unwrap();
        });
        assert_eq!(reason(&error.await), "FILE_NOT_AVAILABLE");
        alice.unarchive(&id).await.unwrap();
        let wait_until_released = || {
            s.wait_until("the reservation is released", || async {
                s.superuser.query_number(open).await == 0
            })
        };
        wait_until_released().await;
        let error = upload_version_during(&alice, &id, &data, async {
            wait_until_open().await;
            alice.delete(&id).await.unwrap();
        });
        assert_eq!(reason(&error.await), "FILE_DELETED");
        alice.undelete(&id).await.unwrap();
        wait_until_released().await;
        let error = upload_version_during(&alice, &id, &data, async {
            wait_until_open().await;
            alice.purge(&id).await.unwrap();
        });
        assert_eq!(error.await.code(), Code::NotFound);
        wait_until_released().await;
    });
}

#[test]
fn concurrent_uploads_create_one_version_each() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&s).await;
        let uploads = (0..12_u8).map(|n| {
            let (alice, id) = (alice.clone(), id.clone());
            async move { (n, alice.upload_version(&id, &[n; 10]).await.unwrap()) }
        });
        let mut created = futures::future::join_all(uploads).await;
        created.sort_by_key(|(_, file)| file.version);
        let expected: Vec<i32> = (2..=13).collect();
        assert_eq!(created.iter().map(|(_, file)| file.version).collect::<Vec<_>>(), expected);
        for (n, file) in &created {
            assert_eq!(
                file.sha256,
                crate::harness::sha256(&[*n; 10]),
                "each response contains its own content"
            );
            assert_eq!(alice.read_version(&id, file.version).await.unwrap(), [*n; 10][..]);
        }
        for (_, file) in &created {
            assert_eq!(file.revision, i64::from(file.version), "each version has a revision of its own");
        }
        let last = &created.last().unwrap().1;
        assert_eq!(alice.get(&id).await.unwrap(), *last, "the version committed last is current");
    });
}

#[test]
fn large_version_releases_its_reservation() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&s).await;
        let data = pattern(3 * PART + 7);
        let spec = UploadSpec { size_bytes: Some(data.len() as i64), ..version_spec(&id) };
        alice.upload(spec, &data).await.unwrap();
        assert_eq!(alice.read(&id).await.unwrap(), data[..]);
        let quota = alice.quota().await.unwrap();
        assert_eq!((quota.used_bytes, quota.reserved_bytes), (3 + data.len() as i64, 0));
    });
}

#[test]
fn retried_version_changes_have_one_effect() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&s).await;
        let request_id = uuid::Uuid::from_u128(7).to_string();
        let again = UploadSpec { request_id: request_id.clone(), ..version_spec(&id) };
        let first = alice.upload(again.clone(), b"two").await.unwrap();
        alice.rename(&id, "other").await.unwrap();
        alice.upload_version(&id, b"three").await.unwrap();
        assert_eq!(alice.upload(again.clone(), b"two").await.unwrap(), first);
        let known = UploadSpec { sha256: Some(crate::harness::sha256(b"two")), ..again.clone() };
        assert_eq!(alice.upload(known, b"two").await.unwrap(), first);
        let reused = UploadSpec { change_description: "x".to_owned(), ..again };
        assert_eq!(reason(&alice.upload(reused, b"two").await.unwrap_err()), "REQUEST_ID_REUSED");

        let restore = RestoreFileVersionRequest {
            file_id: id.clone(),
            version: 1,
            request_id: uuid(8),
            ..Default::default()
        };
        let first = alice.files.clone().restore_file_version(restore.clone()).await.unwrap().into_inner();
        let second = alice.files.clone().restore_file_version(restore).await.unwrap().into_inner();
        assert_eq!(first, second);
        let delete = DeleteFileVersionRequest {
            file_id: id.clone(),
            version: 2,
            request_id: uuid(9),
            ..DeleteFileVersionRequest::default()
        };
        let first = alice.files.clone().delete_file_version(delete.clone()).await.unwrap().into_inner();
        let second = alice.files.clone().delete_file_version(delete).await.unwrap().into_inner();
        assert_eq!(first, second);
        assert_eq!(version_numbers(&alice.list_versions(&id, 0).await.unwrap()), [4, 3, 1]);
    });
}

fn uuid(n: u128) -> String {
    uuid::Uuid::from_u128(n).to_string()
}

#[test]
fn restore_creates_version_with_same_blob() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&s).await;
        alice.upload_version(&id, b"two").await.unwrap();
        let restored = alice.restore_version(&id, 1).await.unwrap();
        assert_eq!((restored.version, restored.size_bytes), (3, 3));
        assert_eq!(alice.get(&id).await.unwrap(), restored);
        assert_eq!(alice.read(&id).await.unwrap(), b"one"[..]);
        assert_eq!(alice.list_versions(&id, 0).await.unwrap()[0].restored_from, Some(1));
        assert_eq!(s.superuser.query_number("SELECT count(*) FROM blobs").await, 2);
        assert_eq!(alice.quota().await.unwrap().used_bytes, 9);

        // The blob is kept as long as one of the two versions uses it.
        alice.delete_version(&id, 1).await.unwrap();
        assert_eq!(
            s.superuser.query_number("SELECT count(*) FROM blobs WHERE delete_after IS NOT NULL").await,
            0
        );
        assert_eq!(alice.read(&id).await.unwrap(), b"one"[..]);
        alice.delete_version(&id, 2).await.unwrap();
        assert_eq!(
            s.superuser.query_number("SELECT count(*) FROM blobs WHERE delete_after IS NOT NULL").await,
            1
        );

        let error = alice.restore_version(&id, 3).await.unwrap_err();
        assert_eq!((error.code(), reason(&error).as_str()), (Code::FailedPrecondition, "VERSION_IS_CURRENT"));
        assert_eq!(alice.restore_version(&id, 1).await.unwrap_err().code(), Code::NotFound);
    });
}

#[test]
fn only_available_version_can_be_restored() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&s).await;
        alice.upload_version(&id, b"two").await.unwrap();
        s.superuser
            .query_rows(
                "UPDATE versions SET content_state = {content_state.quarantined} WHERE version = 1",
                &[],
            )
            .await;
        let error = alice.restore_version(&id, 1).await.unwrap_err();
        assert_eq!(reason(&error), "FILE_NOT_AVAILABLE");
        assert_eq!(error.get_details_error_info().unwrap().metadata["state"], "FILE_STATE_QUARANTINED");
        assert_eq!(reason(&alice.read_version(&id, 1).await.unwrap_err()), "FILE_NOT_AVAILABLE");
        assert_eq!(alice.read(&id).await.unwrap(), b"two"[..]);
    });
}

#[test]
fn current_version_is_kept_and_numbers_are_not_reused() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&s).await;
        let error = alice.delete_version(&id, 1).await.unwrap_err();
        assert_eq!((error.code(), reason(&error).as_str()), (Code::FailedPrecondition, "VERSION_IS_CURRENT"));
        assert!(error.message().contains("upload or restore another version first"), "{error:?}");
        assert_eq!(error.get_details_error_info().unwrap().metadata["version"], "1");

        alice.upload_version(&id, b"two").await.unwrap();
        let before = alice.restore_version(&id, 1).await.unwrap();
        let after = alice.delete_version(&id, 2).await.unwrap();
        assert_ne!(after.etag, before.etag, "the etag changes with every change");
        assert_eq!(alice.delete_version(&id, 2).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(alice.quota().await.unwrap().used_bytes, 6);
        // The newest version can be deleted after another one became current.
        alice.restore_version(&id, 1).await.unwrap();
        alice.delete_version(&id, 3).await.unwrap();
        assert_eq!(alice.upload_version(&id, b"five").await.unwrap().version, 5);
        assert_eq!(version_numbers(&alice.list_versions(&id, 0).await.unwrap()), [5, 4, 1]);
        let audited = "SELECT count(*) FROM audit_entries WHERE action = {audit_action.file_version_delete}
            AND is_allowed";
        assert_eq!(s.superuser.query_number(audited).await, 2);
    });
}

#[test]
fn version_page_token_is_bound_to_its_file() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&s).await;
        for n in 2..=5_u8 {
            alice.upload_version(&id, &[n]).await.unwrap();
        }
        assert_eq!(version_numbers(&alice.list_versions(&id, 2).await.unwrap()), [5, 4, 3, 2, 1]);
        let other = upload_file(&s).await;
        let first = ListFileVersionsRequest { file_id: id.clone(), page_size: 2, page_token: String::new() };
        let page = alice.files.clone().list_file_versions(first).await.unwrap().into_inner();
        for (file, token) in [(&other, page.next_page_token), (&id, "nonsense".to_owned())] {
            let request = ListFileVersionsRequest { file_id: file.clone(), page_size: 2, page_token: token };
            let error = alice.files.clone().list_file_versions(request).await.unwrap_err();
            assert_eq!(reason(&error), "PAGE_TOKEN_INVALID");
        }
        assert_eq!(
            s.bob().list_versions(&id, 0).await.unwrap().len(),
            5,
            "versions are visible like their file"
        );
        assert_eq!(s.mallory().list_versions(&id, 0).await.unwrap_err().code(), Code::NotFound);
    });
}

#[test]
fn shared_listing_has_size_of_current_version() {
    service_test(|s| async move {
        let teacher = s.teacher();
        let class = strongroom::proto::v1::EntityRef {
            r#type: "class".into(),
            id: "7a".into(),
            field: String::new(),
        };
        let lesson = UploadSpec {
            category: "educational_content".into(),
            attachments: vec![class.clone()],
            ..spec("lesson")
        };
        let id = file_id(&teacher.upload(lesson, b"x").await.unwrap());
        let after = teacher.upload_version(&id, b"longer").await.unwrap();
        assert_eq!(after.attachments, [class]);
        assert_eq!(s.superuser.query_texts("SELECT size_bytes::text FROM file_readers").await, ["6"]);
        teacher.restore_version(&id, 1).await.unwrap();
        assert_eq!(s.superuser.query_texts("SELECT size_bytes::text FROM file_readers").await, ["1"]);
        assert_eq!(s.friend().read(&id).await.unwrap(), b"x"[..]);
    });
}

#[test]
fn versions_ignore_file_count_limit() {
    service_test(|s| async move {
        let id = upload_file(&s).await;
        let limit = Quota { file_count_max: 1, ..Quota::default() };
        s.ada().update_quota("", limit, &["file_count_max"]).await.unwrap();
        let error = s.alice().upload(spec("b.txt"), b"b").await.unwrap_err();
        assert_eq!(reason(&error), "QUOTA_FILES_EXCEEDED");
        let large = pattern(3 * PART);
        let sized = UploadSpec { size_bytes: Some(large.len() as i64), ..version_spec(&id) };
        for spec in [version_spec(&id), sized.clone()] {
            s.alice().upload(spec, &large).await.unwrap();
        }
        let upload = s.alice().create_upload(sized.clone()).await.unwrap();
        assert_eq!(s.alice().quota().await.unwrap().reserved_file_count, 0);
        s.alice().resume_upload(&upload.id, &large, 0, true).await.unwrap();
        let cancelled = s.alice().create_upload(sized).await.unwrap();
        s.alice().cancel_upload(&cancelled.id).await.unwrap();
        assert_eq!(s.alice().get(&id).await.unwrap().version, 4);
    });
}
