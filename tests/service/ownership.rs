//! `TransferOwnership`: an admin transfers the files of one user to another.

use strongroom::proto::v1::{
    FileFilter, ListFilesRequest, TransferOwnershipRequest, TransferOwnershipResponse, UploadSpec, Visibility,
};
use tonic::{Code, Status};

use crate::harness::{Caller, Service, file_id, reason, service_test, spec, violated_fields};

pub(crate) async fn transfer(
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

/// Uploads files that only alice and admins may see.
async fn upload_private_files(s: &Service, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..count {
        let spec = UploadSpec { visibility: Visibility::Owner.into(), ..spec(&format!("file {n}")) };
        ids.push(file_id(&s.alice().upload(spec, b"x").await.unwrap()));
    }
    ids
}

fn counts(response: &TransferOwnershipResponse) -> [i64; 3] {
    [response.transferred_file_count, response.remaining_file_count, response.remaining_bytes]
}

#[test]
fn transferred_files_belong_to_new_owner_everywhere() {
    service_test(|s| async move {
        let ids = upload_private_files(&s, 3).await;
        s.alice().delete(&ids[2]).await.unwrap();
        let before = s.ada().get(&ids[0]).await.unwrap();
        assert_eq!(counts(&transfer(&s.ada(), ("alice", "bob"), |_| {}).await.unwrap()), [3, 0, 0]);

        assert!(s.alice().list_names(ListFilesRequest::default()).await.is_empty());
        assert_eq!(s.alice().get(&ids[0]).await.unwrap_err().code(), Code::NotFound);
        let mut names = s.bob().list_names(ListFilesRequest::default()).await;
        names.sort();
        assert_eq!(names, ["file 0", "file 1"]);
        let trash = ListFilesRequest { show_deleted: true, ..Default::default() };
        assert_eq!(s.bob().list_names(trash).await.len(), 3, "files in the trash are transferred too");
        s.bob().undelete(&ids[2]).await.unwrap();
        assert_eq!(s.bob().read(&ids[1]).await.unwrap(), b"x"[..]);
        s.bob().rename(&ids[1], "mine").await.unwrap();

        let after = s.bob().get(&ids[0]).await.unwrap();
        assert_eq!((after.owner_id.as_str(), after.created_by.as_str()), ("bob", "alice"));
        assert_eq!(after.updated_by, "ada");
        assert_ne!(after.etag, before.etag);
        let filter = Some(FileFilter { owner_id: "alice".to_owned(), ..Default::default() });
        assert!(s.ada().list_names(ListFilesRequest { filter, ..Default::default() }).await.is_empty());
        assert_eq!(
            s.superuser
                .query_number(
                    "SELECT count(*) FROM events WHERE kind = {event_kind.file_owner_changed}
                    AND actor_id = 'ada'"
                )
                .await,
            3
        );
        let audited = "SELECT count(*) FROM audit_entries WHERE action = {audit_action.ownership_transfer}
                AND is_allowed AND file_id IS NOT NULL
                    AND details = '{\"from\": \"alice\", \"to\": \"bob\"}'";
        assert_eq!(s.superuser.query_number(audited).await, 3);
    });
}

#[test]
fn transfer_runs_in_batches_until_none_remain() {
    service_test(|s| async move {
        upload_private_files(&s, 5).await;
        let batch = |request: &mut TransferOwnershipRequest| request.batch_size = 2;
        for expected in [[2, 3, 3], [2, 1, 1], [1, 0, 0], [0, 0, 0]] {
            assert_eq!(counts(&transfer(&s.ada(), ("alice", "bob"), batch).await.unwrap()), expected);
        }
        assert_eq!(s.bob().list_names(ListFilesRequest::default()).await.len(), 5);
    });
}

#[test]
fn transfer_dry_run_counts_and_changes_nothing() {
    service_test(|s| async move {
        let ids = upload_private_files(&s, 2).await;
        let dry_run = transfer(&s.ada(), ("alice", "bob"), |request| request.dry_run = true).await.unwrap();
        assert_eq!(counts(&dry_run), [0, 2, 2]);
        assert_eq!(s.ada().get(&ids[0]).await.unwrap().owner_id, "alice");
    });
}

#[test]
fn transfer_keeps_shares_without_duplicates_in_lists() {
    service_test(|s| async move {
        let id = upload_private_files(&s, 1).await.remove(0);
        let share = "INSERT INTO file_readers (tenant_id, principal, file_id, create_time, name, size_bytes)
                     SELECT tenant_id, principal, id, create_time, name, size_bytes
                     FROM files, unnest(ARRAY['user:bob', 'service:billing']) AS principal";
        s.superuser.execute(share).await;
        transfer(&s.ada(), ("alice", "bob"), |_| {}).await.unwrap();
        for caller in [s.bob(), s.billing()] {
            assert_eq!(caller.list_names(ListFilesRequest::default()).await, ["file 0"]);
            caller.get(&id).await.unwrap();
        }
        assert_eq!(s.billing().delete(&id).await.unwrap_err().code(), Code::PermissionDenied);
        s.bob().delete(&id).await.unwrap();
    });
}

#[test]
fn retried_transfer_moves_no_second_batch() {
    service_test(|s| async move {
        upload_private_files(&s, 4).await;
        let batch = |request: &mut TransferOwnershipRequest| {
            request.batch_size = 2;
            request.request_id = uuid::Uuid::from_u128(7).to_string();
        };
        let first = transfer(&s.ada(), ("alice", "bob"), batch).await.unwrap();
        assert_eq!(transfer(&s.ada(), ("alice", "bob"), batch).await.unwrap(), first);
        assert_eq!(s.bob().list_names(ListFilesRequest::default()).await.len(), 2);
        let other = transfer(&s.ada(), ("alice", "maria"), batch).await.unwrap_err();
        assert_eq!(reason(&other), "REQUEST_ID_REUSED");
    });
}

#[test]
fn only_admins_transfer_and_only_in_their_tenant() {
    service_test(|s| async move {
        let ids = upload_private_files(&s, 1).await;
        for caller in [s.alice(), s.bob(), s.maria()] {
            let error = transfer(&caller, ("alice", "bob"), |_| {}).await.unwrap_err();
            assert_eq!(error.code(), Code::PermissionDenied);
        }
        assert_eq!(counts(&transfer(&s.gus(), ("alice", "gus"), |_| {}).await.unwrap()), [0, 0, 0]);
        let wrong =
            transfer(&s.ada(), ("alice", "alice"), |request| request.batch_size = -1).await.unwrap_err();
        assert_eq!(violated_fields(&wrong), ["to_user_id", "batch_size"]);
        assert_eq!(s.alice().get(&ids[0]).await.unwrap().owner_id, "alice");
    });
}
