//! `GrantAccess`, `RevokeAccess` and `ListGrants`: permissions on single files.

use std::time::Duration;

use prost_types::Timestamp;
use strongroom::{
    proto::v1::{
        BatchDeleteFilesRequest, CopyFileRequest, Disposition, DownloadFileRequest, FileEventKind,
        FilePermission, Grant, GrantAccessRequest, GrantAccessResponse, ListFilesRequest, ListGrantsRequest,
        RevokeAccessRequest, UploadSpec, Visibility, grant, grant_access_request, revoke_access_request,
    },
    worker::{schedule::run_ticks_now, tick::Tick},
};
use tonic::{Code, Status};

use crate::{
    harness::{Caller, Service, file_id, reason, service_test, spec, violated_fields},
    ownership::transfer,
};

const VIEW: FilePermission = FilePermission::View;
const DOWNLOAD: FilePermission = FilePermission::Download;
const DELETE: FilePermission = FilePermission::Delete;

/// A user or a group.
#[derive(Clone, Copy)]
pub(crate) enum To {
    User(&'static str),
    Group(&'static str),
}

pub(crate) fn grant_request(file: &str, to: To, permission: FilePermission) -> GrantAccessRequest {
    let principal = match to {
        To::User(id) => grant_access_request::Principal::UserId(id.to_owned()),
        To::Group(id) => grant_access_request::Principal::GroupId(id.to_owned()),
    };
    GrantAccessRequest {
        file_id: file.to_owned(),
        principal: Some(principal),
        permission: permission.into(),
        ..GrantAccessRequest::default()
    }
}

pub(crate) async fn send(
    caller: &Caller,
    request: GrantAccessRequest,
) -> Result<GrantAccessResponse, Status> {
    Ok(caller.shares.clone().grant_access(request).await?.into_inner())
}

pub(crate) async fn give(
    caller: &Caller,
    file: &str,
    to: To,
    permission: FilePermission,
) -> Result<Grant, Status> {
    Ok(send(caller, grant_request(file, to, permission)).await?.grant.unwrap())
}

pub(crate) async fn revoke(caller: &Caller, file: &str, to: To) -> Result<i64, Status> {
    let principal = match to {
        To::User(id) => revoke_access_request::Principal::UserId(id.to_owned()),
        To::Group(id) => revoke_access_request::Principal::GroupId(id.to_owned()),
    };
    let request = RevokeAccessRequest {
        file_id: file.to_owned(),
        principal: Some(principal),
        request_id: String::new(),
    };
    Ok(caller.shares.clone().revoke_access(request).await?.into_inner().revoked_grant_count)
}

async fn list(caller: &Caller, file: &str) -> Result<Vec<Grant>, Status> {
    let request = ListGrantsRequest { file_id: file.to_owned(), ..ListGrantsRequest::default() };
    Ok(caller.shares.clone().list_grants(request).await?.into_inner().grants)
}

fn users(grants: &[Grant]) -> Vec<String> {
    let user = |grant: &Grant| match grant.principal.clone().unwrap() {
        grant::Principal::UserId(id) => id,
        grant::Principal::GroupId(id) => format!("group {id}"),
        grant::Principal::Organization(_) => "organization".to_owned(),
    };
    grants.iter().map(user).collect()
}

/// Uploads a file that only alice and admins see.
async fn upload_private(s: &Service) -> String {
    let spec = UploadSpec { visibility: Visibility::Owner.into(), ..spec("plan.txt") };
    file_id(&s.alice().upload(spec, b"plan").await.unwrap())
}

fn in_seconds(s: &Service, seconds: i64) -> Timestamp {
    use strongroom::domain::clock::Clock as _;
    Timestamp { seconds: s.clock.now().timestamp() + seconds, nanos: 0 }
}

async fn disposition(caller: &Caller, id: &str) -> Result<Disposition, Status> {
    let request = DownloadFileRequest { file_id: id.to_owned(), ..DownloadFileRequest::default() };
    Ok(caller.download(request).await?.header.disposition())
}

/// Returns the names of the read doors that show the file to the caller.
pub(crate) async fn open_doors(caller: &Caller, id: &str) -> Vec<&'static str> {
    let batch =
        strongroom::proto::v1::BatchGetFilesRequest { file_ids: vec![id.to_owned()], ..Default::default() };
    let batch = caller.files.clone().batch_get_files(batch).await.unwrap().into_inner();
    let counted = ListFilesRequest { include_total: true, ..ListFilesRequest::default() };
    let listed = caller.list(counted).await.unwrap();
    [
        ("get", caller.get(id).await.is_ok()),
        ("batch get", !batch.files.is_empty()),
        ("list", listed.files.iter().any(|file| file.id == id)),
        ("total", listed.total_size == Some(1)),
        ("download", caller.read(id).await.is_ok()),
        ("versions", caller.list_versions(id, 0).await.is_ok()),
        ("usage", !caller.usage().await.unwrap().entries.is_empty()),
        ("grants", list(caller, id).await.is_ok()),
    ]
    .into_iter()
    .filter_map(|(door, is_open)| is_open.then_some(door))
    .collect()
}

pub(crate) const ALL_DOORS: [&str; 8] =
    ["get", "batch get", "list", "total", "download", "versions", "usage", "grants"];

#[test]
fn grant_opens_every_read_door_until_its_expiry() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        assert!(open_doors(&s.bob(), &id).await.is_empty());
        let mut watcher = s.bob().watch_files().await;
        let request = GrantAccessRequest {
            expire_time: Some(in_seconds(&s, 60)),
            ..grant_request(&id, To::User("bob"), VIEW)
        };
        let granted = send(&s.alice(), request).await.unwrap();
        assert_eq!(open_doors(&s.bob(), &id).await, ALL_DOORS);
        let event = watcher.next_event().await;
        assert_eq!((event.kind(), event.position), (FileEventKind::GrantAdded, granted.event_position));
        assert_eq!(event.file.unwrap().id, id);

