//! Delete, undelete and purge, on the test clock.

use chrono::Duration;
use futures::future::join_all;
use strongroom::{
    proto::v1::{
        DeleteFileRequest, FileState, ListFilesRequest, PurgeFileRequest, UndeleteFileRequest, UploadSpec,
    },
    worker,
};
use tonic::Code;

use crate::harness::{Caller, PART, file_id, reason, service_test, spec};

async fn upload_file(caller: &Caller, name: &str, size: usize) -> String {
    file_id(&caller.upload(spec(name), &vec![b'a'; size]).await.unwrap())
}

#[test]
fn deleted_file_is_in_trash_for_30_days_and_can_be_undeleted() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&alice, "a", 10).await;
        let before = alice.get(&id).await.unwrap();
        let deleted = alice.delete(&id).await.unwrap().unwrap();
        assert_eq!(deleted.state(), FileState::Deleted);
        let (delete_time, purge_time) = (deleted.delete_time.unwrap(), deleted.purge_time.unwrap());
        assert_eq!(purge_time.seconds - delete_time.seconds, 30 * 24 * 3600);
        assert_ne!(deleted.etag, before.etag);
        assert_eq!(alice.get(&id).await.unwrap(), deleted, "GetFile also returns a file in the trash");
        assert!(alice.list_names(ListFilesRequest::default()).await.is_empty());
        assert_eq!(alice.delete(&id).await.unwrap().unwrap(), deleted, "a second delete changes nothing");

        let undeleted = alice.undelete(&id).await.unwrap();
        assert_eq!(
            (undeleted.state(), undeleted.delete_time, undeleted.purge_time),
            (FileState::Available, None, None)
        );
        assert_eq!(alice.undelete(&id).await.unwrap(), undeleted, "a second undelete changes nothing");
        assert_eq!(alice.list_names(ListFilesRequest::default()).await, ["a"]);
        assert_eq!(alice.read(&id).await.unwrap().len(), 10);
    });
}

#[test]
fn only_owner_and_admins_may_delete() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&alice, "a", 1).await;
        for other in [s.bob(), s.maria(), s.billing()] {
            for result in [
                other.delete(&id).await.map(|_| ()),
                other.undelete(&id).await.map(|_| ()),
                other.purge(&id).await,
            ] {
                let error = result.unwrap_err();
                assert_eq!((error.code(), reason(&error).as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
            }
        }
        let denials = "SELECT count(*) FROM audit_entries WHERE NOT is_allowed
            AND action IN ({audit_action.file_delete}, {audit_action.file_undelete},
            {audit_action.file_purge})";
        assert_eq!(s.superuser.query_number(denials).await, 9, "denials are audited");
        s.ada().delete(&id).await.unwrap();
        alice.undelete(&id).await.unwrap();
        alice.delete(&id).await.unwrap();
        s.ada().purge(&id).await.unwrap();
    });
}

#[test]
fn purged_file_is_not_found_and_leaves_tombstone() {
    service_test(|s| async move {
        let alice = s.alice();
        let from_trash = upload_file(&alice, "trash", 10).await;
        let at_once = upload_file(&alice, "at once", 3 * PART).await;
        alice.delete(&from_trash).await.unwrap();
        for id in [&from_trash, &at_once] {
            alice.purge(id).await.unwrap();
            for result in [
                alice.get(id).await.map(|_| ()),
                alice.read(id).await.map(|_| ()),
                alice.delete(id).await.map(|_| ()),
                alice.undelete(id).await.map(|_| ()),
                alice.purge(id).await,
            ] {
                assert_eq!(result.unwrap_err().code(), Code::NotFound);
            }
        }
        let tombstones = "SELECT format('%s %s %s %s', name, size_bytes, octet_length(sha256), purged_by)
                      FROM tombstones ORDER BY size_bytes";
        assert_eq!(
            s.superuser.query_texts(tombstones).await,
            ["trash 10 32 alice".to_owned(), format!("at once {} 32 alice", 3 * PART)]
        );
        let days = "SELECT DISTINCT extract(day FROM expire_time - purge_time) FROM tombstones";
        assert_eq!(s.superuser.query_number(days).await, 90);
        assert_eq!(s.quota_row(&alice).await.used_bytes, 0);
    });
}

