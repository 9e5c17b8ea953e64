//! Several files into the trash: all of them, or none.

use strongroom::proto::v1::{BatchDeleteFilesRequest, FileState};
use tonic::Code;

use crate::harness::{Caller, file_id, reason, service_test, spec, violated_fields};

async fn stored(caller: &Caller, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..count {
        ids.push(file_id(&caller.upload(spec(&format!("{n}")), b"12345").await.unwrap()));
    }
    ids
}

#[test]
fn a_batch_goes_to_the_trash_in_its_order_and_a_retry_answers_the_same() {
    service_test(|s| async move {
        let alice = s.alice();
        let mut ids = stored(&alice, 5).await;
        ids.reverse();
        alice.delete(&ids[2]).await.unwrap();
        let before = alice.get(&ids[2]).await.unwrap();
        let request = BatchDeleteFilesRequest {
            file_ids: ids.clone(),
            request_id: uuid::Uuid::from_u128(7).to_string(),
        };
        let first = alice.files.clone().batch_delete_files(request.clone()).await.unwrap().into_inner();
        let answered: Vec<&String> = first.files.iter().map(|file| &file.id).collect();
        assert_eq!(answered, ids.iter().collect::<Vec<_>>());
        assert!(
            first.files.iter().all(|file| file.state() == FileState::Deleted && file.purge_time.is_some())
        );
        assert_eq!(alice.get(&ids[2]).await.unwrap(), before, "what was there already stays as it is");
        alice.undelete(&ids[0]).await.unwrap();
        let again = alice.files.clone().batch_delete_files(request.clone()).await.unwrap().into_inner();
        assert_eq!(again, first);
        assert_eq!(alice.get(&ids[0]).await.unwrap().state(), FileState::Available);
        let other = BatchDeleteFilesRequest { file_ids: ids[1..].to_vec(), ..request };
        let reused = alice.files.clone().batch_delete_files(other).await.unwrap_err();
        assert_eq!(reason(&reused), "REQUEST_ID_REUSED");
    });
}

#[test]
fn when_one_of_a_batch_is_refused_nothing_is_done_and_every_refused_one_is_named() {
    service_test(|s| async move {
        let (alice, bob) = (s.alice(), s.bob());
        let (mine, his) = (stored(&alice, 2).await, stored(&bob, 1).await);
        let missing = uuid::Uuid::from_u128(7).to_string();
        let refused = alice.batch_delete(&[&mine[0], &his[0], &missing, &mine[1]]).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::NotFound, "NOT_FOUND"));
        assert_eq!(violated_fields(&refused), ["file_ids[1]", "file_ids[2]"]);
        let refused = alice.batch_delete(&[&mine[0], &his[0]]).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
        assert_eq!(violated_fields(&refused), ["file_ids[1]"]);
        for id in &mine {
            assert_eq!(alice.get(id).await.unwrap().state(), FileState::Available);
        }
        let denials =
            "SELECT count(*) FROM audit_entries WHERE NOT is_allowed AND action = 4 AND file_id IS NOT NULL";
        assert_eq!(s.owner.number(denials).await, 2);
        assert_eq!(s.ada().batch_delete(&[&mine[0], &his[0]]).await.unwrap().len(), 2, "an admin may");
    });
}

#[test]
fn the_ids_of_a_batch_are_checked_all_together() {
    service_test(|s| async move {
        let alice = s.alice();
        let ids = stored(&alice, 1).await;
        let refused = alice.batch_delete(&[&ids[0], "7", "8"]).await.unwrap_err();
        assert_eq!(violated_fields(&refused), ["file_ids[1]", "file_ids[2]"]);
        let refused = alice.batch_delete(&[&ids[0], &ids[0], &ids[0]]).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(violated_fields(&refused), ["file_ids[1]", "file_ids[2]"]);
        let many: Vec<String> = (1..=101).map(|n| uuid::Uuid::from_u128(n).to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for refused in [alice.batch_delete(&[]).await, alice.batch_delete(&many).await] {
            assert_eq!(violated_fields(&refused.unwrap_err()), ["file_ids"]);
        }
        // A hundred that are not there are named without the answer growing too large for a client.
        let refused = alice.batch_delete(&many[..100]).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
        assert!(refused.details().len() < 4096, "{}", refused.details().len());
        let named = violated_fields(&refused).len();
        assert_eq!(named, 100);
    });
}

#[test]
fn batches_over_the_same_files_at_once_each_give_the_room_back_once() {
    service_test(|s| async move {
        // Where the trash does not count.
        let (pupil, head) = (s.pupil(), s.head());
        let ids = stored(&pupil, 20).await;
        let forwards: Vec<&str> = ids.iter().map(String::as_str).collect();
        let backwards: Vec<&str> = forwards.iter().rev().copied().collect();
        let batches = (0..6).map(|n| {
            let (caller, ids) = if n % 2 == 0 { (&pupil, &forwards) } else { (&head, &backwards) };
            async move { caller.batch_delete(ids).await.unwrap().len() }
        });
        assert_eq!(futures::future::join_all(batches).await, [20; 6]);
        assert_eq!(pupil.quota().await.unwrap().used_bytes, 0);
        pupil.undelete(&ids[3]).await.unwrap();
        assert_eq!(pupil.quota().await.unwrap().used_bytes, 5);
    });
}

#[test]
fn where_there_is_no_trash_a_batch_is_purged_and_its_shared_bytes_are_let_go() {
    service_test(|s| async move {
        let alice = s.alice();
        let ids = stored(&alice, 2).await;
        s.owner.run("UPDATE tenants SET policy = jsonb_set(policy, '{trash,days}', '0')").await;
        let fresh = s.replica(|_| {}).await;
        let alice = fresh.alice();
        let request =
            strongroom::proto::v1::CopyFileRequest { file_id: ids[0].clone(), ..Default::default() };
        let copy = alice.copy(request).await.unwrap().id;
        fresh.ada().hold(&ids[1], "trial").await.unwrap();
        let refused = alice.batch_delete(&[&ids[0], &ids[1], &copy]).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "FILE_RETAINED"));
        assert_eq!(violated_fields(&refused), ["file_ids[1]"]);
        assert_eq!(alice.read(&copy).await.unwrap(), b"12345"[..]);
        assert!(alice.batch_delete(&[&ids[0], &copy]).await.unwrap().is_empty());
        assert_eq!(alice.get(&copy).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(s.owner.number("SELECT count(*) FROM blobs WHERE delete_after IS NOT NULL").await, 1);
        assert_eq!(alice.quota().await.unwrap().used_bytes, 5);
        fresh.stopped().await;
    });
}
