//! The contents a file has had: new ones, old ones that come back, and those that go.

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

async fn stored(s: &Service) -> String {
    let spec = UploadSpec { tags: vec!["blue".to_owned()], title: "title".to_owned(), ..spec("a.txt") };
    file_id(&s.alice().upload(spec, b"one").await.unwrap())
}

fn version_of(id: &str) -> UploadSpec {
    UploadSpec { file_id: id.to_owned(), ..UploadSpec::default() }
}

fn numbers(versions: &[strongroom::proto::v1::FileVersion]) -> Vec<i32> {
    versions.iter().map(|version| version.version).collect()
}

#[test]
fn a_new_version_changes_the_content_and_leaves_the_record_as_it_is() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&s).await;
        let before = alice.get(&id).await.unwrap();
        let spec = UploadSpec { change_description: "now longer".to_owned(), ..version_of(&id) };
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
        assert_eq!(alice.get(&id).await.unwrap(), after, "the answer tells the file as it is stored");
        assert_eq!(alice.read(&id).await.unwrap(), b"two is longer"[..]);
        assert_eq!(alice.read_version(&id, 1).await.unwrap(), b"one"[..]);
        assert_eq!(alice.read_version(&id, 2).await.unwrap(), b"two is longer"[..]);
        assert_eq!(alice.read_version(&id, 3).await.unwrap_err().code(), Code::NotFound);

        let versions = alice.versions(&id, 0).await.unwrap();
        assert_eq!(numbers(&versions), [2, 1]);
        assert_eq!((versions[0].is_current, versions[1].is_current), (true, false));
        assert_eq!(versions[0].change_description, "now longer");
        assert_eq!((versions[1].size_bytes, versions[1].created_by.as_str()), (3, "alice"));
        let told = "SELECT count(*) FROM events WHERE kind = 40 AND version = 2";
        assert_eq!(s.owner.number(told).await, 1);
    });
}

#[test]
fn each_version_is_charged_and_the_file_counts_once() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&s).await;
        // The same bytes again are a version all the same.
        assert_eq!(alice.upload_version(&id, b"one").await.unwrap().version, 2);
        // A picture: its bytes count as those of an image, and so does the file from here on.
        let png = [b"\x89PNG\r\n\x1a\n".as_slice(), &[0; 92]].concat();
        alice.upload_version(&id, &png).await.unwrap();
        let quota = alice.quota().await.unwrap();
        assert_eq!((quota.used_bytes, quota.file_count), (106, 1));
        let counters = "SELECT format('%s %s %s', media_kind, file_count, total_bytes) FROM usage_counters
                        ORDER BY media_kind";
        assert_eq!(s.owner.texts(counters).await, ["1 1 100", "5 0 6"]);
        alice.restore_version(&id, 1).await.unwrap();
        assert_eq!(s.owner.texts(counters).await, ["1 0 100", "5 1 9"]);

        // In and out of the trash, also where it does not count, and away.
        alice.delete(&id).await.unwrap();
        alice.undelete(&id).await.unwrap();
        let pupil = s.pupil();
        let homework = file_id(&pupil.upload(spec("b"), b"12").await.unwrap());
        pupil.upload_version(&homework, &png).await.unwrap();
        pupil.delete(&homework).await.unwrap();
        assert_eq!(pupil.quota().await.unwrap().used_bytes, 0, "this trash does not count");
        pupil.undelete(&homework).await.unwrap();
        let quota = pupil.quota().await.unwrap();
        assert_eq!((quota.used_bytes, quota.file_count), (102, 1));
        pupil.purge(&homework).await.unwrap();
        alice.purge(&id).await.unwrap();
        assert_eq!(alice.quota().await.unwrap().used_bytes, 0);
    });
}

#[test]
fn a_version_that_does_not_fit_is_refused_and_a_full_count_of_files_does_not_matter() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&s).await;
        let limits =
            strongroom::proto::v1::Quota { limit_bytes: 10, file_count_max: 1, ..Default::default() };
        s.ada().update_quota("", limits, &["limit_bytes", "file_count_max"]).await.unwrap();
        alice.upload_version(&id, b"123").await.unwrap();
        for refused in [
            alice.upload_version(&id, b"12345").await.unwrap_err(),
            alice.upload(UploadSpec { size_bytes: Some(5), ..version_of(&id) }, b"12345").await.unwrap_err(),
        ] {
            assert_eq!(reason(&refused), "QUOTA_BYTES_EXCEEDED");
        }
        alice.restore_version(&id, 1).await.unwrap();
        assert_eq!(reason(&alice.restore_version(&id, 1).await.unwrap_err()), "QUOTA_BYTES_EXCEEDED");
        assert_eq!(numbers(&alice.versions(&id, 0).await.unwrap()), [3, 2, 1]);
        assert_eq!(alice.quota().await.unwrap().used_bytes, 9);
    });
}