#[test]
fn worker_purges_file_then_object_then_tombstone() {
    service_test(|s| async move {
        let (old, recent) =
            (upload_file(&s.alice(), "old", 10).await, upload_file(&s.alice(), "recent", 20).await);
        s.alice().delete(&old).await.unwrap();
        s.clock.advance(Duration::days(29));
        s.alice().delete(&recent).await.unwrap();
        assert_eq!(worker::run_round(&s.app).await.done, 0, "no file is due");
        s.clock.advance(Duration::days(1) + Duration::seconds(1));
        assert_eq!(worker::run_round(&s.app).await.done, 1, "one file is due");
        assert_eq!(s.alice().get(&old).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(s.alice().get(&recent).await.unwrap().state(), FileState::Deleted);
        assert_eq!(s.quota_row(&s.alice()).await.used_bytes, 20);
        let by = "SELECT purged_by FROM tombstones";
        assert_eq!(s.superuser.query_texts(by).await, ["strongroom"]);

        // The object is deleted 72 hours after the purge, so that a database restored to an earlier
        // time still finds it.
        let objects = || async { s.store.list("", None, 10).await.unwrap().objects.len() };
        s.clock.advance(Duration::hours(71));
        assert_eq!((worker::run_round(&s.app).await.done, objects().await), (0, 2));
        s.clock.advance(Duration::hours(1) + Duration::seconds(1));
        assert_eq!((worker::run_round(&s.app).await.done, objects().await), (1, 1));
        assert_eq!(s.superuser.query_number("SELECT count(*) FROM blobs").await, 1);

        s.clock.advance(Duration::days(90));
        worker::run_round(&s.app).await;
        assert_eq!(s.superuser.query_number("SELECT count(*) FROM tombstones WHERE name = 'old'").await, 0);
    });
}

#[test]
fn retained_file_cannot_be_purged() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&alice, "record", 10).await;
        s.superuser.execute("UPDATE files SET retain_until_time = now() + interval '60 days'").await;
        alice.delete(&id).await.unwrap();
        let error = alice.purge(&id).await.unwrap_err();
        assert_eq!((error.code(), reason(&error).as_str()), (Code::FailedPrecondition, "FILE_RETAINED"));
        s.clock.advance(Duration::days(31));
        assert_eq!(worker::run_round(&s.app).await.done, 0);
        assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Deleted);
        s.clock.advance(Duration::days(31));
        assert_eq!(worker::run_round(&s.app).await.done, 1);
    });
}

#[test]
fn trash_counts_against_quota_except_in_education() {
    service_test(|s| async move {
        let (alice, pupil) = (s.alice(), s.pupil());
        for (caller, in_trash) in [(&alice, 10), (&pupil, 0)] {
            let id = upload_file(caller, "a", 10).await;
            caller.delete(&id).await.unwrap();
            let row = s.quota_row(caller).await;
            assert_eq!((row.used_bytes, row.file_count), (in_trash, i64::from(in_trash > 0)));
            caller.undelete(&id).await.unwrap();
            assert_eq!(s.quota_row(caller).await.used_bytes, 10);
            caller.delete(&id).await.unwrap();
            caller.purge(&id).await.unwrap();
            assert_eq!((s.quota_row(caller).await.used_bytes, s.quota_row(caller).await.file_count), (0, 0));
        }
    });
}