        s.clock.advance(chrono::Duration::seconds(61));
        assert!(open_doors(&s.bob(), &id).await.is_empty(), "no job has run");
        assert!(list(&s.alice(), &id).await.unwrap().is_empty());
        s.alice().rename(&id, "later.txt").await.unwrap();

        let report = run_ticks_now(&s.app, &[Tick::DeleteExpiredGrants]).await;
        assert_eq!((report.done, report.failed), (1, 0));
        let event = watcher.next_event().await;
        assert_eq!((event.kind(), event.file), (FileEventKind::GrantRemoved, None), "not the rename");
        assert_eq!(s.superuser.query_number("SELECT count(*) FROM file_grants").await, 0);
        assert_eq!(s.superuser.query_number("SELECT count(*) FROM file_readers").await, 0);
        let audited = "SELECT count(*) FROM audit_entries WHERE action = {audit_action.access_revoke}
                       AND details ->> 'reason' = 'expired'";
        assert_eq!(s.superuser.query_number(audited).await, 1);
    });
}

#[test]
fn permissions_include_the_lower_ones_and_no_more() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        let bob = s.bob();
        for (permission, expected) in [(VIEW, Disposition::Inline), (DOWNLOAD, Disposition::Attachment)] {
            give(&s.alice(), &id, To::User("bob"), permission).await.unwrap();
            assert_eq!(disposition(&bob, &id).await.unwrap(), expected);
            assert_eq!(bob.delete(&id).await.unwrap_err().code(), Code::PermissionDenied);
            assert_eq!(bob.batch_delete(&[&id]).await.unwrap_err().code(), Code::PermissionDenied);
        }
        assert_eq!(disposition(&s.alice(), &id).await.unwrap(), Disposition::Attachment);
        give(&s.alice(), &id, To::User("bob"), DELETE).await.unwrap();
        let copy = CopyFileRequest { file_id: id.clone(), ..CopyFileRequest::default() };
        for refused in [
            bob.rename(&id, "mine").await.map(|_| ()),
            bob.upload_version(&id, b"mine").await.map(|_| ()),
            bob.copy(copy).await.map(|_| ()),
            bob.archive(&id).await.map(|_| ()),
            bob.purge(&id).await,
        ] {
            assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
        }
        bob.delete(&id).await.unwrap();
        assert_eq!(bob.undelete(&id).await.unwrap_err().code(), Code::PermissionDenied);
        assert!(bob.read(&id).await.is_err(), "the trash hides the bytes");
        s.alice().undelete(&id).await.unwrap();
        assert_eq!(bob.read(&id).await.unwrap(), b"plan"[..], "the grant applies again");
    });
}

