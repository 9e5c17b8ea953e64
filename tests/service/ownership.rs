//! Someone leaves, and their files go to someone else.

use strongroom::proto::v1::{
    FileFilter, ListFilesRequest, TransferOwnershipRequest, TransferOwnershipResponse, UploadSpec, Visibility,
};
use tonic::{Code, Status};

use crate::harness::{Caller, Service, file_id, reason, service_test, spec, violated_fields};

async fn transfer(
    caller: &Caller,
    (from, to): (&str, &str),
    change: impl FnOnce(&mut TransferOwnershipRequest),
) -> Result<TransferOwnershipResponse, Status> {
    let mut request = TransferOwnershipRequest {
        from_user_id: from.to_owned(),
        to_user_id: to.to_owned(),
        ..TransferOwnershipRequest::default()
    };
    change(&mut request);
    Ok(caller.files.clone().transfer_ownership(request).await?.into_inner())
}

/// Files that only alice and the admins see.
async fn private(s: &Service, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..count {
        let told = UploadSpec { visibility: Visibility::Owner.into(), ..spec(&format!("file {n}")) };
        ids.push(file_id(&s.alice().upload(told, b"x").await.unwrap()));
    }
    ids
}

fn figures(answer: &TransferOwnershipResponse) -> [i64; 3] {
    [answer.transferred_file_count, answer.remaining_file_count, answer.remaining_bytes]
}

#[test]
fn a_leavers_files_are_their_successors_in_every_list_and_by_every_door() {
    service_test(|s| async move {
        let ids = private(&s, 3).await;
        s.alice().delete(&ids[2]).await.unwrap();
        let before = s.ada().get(&ids[0]).await.unwrap();
        assert_eq!(figures(&transfer(&s.ada(), ("alice", "bob"), |_| {}).await.unwrap()), [3, 0, 0]);

        assert!(s.alice().names(ListFilesRequest::default()).await.is_empty());
        assert_eq!(s.alice().get(&ids[0]).await.unwrap_err().code(), Code::NotFound);
        let mut names = s.bob().names(ListFilesRequest::default()).await;
        names.sort();
        assert_eq!(names, ["file 0", "file 1"]);
        let trash = ListFilesRequest { show_deleted: true, ..Default::default() };
        assert_eq!(s.bob().names(trash).await.len(), 3, "the trash goes along");
        s.bob().undelete(&ids[2]).await.unwrap();
        assert_eq!(s.bob().read(&ids[1]).await.unwrap(), b"x"[..]);
        s.bob().rename(&ids[1], "mine").await.unwrap();

        let after = s.bob().get(&ids[0]).await.unwrap();
        assert_eq!((after.owner_id.as_str(), after.created_by.as_str()), ("bob", "alice"));
        assert_eq!(after.updated_by, "ada");
        assert_ne!(after.etag, before.etag);
        let filter = Some(FileFilter { owner_id: "alice".to_owned(), ..Default::default() });
        assert!(s.ada().names(ListFilesRequest { filter, ..Default::default() }).await.is_empty());
        assert_eq!(
            s.owner.number("SELECT count(*) FROM events WHERE kind = 50 AND actor_id = 'ada'").await,
            3
        );
        let told =
            "SELECT count(*) FROM audit_entries WHERE action = 55 AND is_allowed AND file_id IS NOT NULL
                    AND details = '{\"from\": \"alice\", \"to\": \"bob\"}'";
        assert_eq!(s.owner.number(told).await, 3);
    });
}

#[test]
fn it_goes_in_bounded_pieces_until_nothing_remains() {
    service_test(|s| async move {
        private(&s, 5).await;
        let piece = |request: &mut TransferOwnershipRequest| request.batch_size = 2;
        for expected in [[2, 3, 3], [2, 1, 1], [1, 0, 0], [0, 0, 0]] {
            assert_eq!(figures(&transfer(&s.ada(), ("alice", "bob"), piece).await.unwrap()), expected);
        }
        assert_eq!(s.bob().names(ListFilesRequest::default()).await.len(), 5);
    });
}

#[test]
fn a_dry_run_counts_and_changes_nothing() {
    service_test(|s| async move {
        let ids = private(&s, 2).await;
        let told = transfer(&s.ada(), ("alice", "bob"), |request| request.dry_run = true).await.unwrap();
        assert_eq!(figures(&told), [0, 2, 2]);
        assert_eq!(s.ada().get(&ids[0]).await.unwrap().owner_id, "alice");
    });
}

#[test]
fn whoever_a_file_was_shared_with_still_sees_it_and_the_new_owner_sees_it_once() {
    service_test(|s| async move {
        let id = private(&s, 1).await.remove(0);
        let share = "INSERT INTO file_readers (tenant_id, principal, file_id, create_time, name, size_bytes)
                     SELECT tenant_id, principal, id, create_time, name, size_bytes
                     FROM files, unnest(ARRAY['user:bob', 'user:billing']) AS principal";
        s.owner.run(share).await;
        transfer(&s.ada(), ("alice", "bob"), |_| {}).await.unwrap();
        for caller in [s.bob(), s.billing()] {
            assert_eq!(caller.names(ListFilesRequest::default()).await, ["file 0"]);
            caller.get(&id).await.unwrap();
        }
        assert_eq!(s.billing().delete(&id).await.unwrap_err().code(), Code::PermissionDenied);
        s.bob().delete(&id).await.unwrap();
    });
}

#[test]
fn a_retry_gives_no_second_piece_away() {
    service_test(|s| async move {
        private(&s, 4).await;
        let piece = |request: &mut TransferOwnershipRequest| {
            request.batch_size = 2;
            request.request_id = uuid::Uuid::from_u128(7).to_string();
        };
        let first = transfer(&s.ada(), ("alice", "bob"), piece).await.unwrap();
        assert_eq!(transfer(&s.ada(), ("alice", "bob"), piece).await.unwrap(), first);
        assert_eq!(s.bob().names(ListFilesRequest::default()).await.len(), 2);
        let other = transfer(&s.ada(), ("alice", "maria"), piece).await.unwrap_err();
        assert_eq!(reason(&other), "REQUEST_ID_REUSED");
    });
}

#[test]
fn only_admins_and_only_within_their_tenant() {
    service_test(|s| async move {
        let ids = private(&s, 1).await;
        for caller in [s.alice(), s.bob(), s.maria()] {
            let refused = transfer(&caller, ("alice", "bob"), |_| {}).await.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied);
        }
        assert_eq!(figures(&transfer(&s.gus(), ("alice", "gus"), |_| {}).await.unwrap()), [0, 0, 0]);
        let wrong =
            transfer(&s.ada(), ("alice", "alice"), |request| request.batch_size = -1).await.unwrap_err();
        assert_eq!(violated_fields(&wrong), ["to_user_id", "batch_size"]);
        assert_eq!(s.alice().get(&ids[0]).await.unwrap().owner_id, "alice");
    });
}