#[test]
fn what_belongs_to_the_file_is_refused_in_a_version_all_together() {
    service_test(|s| async move {
        let id = stored(&s).await;
        let bad = UploadSpec {
            name: "b".to_owned(),
            title: "b".to_owned(),
            tags: vec!["b".to_owned()],
            retention_days: 1,
            change_description: "x".repeat(501),
            ..version_of(&id)
        };
        let refused = s.alice().upload(bad, b"two").await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        let fields =
            ["spec.name", "spec.title", "spec.tags", "spec.retention_days", "spec.change_description"];
        assert_eq!(violated_fields(&refused), fields);
        let refused = s.alice().upload(version_of("7"), b"two").await.unwrap_err();
        assert_eq!(violated_fields(&refused), ["spec.file_id"]);
    });
}

#[test]
fn only_the_owner_and_admins_upload_a_version_and_a_stranger_does_not_see_the_file() {
    service_test(|s| async move {
        let id = stored(&s).await;
        let denied = s.bob().upload_version(&id, b"two").await.unwrap_err();
        assert_eq!((denied.code(), reason(&denied).as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
        let denials =
            "SELECT count(*) FROM audit_entries WHERE NOT is_allowed AND action = 2 AND actor_id = 'bob'";
        assert_eq!(s.owner.number(denials).await, 1);
        assert_eq!(s.mallory().upload_version(&id, b"two").await.unwrap_err().code(), Code::NotFound);
        let random = uuid::Uuid::from_u128(7).to_string();
        assert_eq!(s.alice().upload_version(&random, b"two").await.unwrap_err().code(), Code::NotFound);
        let by_ada = s.ada().upload_version(&id, b"two").await.unwrap();
        assert_eq!((by_ada.owner_id.as_str(), by_ada.updated_by.as_str()), ("alice", "ada"));
        assert_eq!((by_ada.title.as_str(), by_ada.tags[0].as_str()), ("title", "blue"));
    });
}

#[test]
fn a_file_in_the_trash_or_in_the_archive_takes_no_version() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&s).await;
        alice.upload_version(&id, b"two").await.unwrap();
        alice.archive(&id).await.unwrap();
        for refused in [alice.upload_version(&id, b"three").await, alice.restore_version(&id, 1).await]
            .map(Result::unwrap_err)
        {
            assert_eq!(reason(&refused), "FILE_NOT_AVAILABLE");
            assert_eq!(refused.get_details_error_info().unwrap().metadata["state"], "FILE_STATE_ARCHIVED");
        }
        alice.unarchive(&id).await.unwrap();
        alice.delete(&id).await.unwrap();
        for refused in [
            alice.upload_version(&id, b"three").await,
            alice.restore_version(&id, 1).await,
            alice.delete_version(&id, 1).await,
        ]
        .map(Result::unwrap_err)
        {
            assert_eq!(
                (refused.code(), reason(&refused).as_str()),
                (Code::FailedPrecondition, "FILE_DELETED")
            );
        }
        assert_eq!(numbers(&alice.versions(&id, 0).await.unwrap()), [2, 1], "they can be listed there");
    });
}

/// Opens an upload of a version, lets something happen, and finishes it.
async fn upload_around(
    alice: &Caller,
    id: &str,
    data: &[u8],
    event: impl Future<Output = ()>,
) -> tonic::Status {
    let (mut messages, stream) = mpsc::channel(64);
    let mut files = alice.files.clone();
    let answer = tokio::spawn(async move { files.upload_file(stream).await });
    let spec = UploadSpec { size_bytes: Some(data.len() as i64), ..version_of(id) };
    messages.send(spec_message(spec)).await.unwrap();
    for (n, piece) in data.chunks(PART / 2).enumerate() {
        messages.send(chunk(n * (PART / 2), piece)).await.unwrap();
    }
    event.await;
    messages.send(finish(data.len())).await.unwrap();
    drop(messages);
    answer.await.unwrap().unwrap_err()
}

#[test]
fn a_file_that_is_deleted_archived_or_purged_meanwhile_takes_no_version_and_nothing_is_left_over() {
    service_test(|s| async move {
        let alice = s.alice();
        let data = pattern(3 * PART);
        let id = stored(&s).await;
        // One that holds its reservation has passed the guard at the start.
        let open = "SELECT count(*) FROM uploads WHERE state = 1";
        let reserved = || s.until("the upload is open", || async { s.owner.number(open).await == 1 });
        let refused = upload_around(&alice, &id, &data, async {
            reserved().await;
            alice.archive(&id).await.unwrap();
        });
        assert_eq!(reason(&refused.await), "FILE_NOT_AVAILABLE");
        alice.unarchive(&id).await.unwrap();
        let given_back = || s.until("it is given back", || async { s.owner.number(open).await == 0 });
        given_back().await;
        let refused = upload_around(&alice, &id, &data, async {
            reserved().await;
            alice.delete(&id).await.unwrap();
        });
        assert_eq!(reason(&refused.await), "FILE_DELETED");
        alice.undelete(&id).await.unwrap();
        given_back().await;
        let refused = upload_around(&alice, &id, &data, async {
            reserved().await;
            alice.purge(&id).await.unwrap();
        });
        assert_eq!(refused.await.code(), Code::NotFound);
        given_back().await;
    });
}

