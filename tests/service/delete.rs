//! The trash: in, out, and for good. Time moves when the test says so.

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

async fn stored(caller: &Caller, name: &str, size: usize) -> String {
    file_id(&caller.upload(spec(name), &vec![b'a'; size]).await.unwrap())
}

#[test]
fn a_deleted_file_is_in_the_trash_for_thirty_days_and_comes_back_as_it_was() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&alice, "a", 10).await;
        let before = alice.get(&id).await.unwrap();
        let deleted = alice.delete(&id).await.unwrap().unwrap();
        assert_eq!(deleted.state(), FileState::Deleted);
        let (at, until) = (deleted.delete_time.unwrap(), deleted.purge_time.unwrap());
        assert_eq!(until.seconds - at.seconds, 30 * 24 * 3600);
        assert_ne!(deleted.etag, before.etag);
        assert_eq!(alice.get(&id).await.unwrap(), deleted, "get shows the trash too");
        assert!(alice.names(ListFilesRequest::default()).await.is_empty());
        assert_eq!(alice.delete(&id).await.unwrap().unwrap(), deleted, "deleting again changes nothing");

        let back = alice.undelete(&id).await.unwrap();
        assert_eq!((back.state(), back.delete_time, back.purge_time), (FileState::Available, None, None));
        assert_eq!(alice.undelete(&id).await.unwrap(), back, "undeleting again changes nothing");
        assert_eq!(alice.names(ListFilesRequest::default()).await, ["a"]);
        assert_eq!(alice.read(&id).await.unwrap().len(), 10);
    });
}

#[test]
fn the_owner_and_admins_may_delete_and_others_may_not() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&alice, "a", 1).await;
        for other in [s.bob(), s.maria(), s.billing()] {
            for refused in [
                other.delete(&id).await.map(|_| ()),
                other.undelete(&id).await.map(|_| ()),
                other.purge(&id).await,
            ] {
                let status = refused.unwrap_err();
                assert_eq!(
                    (status.code(), reason(&status).as_str()),
                    (Code::PermissionDenied, "NOT_ALLOWED")
                );
            }
        }
        let denials = "SELECT count(*) FROM audit_entries WHERE NOT is_allowed AND action IN (4, 5, 6)";
        assert_eq!(s.owner.number(denials).await, 9, "denials are written down");
        s.ada().delete(&id).await.unwrap();
        alice.undelete(&id).await.unwrap();
        alice.delete(&id).await.unwrap();
        s.ada().purge(&id).await.unwrap();
    });
}

#[test]
fn a_purged_file_is_gone_and_leaves_a_tombstone() {
    service_test(|s| async move {
        let alice = s.alice();
        let from_trash = stored(&alice, "trash", 10).await;
        let at_once = stored(&alice, "at once", 3 * PART).await;
        alice.delete(&from_trash).await.unwrap();
        for id in [&from_trash, &at_once] {
            alice.purge(id).await.unwrap();
            for gone in [
                alice.get(id).await.map(|_| ()),
                alice.read(id).await.map(|_| ()),
                alice.delete(id).await.map(|_| ()),
                alice.undelete(id).await.map(|_| ()),
                alice.purge(id).await,
            ] {
                assert_eq!(gone.unwrap_err().code(), Code::NotFound);
            }
        }
        let stones = "SELECT format('%s %s %s %s', name, size_bytes, octet_length(sha256), purged_by)
                      FROM tombstones ORDER BY size_bytes";
        assert_eq!(
            s.owner.texts(stones).await,
            ["trash 10 32 alice".to_owned(), format!("at once {} 32 alice", 3 * PART)]
        );
        let days = "SELECT DISTINCT extract(day FROM expire_time - purge_time) FROM tombstones";
        assert_eq!(s.owner.number(days).await, 90);
        assert_eq!(s.book(&alice).await.used_bytes, 0);
    });
}