#[test]
fn groups_and_the_organization_have_grants() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        let in_class = s.member("carl", "acme", "member", &["7a"]);
        assert_eq!(in_class.get(&id).await.unwrap_err().code(), Code::NotFound);
        give(&s.alice(), &id, To::Group("7a"), DOWNLOAD).await.unwrap();
        assert_eq!(in_class.read(&id).await.unwrap(), b"plan"[..]);
        assert_eq!(s.bob().get(&id).await.unwrap_err().code(), Code::NotFound);

        // As a share for the organization creates it.
        s.superuser
            .execute(
                "INSERT INTO file_grants (tenant_id, file_id, id, principal, permission, share_id, created_by,
                    create_time, update_time)
                 SELECT tenant_id, id, gen_random_uuid(), 'organization', {permission.download}, gen_random_uuid(),
                    'alice', create_time, create_time FROM files;
                 INSERT INTO file_readers (tenant_id, principal, file_id, create_time, name, size_bytes, is_by_policy)
                 SELECT tenant_id, 'organization', id, create_time, name, size_bytes, false FROM files",
            )
            .await;
        assert_eq!(s.bob().list_names(ListFilesRequest::default()).await, ["plan.txt"]);
        assert_eq!(s.mallory().get(&id).await.unwrap_err().code(), Code::NotFound, "another organization");
    });
}

#[test]
fn grantee_gives_at_most_its_own_permission() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        let (bob, carl) = (s.bob(), s.member("carl", "acme", "member", &[]));
        let until = in_seconds(&s, 3_600);
        let request =
            GrantAccessRequest { expire_time: Some(until), ..grant_request(&id, To::User("bob"), DOWNLOAD) };
        let source = send(&s.alice(), request).await.unwrap().grant.unwrap();
        assert_eq!(source.source_grant_id, "");

        let to_carl = |permission, expire_time: Option<Timestamp>| GrantAccessRequest {
            expire_time,
            ..grant_request(&id, To::User("carl"), permission)
        };
        for wider in [
            to_carl(DELETE, Some(until)),
            to_carl(DOWNLOAD, None),
            to_carl(VIEW, Some(Timestamp { seconds: until.seconds + 1, nanos: 0 })),
        ] {
            let refused = send(&bob, wider).await.unwrap_err();
            assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
        }
        let given = send(&bob, to_carl(DOWNLOAD, Some(until))).await.unwrap().grant.unwrap();
        assert_eq!((given.source_grant_id, given.created_by.as_str()), (source.id, "bob"));
        assert_eq!(disposition(&carl, &id).await.unwrap(), Disposition::Attachment);
        assert_eq!(users(&list(&s.alice(), &id).await.unwrap()), ["bob", "carl"]);
        assert_eq!(users(&list(&carl, &id).await.unwrap()), ["carl"]);
        let to_bob = send(&carl, grant_request(&id, To::User("bob"), DELETE)).await.unwrap_err();
        assert_eq!(to_bob.code(), Code::PermissionDenied, "carl cannot change the grant of alice");

        // What bob has becomes narrower, and so does what he gave.
        give(&s.alice(), &id, To::User("bob"), VIEW).await.unwrap();
        assert_eq!(disposition(&carl, &id).await.unwrap(), Disposition::Inline);
        assert_eq!(revoke(&s.alice(), &id, To::User("bob")).await.unwrap(), 2);
        assert_eq!(carl.get(&id).await.unwrap_err().code(), Code::NotFound);
    });
}