#[test]
fn uploads_to_one_file_at_once_make_as_many_versions() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&s).await;
        let uploads = (0..12_u8).map(|n| {
            let (alice, id) = (alice.clone(), id.clone());
            async move { (n, alice.upload_version(&id, &[n; 10]).await.unwrap()) }
        });
        let mut made = futures::future::join_all(uploads).await;
        made.sort_by_key(|(_, file)| file.version);
        let expected: Vec<i32> = (2..=13).collect();
        assert_eq!(made.iter().map(|(_, file)| file.version).collect::<Vec<_>>(), expected);
        for (n, file) in &made {
            assert_eq!(file.sha256, crate::harness::sha256(&[*n; 10]), "each is told of its own content");
            assert_eq!(alice.read_version(&id, file.version).await.unwrap(), [*n; 10][..]);
        }
        let etags: std::collections::BTreeSet<&str> =
            made.iter().map(|(_, file)| file.etag.as_str()).collect();
        assert_eq!(etags.len(), 12, "each has an etag of its own");
        let last = &made.last().unwrap().1;
        assert_eq!(alice.get(&id).await.unwrap(), *last, "the last to be committed is current");
    });
}

#[test]
fn a_large_version_settles_its_reservation() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&s).await;
        let data = pattern(3 * PART + 7);
        let spec = UploadSpec { size_bytes: Some(data.len() as i64), ..version_of(&id) };
        alice.upload(spec, &data).await.unwrap();
        assert_eq!(alice.read(&id).await.unwrap(), data[..]);
        let quota = alice.quota().await.unwrap();
        assert_eq!((quota.used_bytes, quota.reserved_bytes), (3 + data.len() as i64, 0));
    });
}

#[test]
fn a_retried_version_is_one_version_and_the_same_answer() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&s).await;
        let request_id = uuid::Uuid::from_u128(7).to_string();
        let again = UploadSpec { request_id: request_id.clone(), ..version_of(&id) };
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
        let delete = DeleteFileVersionRequest { file_id: id.clone(), version: 2, request_id: uuid(9) };
        let first = alice.files.clone().delete_file_version(delete.clone()).await.unwrap().into_inner();
        let second = alice.files.clone().delete_file_version(delete).await.unwrap().into_inner();
        assert_eq!(first, second);
        assert_eq!(numbers(&alice.versions(&id, 0).await.unwrap()), [4, 3, 1]);
    });
}

fn uuid(n: u128) -> String {
    uuid::Uuid::from_u128(n).to_string()
}

#[test]
fn a_restored_version_is_a_new_one_on_the_same_stored_bytes() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&s).await;
        alice.upload_version(&id, b"two").await.unwrap();
        let restored = alice.restore_version(&id, 1).await.unwrap();
        assert_eq!((restored.version, restored.size_bytes), (3, 3));
        assert_eq!(alice.get(&id).await.unwrap(), restored);
        assert_eq!(alice.read(&id).await.unwrap(), b"one"[..]);
        assert_eq!(alice.versions(&id, 0).await.unwrap()[0].restored_from, 1);
        assert_eq!(s.owner.number("SELECT count(*) FROM blobs").await, 2);
        assert_eq!(alice.quota().await.unwrap().used_bytes, 9);

        // Whichever of the two goes, the bytes stay as long as the other is there.
        alice.delete_version(&id, 1).await.unwrap();
        assert_eq!(s.owner.number("SELECT count(*) FROM blobs WHERE delete_after IS NOT NULL").await, 0);
        assert_eq!(alice.read(&id).await.unwrap(), b"one"[..]);
        alice.delete_version(&id, 2).await.unwrap();
        assert_eq!(s.owner.number("SELECT count(*) FROM blobs WHERE delete_after IS NOT NULL").await, 1);

        let refused = alice.restore_version(&id, 3).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::FailedPrecondition, "VERSION_IS_CURRENT")
        );
        assert_eq!(alice.restore_version(&id, 1).await.unwrap_err().code(), Code::NotFound);
    });
}