#[test]
fn undelete_needs_quota_if_trash_does_not_count() {
    service_test(|s| async move {
        let (pupil, head) = (s.pupil(), s.head());
        head.set_limit_bytes(100).await;
        let first = upload_file(&pupil, "first", 60).await;
        pupil.delete(&first).await.unwrap();
        let second = upload_file(&pupil, "second", 60).await;
        let error = pupil.undelete(&first).await.unwrap_err();
        assert_eq!(
            (error.code(), reason(&error).as_str()),
            (Code::ResourceExhausted, "QUOTA_BYTES_EXCEEDED")
        );
        assert_eq!(pupil.get(&first).await.unwrap().state(), FileState::Deleted);
        pupil.delete(&second).await.unwrap();
        pupil.undelete(&first).await.unwrap();
    });
}

#[test]
fn retried_delete_has_one_effect_and_same_response() {
    service_test(|s| async move {
        let alice = s.alice();
        let (id, other) = (upload_file(&alice, "a", 1).await, upload_file(&alice, "b", 1).await);
        let ids: Vec<String> = (1..4).map(|n| format!("0198c0de-3333-7000-8000-00000000000{n}")).collect();
        let delete = |file: &str| DeleteFileRequest {
            file_id: file.to_owned(),
            request_id: ids[0].clone(),
            ..DeleteFileRequest::default()
        };
        let undelete = UndeleteFileRequest { file_id: id.clone(), request_id: ids[1].clone() };
        let purge = PurgeFileRequest {
            file_id: id.clone(),
            request_id: ids[2].clone(),
            ..PurgeFileRequest::default()
        };
        let mut files = alice.files.clone();

        let deleted = files.delete_file(delete(&id)).await.unwrap().into_inner();
        let undeleted = files.undelete_file(undelete.clone()).await.unwrap().into_inner();
        assert_eq!(
            files.delete_file(delete(&id)).await.unwrap().into_inner(),
            deleted,
            "the retry returns the first response"
        );
        assert_eq!(alice.get(&id).await.unwrap().state(), FileState::Available, "the retry has no effect");
        let reused = files.delete_file(delete(&other)).await.unwrap_err();
        assert_eq!((reused.code(), reason(&reused).as_str()), (Code::InvalidArgument, "REQUEST_ID_REUSED"));
        files.purge_file(purge.clone()).await.unwrap();
        files.purge_file(purge).await.unwrap();
        assert_eq!(
            files.undelete_file(undelete).await.unwrap().into_inner(),
            undeleted,
            "the retry returns the first response even after the purge"
        );
    });
}

#[test]
fn concurrent_deletes_and_purges_count_once() {
    service_test(|s| async move {
        let pupil = s.pupil();
        for n in 0..5 {
            let id = upload_file(&pupil, &format!("{n}"), 100).await;
            let attempts = (0..10).map(|m| {
                let (pupil, id) = (pupil.clone(), id.clone());
                async move {
                    let outcome = match m % 3 {
                        0 => pupil.delete(&id).await.map(|_| ()),
                        1 => pupil.undelete(&id).await.map(|_| ()),
                        _ => pupil.purge(&id).await,
                    };
                    assert!(
                        outcome.is_ok() || outcome.as_ref().unwrap_err().code() == Code::NotFound,
                        "{outcome:?}"
                    );
                }
            });
            join_all(attempts).await;
        }
        let row = s.quota_row(&pupil).await;
        assert_eq!((row.used_bytes, row.file_count), (0, 0));
    });
}

#[test]
fn retention_days_set_retention_end_time() {
    service_test(|s| async move {
        let spec_with_retention = UploadSpec { retention_days: 7, ..spec("a") };
        let file = s.alice().upload(spec_with_retention, b"x").await.unwrap().file.unwrap();
        let (from, until) = (file.create_time.unwrap(), file.retention_end_time.unwrap());
        assert_eq!(until.seconds - from.seconds, 7 * 24 * 3600);
        let unlimited = s.alice().upload(spec("b"), b"x").await.unwrap().file.unwrap();
        assert_eq!(unlimited.retention_end_time, None);
    });
}