#[test]
fn creator_and_user_may_revoke_a_grant() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        let carl = s.member("carl", "acme", "member", &[]);
        let mut watcher = s.bob().watch_files().await;
        give(&s.alice(), &id, To::User("bob"), DELETE).await.unwrap();
        give(&s.bob(), &id, To::User("carl"), VIEW).await.unwrap();
        assert_eq!(revoke(&carl, &id, To::User("bob")).await.unwrap_err().code(), Code::PermissionDenied);
        assert_eq!(revoke(&s.bob(), &id, To::User("carl")).await.unwrap(), 1);
        assert_eq!(revoke(&s.bob(), &id, To::User("carl")).await.unwrap(), 0, "nothing is left");
        assert_eq!(revoke(&s.bob(), &id, To::User("bob")).await.unwrap(), 1);
        for kind in [FileEventKind::GrantAdded, FileEventKind::GrantAdded, FileEventKind::GrantRemoved] {
            assert_eq!(watcher.next_event().await.kind(), kind);
        }
        let event = watcher.next_event().await;
        assert_eq!((event.kind(), event.file), (FileEventKind::GrantRemoved, None));
        assert_eq!(revoke(&s.bob(), &id, To::User("bob")).await.unwrap_err().code(), Code::NotFound);
    });
}

#[test]
fn repeated_grant_changes_nothing() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        let request_id = "0193a7a0-0000-7000-8000-000000000001".to_owned();
        let request = GrantAccessRequest { request_id, ..grant_request(&id, To::User("bob"), VIEW) };
        let first = send(&s.alice(), request.clone()).await.unwrap();
        assert_eq!(send(&s.alice(), request).await.unwrap(), first, "the stored response");
        let etag = s.alice().get(&id).await.unwrap().etag;
        let same = send(&s.alice(), grant_request(&id, To::User("bob"), VIEW)).await.unwrap();
        assert_eq!((same.grant, same.event_position.as_str()), (first.grant, ""));
        assert_eq!(s.alice().get(&id).await.unwrap().etag, etag);
        assert_eq!(s.superuser.query_number("SELECT count(*) FROM file_grants").await, 1);
    });
}

#[test]
fn grants_are_refused_with_their_reasons() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        let past = GrantAccessRequest {
            expire_time: Some(in_seconds(&s, 0)),
            ..grant_request(&id, To::User("bob"), VIEW)
        };
        assert_eq!(violated_fields(&send(&s.alice(), past).await.unwrap_err()), ["expire_time"]);
        let alone = s.personal_alice();
        let own = file_id(&alone.upload(spec("a"), b"x").await.unwrap());
        let refused = give(&alone, &own, To::User("bob"), VIEW).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::FailedPrecondition, "TENANT_PERSONAL")
        );

        s.superuser
            .execute(
                "INSERT INTO file_grants (tenant_id, file_id, id, principal, permission, created_by, create_time,
                    update_time)
                 SELECT tenant_id, id, gen_random_uuid(), 'group:' || n, {permission.view}, 'alice', create_time, create_time
                 FROM files, generate_series(1, 1000) AS n WHERE visibility = {visibility.owner}
                    AND owner_id = 'alice' AND name = 'plan.txt'",
            )
            .await;
        let refused = give(&s.alice(), &id, To::User("bob"), VIEW).await.unwrap_err();
        let got = (refused.code(), reason(&refused));
        assert_eq!(got, (Code::ResourceExhausted, "FILE_GRANTS_EXCEEDED".to_owned()));
        s.superuser.execute("DELETE FROM file_grants").await;
        s.alice().delete(&id).await.unwrap();
        let refused = give(&s.alice(), &id, To::User("bob"), VIEW).await.unwrap_err();
        assert_eq!(reason(&refused), "FILE_DELETED");
    });
}

#[test]
fn grants_are_listed_in_pages() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        for user in ["u1", "u2", "u3"] {
            give(&s.alice(), &id, To::User(user), VIEW).await.unwrap();
        }
        let mut request = ListGrantsRequest { file_id: id.clone(), page_size: 2, page_token: String::new() };
        let first = s.alice().shares.clone().list_grants(request.clone()).await.unwrap().into_inner();
        assert_eq!(users(&first.grants), ["u1", "u2"]);
        request.page_token = first.next_page_token;
        let second = s.alice().shares.clone().list_grants(request.clone()).await.unwrap().into_inner();
        assert_eq!((users(&second.grants), second.next_page_token.as_str()), (vec!["u3".to_owned()], ""));
        request.file_id = upload_private(&s).await;
        let error = s.alice().shares.clone().list_grants(request).await.unwrap_err();
        assert_eq!(reason(&error), "PAGE_TOKEN_INVALID", "the token belongs to another file");
    });
}