#[test]
fn only_an_available_version_can_be_restored() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&s).await;
        alice.upload_version(&id, b"two").await.unwrap();
        s.owner.rows("UPDATE versions SET content_state = 3 WHERE version = 1", &[]).await;
        let refused = alice.restore_version(&id, 1).await.unwrap_err();
        assert_eq!(reason(&refused), "FILE_NOT_AVAILABLE");
        assert_eq!(refused.get_details_error_info().unwrap().metadata["state"], "FILE_STATE_QUARANTINED");
        assert_eq!(reason(&alice.read_version(&id, 1).await.unwrap_err()), "FILE_NOT_AVAILABLE");
        assert_eq!(alice.read(&id).await.unwrap(), b"two"[..]);
    });
}

#[test]
fn the_current_version_cannot_be_deleted_and_no_number_comes_again() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&s).await;
        let refused = alice.delete_version(&id, 1).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::FailedPrecondition, "VERSION_IS_CURRENT")
        );
        assert!(refused.message().contains("upload or restore another version first"), "{refused:?}");
        assert_eq!(refused.get_details_error_info().unwrap().metadata["version"], "1");

        alice.upload_version(&id, b"two").await.unwrap();
        let before = alice.restore_version(&id, 1).await.unwrap();
        let after = alice.delete_version(&id, 2).await.unwrap();
        assert_ne!(after.etag, before.etag, "the etag changes with any change");
        assert_eq!(alice.delete_version(&id, 2).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(alice.quota().await.unwrap().used_bytes, 6);
        // The newest goes by a detour: a later one becomes current first.
        alice.restore_version(&id, 1).await.unwrap();
        alice.delete_version(&id, 3).await.unwrap();
        assert_eq!(alice.upload_version(&id, b"five").await.unwrap().version, 5);
        assert_eq!(numbers(&alice.versions(&id, 0).await.unwrap()), [5, 4, 1]);
        let told = "SELECT count(*) FROM audit_entries WHERE action = 41 AND is_allowed";
        assert_eq!(s.owner.number(told).await, 2);
    });
}

#[test]
fn versions_are_listed_page_by_page_and_a_token_belongs_to_its_file() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&s).await;
        for n in 2..=5_u8 {
            alice.upload_version(&id, &[n]).await.unwrap();
        }
        assert_eq!(numbers(&alice.versions(&id, 2).await.unwrap()), [5, 4, 3, 2, 1]);
        let other = stored(&s).await;
        let first = ListFileVersionsRequest { file_id: id.clone(), page_size: 2, page_token: String::new() };
        let page = alice.files.clone().list_file_versions(first).await.unwrap().into_inner();
        for (file, token) in [(&other, page.next_page_token), (&id, "nonsense".to_owned())] {
            let request = ListFileVersionsRequest { file_id: file.clone(), page_size: 2, page_token: token };
            let refused = alice.files.clone().list_file_versions(request).await.unwrap_err();
            assert_eq!(reason(&refused), "PAGE_TOKEN_INVALID");
        }
        assert_eq!(s.bob().versions(&id, 0).await.unwrap().len(), 5, "who sees the file sees its versions");
        assert_eq!(s.mallory().versions(&id, 0).await.unwrap_err().code(), Code::NotFound);
    });
}

#[test]
fn a_file_granted_to_a_class_is_listed_there_with_the_size_of_its_new_version() {
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
        assert_eq!(s.owner.texts("SELECT size_bytes::text FROM file_readers").await, ["6"]);
        teacher.restore_version(&id, 1).await.unwrap();
        assert_eq!(s.owner.texts("SELECT size_bytes::text FROM file_readers").await, ["1"]);
        assert_eq!(s.friend().read(&id).await.unwrap(), b"x"[..]);
    });
}

#[test]
fn where_no_more_files_may_be_their_versions_may_of_any_size_and_by_any_way() {
    service_test(|s| async move {
        let id = stored(&s).await;
        let limit = Quota { file_count_max: 1, ..Quota::default() };
        s.ada().update_quota("", limit, &["file_count_max"]).await.unwrap();
        let refused = s.alice().upload(spec("b.txt"), b"b").await.unwrap_err();
        assert_eq!(reason(&refused), "QUOTA_FILES_EXCEEDED");
        let large = pattern(3 * PART);
        let told = UploadSpec { size_bytes: Some(large.len() as i64), ..version_of(&id) };
        for spec in [version_of(&id), told.clone()] {
            s.alice().upload(spec, &large).await.unwrap();
        }
        let upload = s.alice().create(told.clone()).await.unwrap();
        assert_eq!(s.alice().quota().await.unwrap().reserved_file_count, 0);
        s.alice().go_on(&upload.id, &large, 0, true).await.unwrap();
        let given_up = s.alice().create(told).await.unwrap();
        s.alice().cancel(&given_up.id).await.unwrap();
        assert_eq!(s.alice().get(&id).await.unwrap().version, 4);
    });
}
