//! Shares with recipients: users, groups and the organization.

use strongroom::proto::v1::{
    FileEventKind, FilePermission, GrantAccessRequest, ListFilesRequest, Share, ShareState, ShareType,
    list_shares_request::List,
};
use tonic::Code;

use crate::{
    grants::{ALL_DOORS, To, give, grant_request, open_doors, revoke, send},
    harness::{file_id, reason, service_test, spec, violated_fields},
    shares::{get_share, in_seconds, link, list_shares, revoke_share, share, update_share, upload_private},
};

fn with_users(file: &str, users: &[&str]) -> Share {
    let user_ids = users.iter().map(|user| (*user).to_owned()).collect();
    Share { r#type: ShareType::Users.into(), user_ids, ..link(file) }
}

#[test]
fn recipients_read_the_file_through_every_door() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        let in_class = s.member("carl", "acme", "member", &["7a"]);
        let (bob, dora) = (s.bob(), s.member("dora", "acme", "member", &[]));
        let group = Share { r#type: ShareType::Group.into(), group_id: "7a".to_owned(), ..link(&id) };
        let everyone = Share { r#type: ShareType::Organization.into(), ..link(&id) };
        for (terms, recipient) in [(with_users(&id, &["bob"]), &bob), (group, &in_class), (everyone, &dora)] {
            assert!(open_doors(recipient, &id).await.is_empty());
            let mut watcher = recipient.watch_files().await;
            let created = share(&s.alice(), terms).await.unwrap();
            assert_eq!(created.token, "", "only links have a token");
            let share_id = created.share.unwrap().id;
            assert_eq!(open_doors(recipient, &id).await, ALL_DOORS);
            let event = watcher.next_event().await;
            assert_eq!((event.kind(), event.file.unwrap().id), (FileEventKind::ShareCreated, id.clone()));
            assert_eq!(list_shares(recipient, List::SharedWithMe(true)).await.unwrap(), [share_id.as_str()]);
            assert!(list_shares(recipient, List::FileId(id.clone())).await.unwrap().is_empty());

            let refused = revoke_share(recipient, &share_id).await.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied, "a recipient");
            revoke_share(&s.alice(), &share_id).await.unwrap();
            assert!(open_doors(recipient, &id).await.is_empty());
            let event = watcher.next_event().await;
            assert_eq!((event.kind(), event.file), (FileEventKind::ShareRevoked, None));
            assert_eq!(get_share(recipient, &share_id).await.unwrap_err().code(), Code::NotFound);
        }
        assert_eq!(s.mallory().get(&id).await.unwrap_err().code(), Code::NotFound, "another organization");
    });
}

#[test]
fn share_ends_at_its_expiry_without_a_job() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        let terms = Share { expire_time: in_seconds(&s, 60), ..with_users(&id, &["bob"]) };
        let created = share(&s.alice(), terms).await.unwrap().share.unwrap();
        assert_eq!(open_doors(&s.bob(), &id).await, ALL_DOORS);
        s.clock.advance(chrono::Duration::seconds(61));
        assert!(open_doors(&s.bob(), &id).await.is_empty());
        assert!(list_shares(&s.bob(), List::SharedWithMe(true)).await.unwrap().is_empty());
        assert_eq!(get_share(&s.alice(), &created.id).await.unwrap().state(), ShareState::Expired);
        let renewed = Share { id: created.id, expire_time: in_seconds(&s, 60), ..Share::default() };
        update_share(&s.alice(), renewed, &["expire_time"]).await.unwrap();
        assert_eq!(open_doors(&s.bob(), &id).await, ALL_DOORS);
    });
}

