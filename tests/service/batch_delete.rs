//! `BatchDeleteFiles` deletes all files or none.

use strongroom::proto::v1::{BatchDeleteFilesRequest, FileState};
use tonic::Code;

use crate::harness::{Caller, file_id, reason, service_test, spec, violated_fields};

async fn upload_files(caller: &Caller, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..count {
        ids.push(file_id(&caller.upload(spec(&format!("{n}")), b"12345").await.unwrap()));
    }
    ids
}

#[test]
fn batch_delete_keeps_order_and_retry_has_same_response() {
    service_test(|s| async move {
        let alice = s.alice();
        let mut ids = upload_files(&alice, 5).await;
        ids.reverse();
        alice.delete(&ids[2]).await.unwrap();
        let before = alice.get(&ids[2]).await.unwrap();
        let request = BatchDeleteFilesRequest {
            file_ids: ids.clone(),
            request_id: uuid::Uuid::from_u128(7).to_string(),
        };
        let first = alice.files.clone().batch_delete_files(request.clone()).await.unwrap().into_inner();
        let returned: Vec<&String> = first.files.iter().map(|file| &file.id).collect();
        assert_eq!(returned, ids.iter().collect::<Vec<_>>());
        assert!(
            first.files.iter().all(|file| file.state() == FileState::Deleted && file.purge_time.is_some())
        );
        assert_eq!(
            alice.get(&ids[2]).await.unwrap(),
            before,
            "a file that is already in the trash does not change"
        );
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
fn one_rejected_id_fails_batch_and_all_rejected_are_reported() {
    service_test(|s| async move {
        let (alice, bob) = (s.alice(), s.bob());
        let (alices, bobs) = (upload_files(&alice, 2).await, upload_files(&bob, 1).await);
        let missing = uuid::Uuid::from_u128(7).to_string();
        let error = alice.batch_delete(&[&alices[0], &bobs[0], &missing, &alices[1]]).await.unwrap_err();
        assert_eq!((error.code(), reason(&error).as_str()), (Code::NotFound, "NOT_FOUND"));
        assert_eq!(violated_fields(&error), ["file_ids[1]", "file_ids[2]"]);
        let error = alice.batch_delete(&[&alices[0], &bobs[0]]).await.unwrap_err();
        assert_eq!((error.code(), reason(&error).as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
        assert_eq!(violated_fields(&error), ["file_ids[1]"]);
        for id in &alices {
            assert_eq!(alice.get(id).await.unwrap().state(), FileState::Available);
        }
        let denials = "SELECT count(*) FROM audit_entries WHERE NOT is_allowed
            AND action = {audit_action.file_delete} AND file_id IS NOT NULL";
        assert_eq!(s.superuser.query_number(denials).await, 2);
        assert_eq!(
            s.ada().batch_delete(&[&alices[0], &bobs[0]]).await.unwrap().len(),
            2,
            "an admin may delete both"
        );
    });
}

#[test]
fn all_wrong_ids_of_batch_are_reported_together() {
    service_test(|s| async move {
        let alice = s.alice();
        let ids = upload_files(&alice, 1).await;
        let error = alice.batch_delete(&[&ids[0], "7", "8"]).await.unwrap_err();
        assert_eq!(violated_fields(&error), ["file_ids[1]", "file_ids[2]"]);
        let error = alice.batch_delete(&[&ids[0], &ids[0], &ids[0]]).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert_eq!(violated_fields(&error), ["file_ids[1]", "file_ids[2]"]);
        let many: Vec<String> = (1..=101).map(|n| uuid::Uuid::from_u128(n).to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for result in [alice.batch_delete(&[]).await, alice.batch_delete(&many).await] {
            assert_eq!(violated_fields(&result.unwrap_err()), ["file_ids"]);
        }
        // The error names a hundred missing files and stays within the limit of 4 KiB.
        let error = alice.batch_delete(&many[..100]).await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
        assert!(error.details().len() < 4096, "{}", error.details().len());
        let named = violated_fields(&error).len();
        assert_eq!(named, 100);
    });
}

#[test]
fn concurrent_batches_release_quota_once() {
    service_test(|s| async move {
        // In the school, the trash does not count against the quota.
        let (pupil, head) = (s.pupil(), s.head());
        let ids = upload_files(&pupil, 20).await;
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
fn batch_delete_without_trash_purges_shared_blob() {
    service_test(|s| async move {
        let alice = s.alice();
        let ids = upload_files(&alice, 2).await;
        s.superuser.execute("UPDATE tenants SET policy = jsonb_set(policy, '{trash,days}', '0')").await;
        let fresh = s.start_replica(|_| {}).await;
        let alice = fresh.alice();
        let request =
            strongroom::proto::v1::CopyFileRequest { file_id: ids[0].clone(), ..Default::default() };
        let copy = alice.copy(request).await.unwrap().id;
        fresh.ada().set_legal_hold(&ids[1], "trial").await.unwrap();
        let error = alice.batch_delete(&[&ids[0], &ids[1], &copy]).await.unwrap_err();
        assert_eq!((error.code(), reason(&error).as_str()), (Code::FailedPrecondition, "FILE_RETAINED"));
        assert_eq!(violated_fields(&error), ["file_ids[1]"]);
        assert_eq!(alice.read(&copy).await.unwrap(), b"12345"[..]);
        assert!(alice.batch_delete(&[&ids[0], &copy]).await.unwrap().is_empty());
        assert_eq!(alice.get(&copy).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(
            s.superuser.query_number("SELECT count(*) FROM blobs WHERE delete_after IS NOT NULL").await,
            1
        );
        assert_eq!(alice.quota().await.unwrap().used_bytes, 5);
        fresh.stop().await;
    });
}