#[test]
fn the_worker_empties_the_trash_and_later_the_store_and_at_last_forgets() {
    service_test(|s| async move {
        let (old, kept) = (stored(&s.alice(), "old", 10).await, stored(&s.alice(), "kept", 20).await);
        s.alice().delete(&old).await.unwrap();
        s.clock.advance(Duration::days(29));
        s.alice().delete(&kept).await.unwrap();
        assert_eq!(worker::run_round(&s.app).await, 0, "nothing is due");
        s.clock.advance(Duration::days(1) + Duration::seconds(1));
        assert_eq!(worker::run_round(&s.app).await, 1, "one is");
        assert_eq!(s.alice().get(&old).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(s.alice().get(&kept).await.unwrap().state(), FileState::Deleted);
        assert_eq!(s.book(&s.alice()).await.used_bytes, 20);
        let by = "SELECT purged_by FROM tombstones";
        assert_eq!(s.owner.texts(by).await, ["strongroom"]);

        // The bytes outlive the purge, so that a database restored to an earlier hour still finds them.
        let objects = || async { s.store.list("", None, 10).await.unwrap().objects.len() };
        s.clock.advance(Duration::hours(71));
        assert_eq!((worker::run_round(&s.app).await, objects().await), (0, 2));
        s.clock.advance(Duration::hours(1) + Duration::seconds(1));
        assert_eq!((worker::run_round(&s.app).await, objects().await), (1, 1));
        assert_eq!(s.owner.number("SELECT count(*) FROM blobs").await, 1);

        s.clock.advance(Duration::days(90));
        worker::run_round(&s.app).await;
        assert_eq!(s.owner.number("SELECT count(*) FROM tombstones WHERE name = 'old'").await, 0);
    });
}

#[test]
fn a_file_that_must_be_kept_stays_whoever_purges() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&alice, "record", 10).await;
        s.owner.run("UPDATE files SET retain_until_time = now() + interval '60 days'").await;
        alice.delete(&id).await.unwrap();
        let refused = alice.purge(&id).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "FILE_RETAINED"));
        s.clock.advance(Duration::days(31));
        assert_eq!(worker::run_round(&s.app).await, 0);
        assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Deleted);
        s.clock.advance(Duration::days(31));
        assert_eq!(worker::run_round(&s.app).await, 1);
    });
}

#[test]
fn the_trash_of_general_counts_and_that_of_education_does_not() {
    service_test(|s| async move {
        let (alice, pupil) = (s.alice(), s.pupil());
        for (caller, in_trash) in [(&alice, 10), (&pupil, 0)] {
            let id = stored(caller, "a", 10).await;
            caller.delete(&id).await.unwrap();
            let book = s.book(caller).await;
            assert_eq!((book.used_bytes, book.file_count), (in_trash, i64::from(in_trash > 0)));
            caller.undelete(&id).await.unwrap();
            assert_eq!(s.book(caller).await.used_bytes, 10);
            caller.delete(&id).await.unwrap();
            caller.purge(&id).await.unwrap();
            assert_eq!((s.book(caller).await.used_bytes, s.book(caller).await.file_count), (0, 0));
        }
    });
}

#[test]
fn where_the_trash_does_not_count_undelete_needs_room_again() {
    service_test(|s| async move {
        let (pupil, head) = (s.pupil(), s.head());
        head.limit_bytes(100).await;
        let first = stored(&pupil, "first", 60).await;
        pupil.delete(&first).await.unwrap();
        let second = stored(&pupil, "second", 60).await;
        let refused = pupil.undelete(&first).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::ResourceExhausted, "QUOTA_BYTES_EXCEEDED")
        );
        assert_eq!(pupil.get(&first).await.unwrap().state(), FileState::Deleted);
        pupil.delete(&second).await.unwrap();
        pupil.undelete(&first).await.unwrap();
    });
}

#[test]
fn a_retried_change_has_one_effect_and_one_answer() {
    service_test(|s| async move {
        let alice = s.alice();
        let (id, other) = (stored(&alice, "a", 1).await, stored(&alice, "b", 1).await);
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
        let restored = files.undelete_file(undelete.clone()).await.unwrap().into_inner();
        assert_eq!(files.delete_file(delete(&id)).await.unwrap().into_inner(), deleted, "as the first time");
        assert_eq!(alice.get(&id).await.unwrap().state(), FileState::Available, "and without an effect");
        let reused = files.delete_file(delete(&other)).await.unwrap_err();
        assert_eq!((reused.code(), reason(&reused).as_str()), (Code::InvalidArgument, "REQUEST_ID_REUSED"));
        files.purge_file(purge.clone()).await.unwrap();
        files.purge_file(purge).await.unwrap();
        assert_eq!(
            files.undelete_file(undelete).await.unwrap().into_inner(),
            restored,
            "also when it is long gone"
        );
    });
}

#[test]
fn of_many_deletes_and_purges_at_once_each_counts_once() {
    service_test(|s| async move {
        let pupil = s.pupil();
        for n in 0..5 {
            let id = stored(&pupil, &format!("{n}"), 100).await;
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
        let book = s.book(&pupil).await;
        assert_eq!((book.used_bytes, book.file_count), (0, 0));
    });
}

#[test]
fn a_file_is_due_for_deletion_when_its_retention_says_so() {
    service_test(|s| async move {
        let told = UploadSpec { retention_days: 7, ..spec("a") };
        let file = s.alice().upload(told, b"x").await.unwrap().file.unwrap();
        let (from, until) = (file.create_time.unwrap(), file.retention_end_time.unwrap());
        assert_eq!(until.seconds - from.seconds, 7 * 24 * 3600);
        let unlimited = s.alice().upload(spec("b"), b"x").await.unwrap().file.unwrap();
        assert_eq!(unlimited.retention_end_time, None);
    });
}