#[test]
fn grants_stay_with_a_new_owner_and_end_with_the_file() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        give(&s.alice(), &id, To::User("bob"), DOWNLOAD).await.unwrap();
        transfer(&s.ada(), ("alice", "maria"), |_| {}).await.unwrap();
        assert_eq!(s.bob().read(&id).await.unwrap(), b"plan"[..]);
        assert_eq!(s.alice().get(&id).await.unwrap_err().code(), Code::NotFound);
        s.maria().purge(&id).await.unwrap();
        assert_eq!(s.bob().get(&id).await.unwrap_err().code(), Code::NotFound);
        for table in ["file_grants", "file_readers"] {
            assert_eq!(s.superuser.query_number(&format!("SELECT count(*) FROM {table}")).await, 0);
        }
    });
}

#[test]
fn concurrent_grants_of_one_user_are_one_grant() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        let alice = s.alice();
        let calls = (0..16).map(|n| {
            let permission = if n % 2 == 0 { VIEW } else { DELETE };
            give(&alice, &id, To::User("bob"), permission)
        });
        let given = tokio::time::timeout(Duration::from_secs(60), futures::future::join_all(calls)).await;
        assert!(given.unwrap().iter().all(Result::is_ok));
        assert_eq!(s.superuser.query_number("SELECT count(*) FROM file_grants").await, 1);
        let agrees = "SELECT count(*) FROM file_grants AS g JOIN file_readers AS r USING (file_id, principal)
                      WHERE (g.permission = {permission.delete}) = (r.delete_end_time = 'infinity')";
        assert_eq!(s.superuser.query_number(agrees).await, 1);
    });
}

#[test]
fn fsck_finds_readers_that_differ_from_grants() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        give(&s.alice(), &id, To::User("bob"), VIEW).await.unwrap();
        assert!(s.run_fsck().await.violations.is_empty());
        for change in [
            "UPDATE file_readers SET is_by_policy = true",
            "UPDATE file_readers SET is_by_policy = false, download_end_time = 'infinity'",
            "DELETE FROM file_readers",
        ] {
            s.superuser.execute(change).await;
            let report = s.run_fsck().await;
            assert_eq!(report.violations.len(), 1, "{change}");
            assert_eq!(report.violations[0].subject, format!("file {id} reader user:bob"));
        }
        // The next change of the grant repairs it.
        give(&s.alice(), &id, To::User("bob"), DOWNLOAD).await.unwrap();
        assert!(s.run_fsck().await.violations.is_empty());
    });
}

#[test]
fn deletion_by_a_grantee_without_trash_leaves_nothing() {
    service_test(|s| async move {
        let mut ids = Vec::new();
        for _ in 0..2 {
            let id = upload_private(&s).await;
            give(&s.alice(), &id, To::User("bob"), DELETE).await.unwrap();
            ids.push(id);
        }
        s.superuser.execute("UPDATE tenants SET policy = jsonb_set(policy, '{trash,days}', '0')").await;
        // The first server has cached the policy.
        let fresh = s.start_replica(|_| {}).await;
        fresh.bob().delete(&ids[0]).await.unwrap();
        let request = BatchDeleteFilesRequest { file_ids: vec![ids[1].clone()], ..Default::default() };
        fresh.bob().files.clone().batch_delete_files(request).await.unwrap();
        for id in &ids {
            assert_eq!(fresh.alice().get(id).await.unwrap_err().code(), Code::NotFound);
        }
        assert_eq!(s.superuser.query_number("SELECT count(*) FROM files").await, 0);
        fresh.stop().await;
    });
}

#[test]
fn expired_grant_of_another_is_replaced() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        give(&s.alice(), &id, To::User("bob"), DELETE).await.unwrap();
        let short = GrantAccessRequest {
            expire_time: Some(in_seconds(&s, 60)),
            ..grant_request(&id, To::User("carl"), VIEW)
        };
        send(&s.alice(), short).await.unwrap();
        let refused = give(&s.bob(), &id, To::User("carl"), DOWNLOAD).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "it is alice's grant");
        s.clock.advance(chrono::Duration::seconds(61));
        give(&s.bob(), &id, To::User("carl"), DOWNLOAD).await.unwrap();
    });
}