#[test]
fn update_replaces_recipients_and_permission() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        let carl = s.member("carl", "acme", "member", &[]);
        let mut watcher = s.bob().watch_files().await;
        let created = share(&s.alice(), with_users(&id, &["bob", "user:bob2"])).await.unwrap().share.unwrap();
        assert_eq!(created.user_ids, ["bob", "bob2"]);
        let hidden = get_share(&s.bob(), &created.id).await.unwrap();
        assert!(hidden.user_ids.is_empty(), "recipients do not see each other");
        let new = Share {
            id: created.id.clone(),
            permission: FilePermission::Delete.into(),
            user_ids: vec!["carl".to_owned()],
            ..Share::default()
        };
        let updated = update_share(&s.alice(), new, &["user_ids", "permission"]).await.unwrap();
        assert_eq!(updated.user_ids, ["carl"]);
        assert_eq!(watcher.next_event().await.kind(), FileEventKind::ShareCreated);
        let event = watcher.next_event().await;
        assert_eq!((event.kind(), event.file), (FileEventKind::ShareUpdated, None), "bob lost it");
        assert_eq!(s.bob().get(&id).await.unwrap_err().code(), Code::NotFound);
        let empty = Share { id: created.id, ..Share::default() };
        let refused = update_share(&s.alice(), empty, &["user_ids"]).await.unwrap_err();
        assert_eq!(violated_fields(&refused), ["share.user_ids"]);
        carl.delete(&id).await.unwrap();
        assert!(carl.read(&id).await.is_err(), "the trash closes the share");
        s.alice().undelete(&id).await.unwrap();
        assert_eq!(carl.list_names(ListFilesRequest::default()).await, ["plan.txt"]);
    });
}

#[test]
fn share_of_a_grantee_ends_with_its_grant() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        let carl = s.member("carl", "acme", "member", &[]);
        give(&s.alice(), &id, To::User("bob"), FilePermission::Download).await.unwrap();
        let wider = Share { permission: FilePermission::Delete.into(), ..with_users(&id, &["carl"]) };
        assert_eq!(share(&s.bob(), wider).await.unwrap_err().code(), Code::PermissionDenied);
        let created = share(&s.bob(), with_users(&id, &["carl"])).await.unwrap().share.unwrap();
        assert_eq!(carl.read(&id).await.unwrap(), b"plan"[..]);
        revoke(&s.alice(), &id, To::User("bob")).await.unwrap();
        assert_eq!(carl.get(&id).await.unwrap_err().code(), Code::NotFound);
        let closed = get_share(&s.alice(), &created.id).await.unwrap();
        assert_eq!(closed.state(), ShareState::Revoked);
    });
}

#[test]
fn share_never_becomes_its_own_source() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        let view = FilePermission::View;
        let in_class = s.member("bob", "acme", "member", &["7a"]);
        let short = GrantAccessRequest {
            expire_time: in_seconds(&s, 3_600),
            ..grant_request(&id, To::Group("7a"), view)
        };
        send(&s.alice(), short).await.unwrap();
        let own = Share { permission: FilePermission::View.into(), ..with_users(&id, &["bob"]) };
        let created = share(&in_class, own).await.unwrap().share.unwrap();
        give(&s.alice(), &id, To::User("bob"), view).await.unwrap();
        for _ in 0..2 {
            let endless = Share { id: created.id.clone(), ..Share::default() };
            update_share(&s.bob(), endless, &["expire_time"]).await.unwrap();
        }
        for to in [To::User("bob"), To::Group("7a")] {
            revoke(&s.alice(), &id, to).await.unwrap();
        }
        assert_eq!(s.superuser.query_number("SELECT count(*) FROM file_grants").await, 0);
        assert_eq!(s.bob().get(&id).await.unwrap_err().code(), Code::NotFound);
    });
}

#[test]
fn personal_tenant_has_links_only() {
    service_test(|s| async move {
        let alone = s.personal_alice();
        let id = file_id(&alone.upload(spec("a"), b"x").await.unwrap());
        let group = Share { r#type: ShareType::Group.into(), group_id: "7a".to_owned(), ..link(&id) };
        let everyone = Share { r#type: ShareType::Organization.into(), ..link(&id) };
        for terms in [with_users(&id, &["bob"]), group, everyone] {
            let refused = share(&alone, terms).await.unwrap_err();
            assert_eq!(reason(&refused), "TENANT_PERSONAL");
        }
        assert!(share(&alone, link(&id)).await.unwrap().token.starts_with("srs_"));
    });
}
