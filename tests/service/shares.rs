//! `CreateShare`, `GetShare`, `ListShares`, `UpdateShare`, `RevokeShare` and `RotateShareToken`: links.

use prost_types::{FieldMask, Timestamp};
use strongroom::{
    app::retention::enforce_retention,
    crypto::share_token::ShareToken,
    domain::clock::Clock as _,
    proto::v1::{
        Category, CategoryLinks, CreateShareRequest, CreateShareResponse, FileEventKind, FilePermission,
        GetShareRequest, ListSharesRequest, RevokeShareRequest, RotateShareTokenRequest,
        RotateShareTokenResponse, Share, ShareState, ShareType, UpdateShareRequest, UploadSpec, Visibility,
        list_shares_request::List,
    },
};
use tonic::{Code, Status};

use crate::{
    grants::{To, give, grant_request, revoke, send},
    harness::{Caller, Service, file_id, reason, service_test, spec, violated_fields},
};

pub(crate) const PASSWORD: &str = "correct horse";

pub(crate) async fn share(caller: &Caller, share: Share) -> Result<CreateShareResponse, Status> {
    share_with_password(caller, share, "").await
}

pub(crate) async fn share_with_password(
    caller: &Caller,
    share: Share,
    password: &str,
) -> Result<CreateShareResponse, Status> {
    let request =
        CreateShareRequest { share: Some(share), password: password.to_owned(), request_id: String::new() };
    Ok(caller.shares.clone().create_share(request).await?.into_inner())
}

pub(crate) fn link(file: &str) -> Share {
    Share { file_id: file.to_owned(), ..Share::default() }
}

pub(crate) async fn get_share(caller: &Caller, id: &str) -> Result<Share, Status> {
    let request = GetShareRequest { share_id: id.to_owned() };
    Ok(caller.shares.clone().get_share(request).await?.into_inner().share.unwrap())
}

pub(crate) async fn update_share(caller: &Caller, share: Share, paths: &[&str]) -> Result<Share, Status> {
    send_update(caller, UpdateShareRequest { share: Some(share), ..update(paths) }).await
}

fn update(paths: &[&str]) -> UpdateShareRequest {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    UpdateShareRequest { update_mask: Some(FieldMask { paths }), ..UpdateShareRequest::default() }
}

async fn send_update(caller: &Caller, request: UpdateShareRequest) -> Result<Share, Status> {
    Ok(caller.shares.clone().update_share(request).await?.into_inner().share.unwrap())
}

pub(crate) async fn revoke_share(caller: &Caller, id: &str) -> Result<Share, Status> {
    let request = RevokeShareRequest { share_id: id.to_owned(), request_id: String::new() };
    Ok(caller.shares.clone().revoke_share(request).await?.into_inner().share.unwrap())
}

pub(crate) async fn rotate(caller: &Caller, id: &str) -> Result<RotateShareTokenResponse, Status> {
    let request = RotateShareTokenRequest { share_id: id.to_owned(), request_id: String::new() };
    Ok(caller.shares.clone().rotate_share_token(request).await?.into_inner())
}

pub(crate) async fn list_shares(caller: &Caller, list: List) -> Result<Vec<String>, Status> {
    let request = ListSharesRequest { list: Some(list), ..ListSharesRequest::default() };
    let listed = caller.shares.clone().list_shares(request).await?.into_inner();
    Ok(listed.shares.into_iter().map(|share| share.id).collect())
}

/// Uploads a file that only alice and admins see.
pub(crate) async fn upload_private(s: &Service) -> String {
    let spec = UploadSpec { visibility: Visibility::Owner.into(), ..spec("plan.txt") };
    file_id(&s.alice().upload(spec, b"plan").await.unwrap())
}

pub(crate) fn in_seconds(s: &Service, seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds: s.clock.now().timestamp() + seconds, nanos: 0 })
}

fn refusal(status: &Status) -> (Code, String) {
    (status.code(), reason(status))
}

/// Returns the digest of the token of the only share.
async fn stored_digest(s: &Service) -> String {
    s.superuser.query_texts("SELECT encode(token_hash, 'hex') FROM shares").await.remove(0)
}

#[test]
fn link_has_a_token_that_is_stored_hashed() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        let created = share_with_password(&s.alice(), link(&id), PASSWORD).await.unwrap();
        let (stored, token) = (created.share.unwrap(), created.token);
        assert_eq!((stored.r#type(), stored.permission()), (ShareType::PublicLink, FilePermission::Download));
        assert_eq!((stored.state(), stored.has_password), (ShareState::Active, true));
        assert_eq!(get_share(&s.alice(), &stored.id).await.unwrap(), stored);
        let parsed = ShareToken::parse(&token).unwrap();
        assert_eq!(parsed.tenant().to_string(), s.alice().tenant_id().await);
        assert_eq!(stored_digest(&s).await, parsed.digest().to_string());
        let secret = &token["srs_".len() + 32 + 1..];
        let rows = "SELECT s::text FROM shares AS s UNION ALL SELECT details::text FROM audit_entries
                    UNION ALL SELECT response::text FROM idempotency_keys";
        let rows = s.superuser.query_texts(rows).await.join("\n");
        assert!(!rows.contains(secret) && !rows.contains(PASSWORD));
        assert!(rows.contains("$argon2id$v=19$m=19456,t=2,p=1$"), "{rows}");
    });
}

#[test]
fn repeated_request_creates_one_share() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        let request = CreateShareRequest {
            share: Some(link(&id)),
            password: PASSWORD.to_owned(),
            request_id: "0193a7a0-0000-7000-8000-000000000001".to_owned(),
        };
        let mut shares = s.alice().shares;
        let first = shares.create_share(request.clone()).await.unwrap().into_inner();
        assert_eq!(shares.create_share(request.clone()).await.unwrap().into_inner(), first);
        let other = CreateShareRequest { password: "battery staple".to_owned(), ..request };
        assert_eq!(reason(&shares.create_share(other).await.unwrap_err()), "REQUEST_ID_REUSED");
        assert_eq!(s.superuser.query_number("SELECT count(*) FROM shares").await, 1);
        assert_eq!(s.superuser.query_number("SELECT count(*) FROM shares WHERE revision = 1").await, 1);
    });
}

#[test]
fn reports_all_violations_of_a_share() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        let wrong = Share {
            permission: FilePermission::Delete.into(),
            max_downloads: -1,
            version: -1,
            user_ids: vec!["bob".to_owned()],
            group_id: "7a".to_owned(),
            expire_time: in_seconds(&s, 0),
            note: "n".repeat(501),
            ..link(&id)
        };
        let refused = share(&s.alice(), wrong).await.unwrap_err();
        let fields = [
            "share.user_ids",
            "share.group_id",
            "share.permission",
            "share.max_downloads",
            "share.version",
            "share.expire_time",
            "share.note",
        ];
        assert_eq!(violated_fields(&refused), fields);
        let short = share_with_password(&s.alice(), link(&id), "short").await.unwrap_err();
        assert_eq!(violated_fields(&short), ["password"]);
        let missing = Share { version: 9, ..link(&id) };
        assert_eq!(violated_fields(&share(&s.alice(), missing).await.unwrap_err()), ["share.version"]);
        assert_eq!(s.superuser.query_number("SELECT count(*) FROM shares").await, 0);
    });
}

#[test]
fn temporary_link_ends_after_a_day_and_is_removed() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        let temporary = || Share { r#type: ShareType::Temporary.into(), ..link(&id) };
        let created = share(&s.alice(), temporary()).await.unwrap().share.unwrap();
        assert_eq!(created.expire_time.unwrap().seconds, created.create_time.unwrap().seconds + 86_400);
        let week = 7 * 86_400;
        let too_long = Share { expire_time: in_seconds(&s, week + 60), ..temporary() };
        let refused = share(&s.alice(), too_long).await.unwrap_err();
        assert_eq!(violated_fields(&refused), ["share.expire_time"]);
        let longest = Share { id: created.id.clone(), expire_time: in_seconds(&s, week), ..Share::default() };
        update_share(&s.alice(), longest, &["expire_time"]).await.unwrap();
        let endless = Share { id: created.id.clone(), ..Share::default() };
        let refused = update_share(&s.alice(), endless, &["expire_time"]).await.unwrap_err();
        assert_eq!(violated_fields(&refused), ["share.expire_time"]);

        s.clock.advance(chrono::Duration::days(7));
        let expired = get_share(&s.alice(), &created.id).await.unwrap();
        assert_eq!(expired.state(), ShareState::Expired);
        enforce_retention(&s.app).await.unwrap();
        assert_eq!(get_share(&s.alice(), &created.id).await.unwrap_err().code(), Code::NotFound);
    });
}

#[test]
fn only_owner_admins_and_grantees_share_a_file() {
    service_test(|s| async move {
        let private = upload_private(&s).await;
        let visible = file_id(&s.alice().upload(spec("a"), b"x").await.unwrap());
        assert_eq!(share(&s.bob(), link(&private)).await.unwrap_err().code(), Code::NotFound);
        let refused = share(&s.bob(), link(&visible)).await.unwrap_err();
        assert_eq!(refusal(&refused), (Code::PermissionDenied, "NOT_ALLOWED".to_owned()));
        for caller in [s.alice(), s.ada()] {
            let created = share(&caller, link(&private)).await.unwrap().share.unwrap();
            assert_eq!(created.source_grant_id, "");
        }
        let denied = "SELECT count(*) FROM audit_entries
                      WHERE NOT is_allowed AND action = {audit_action.share_create}";
        assert_eq!(s.superuser.query_number(denied).await, 1);
    });
}

#[test]
fn grantee_shares_at_most_its_own_permission() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        let end = in_seconds(&s, 3_600);
        let mut request = grant_request(&id, To::User("bob"), FilePermission::Download);
        request.expire_time = end;
        let source = send(&s.alice(), request).await.unwrap().grant.unwrap();

        let later = Share { expire_time: in_seconds(&s, 3_601), ..link(&id) };
        assert_eq!(share(&s.bob(), later).await.unwrap_err().code(), Code::PermissionDenied);
        let created = share(&s.bob(), link(&id)).await.unwrap().share.unwrap();
        assert_eq!((created.expire_time, created.source_grant_id.clone()), (end, source.id));
        let extended = Share { id: created.id.clone(), ..Share::default() };
        let refused = update_share(&s.bob(), extended, &["expire_time"]).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "a reader does not extend the expiry");

        give(&s.alice(), &id, To::User("bob"), FilePermission::View).await.unwrap();
        let narrowed = get_share(&s.alice(), &created.id).await.unwrap();
        assert_eq!(narrowed.permission(), FilePermission::View, "it follows its source");
        let wider =
            Share { id: created.id.clone(), permission: FilePermission::Download.into(), ..Share::default() };
        let refused = update_share(&s.bob(), wider, &["permission"]).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        s.superuser.execute("DELETE FROM file_grants; DELETE FROM file_readers").await;
        let closed = get_share(&s.alice(), &created.id).await.unwrap();
        assert_eq!(closed.state(), ShareState::Revoked, "it ends with its source");
    });
}

#[test]
fn rotated_link_ends_with_the_grant_of_its_rotator() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        give(&s.alice(), &id, To::User("bob"), FilePermission::Download).await.unwrap();
        let created = share(&s.bob(), link(&id)).await.unwrap().share.unwrap();
        rotate(&s.alice(), &created.id).await.unwrap();
        assert_eq!(get_share(&s.alice(), &created.id).await.unwrap().source_grant_id, "");
        rotate(&s.bob(), &created.id).await.unwrap();
        revoke(&s.alice(), &id, To::User("bob")).await.unwrap();
        assert_eq!(get_share(&s.alice(), &created.id).await.unwrap().state(), ShareState::Revoked);
    });
}

#[test]
fn policy_forbids_links_or_demands_their_terms() {
    service_test(|s| async move {
        let categories = ["student_submission", "assessment", "administrative", "media_resource"];
        for category in categories {
            let spec = UploadSpec { category: category.to_owned(), ..spec(category) };
            let id = file_id(&s.teacher().upload(spec, b"x").await.unwrap());
            for share_type in [ShareType::PublicLink, ShareType::Temporary] {
                let created = share(&s.teacher(), Share { r#type: share_type.into(), ..link(&id) }).await;
                let is_allowed = category == "media_resource";
                assert_eq!(created.is_ok(), is_allowed, "{category} {share_type:?}");
                if let Err(refused) = created {
                    assert_eq!(refusal(&refused), (Code::PermissionDenied, "NOT_ALLOWED".to_owned()));
                }
            }
            let group = Share { r#type: ShareType::Group.into(), group_id: "7a".to_owned(), ..link(&id) };
            share(&s.teacher(), group).await.unwrap();
        }

        let spec = UploadSpec { category: "report".to_owned(), ..spec("a") };
        let id = file_id(&s.alice().upload(spec, b"x").await.unwrap());
        let strict = CategoryLinks { password_required: true, expiry_required: true, ..Default::default() };
        let category = Category { name: "report".to_owned(), links: Some(strict), ..Category::default() };
        s.ada().update_category(category, &["links"]).await.unwrap();
        let refused = share(&s.alice(), link(&id)).await.unwrap_err();
        assert_eq!(violated_fields(&refused), ["password", "share.expire_time"]);
        let terms = Share { expire_time: in_seconds(&s, 60), ..link(&id) };
        let created = share_with_password(&s.alice(), terms, PASSWORD).await.unwrap().share.unwrap();
        let request = UpdateShareRequest {
            share: Some(Share { id: created.id, ..Share::default() }),
            ..update(&["password"])
        };
        let refused = send_update(&s.alice(), request).await.unwrap_err();
        assert_eq!(violated_fields(&refused), ["password"], "it cannot be removed");
    });
}

#[test]
fn unavailable_files_are_not_shared() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        let refused = async || reason(&share(&s.alice(), link(&id)).await.unwrap_err());
        s.alice().archive(&id).await.unwrap();
        assert_eq!(refused().await, "FILE_NOT_AVAILABLE");
        s.alice().unarchive(&id).await.unwrap();
        s.ada().set_legal_hold(&id, "trial").await.unwrap();
        assert_eq!(refused().await, "FILE_RETAINED");
        s.ada().release_legal_hold(&id, "end").await.unwrap();
        s.alice().delete(&id).await.unwrap();
        assert_eq!(refused().await, "FILE_DELETED");
    });
}

#[test]
fn update_changes_the_fields_of_its_mask() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        let created = share(&s.alice(), link(&id)).await.unwrap().share.unwrap();
        let new = Share {
            id: created.id.clone(),
            note: "for the board".to_owned(),
            max_downloads: 3,
            permission: FilePermission::View.into(),
            ..Share::default()
        };
        let updated = update_share(&s.alice(), new.clone(), &["note", "max_downloads"]).await.unwrap();
        assert_eq!((updated.note.as_str(), updated.max_downloads), ("for the board", 3));
        assert_eq!(updated.permission(), FilePermission::Download, "not in the mask");
        let stale =
            UpdateShareRequest { share: Some(new.clone()), if_etag: created.etag, ..update(&["note"]) };
        assert_eq!(reason(&send_update(&s.alice(), stale).await.unwrap_err()), "ETAG_MISMATCH");
        let refused = update_share(&s.alice(), new.clone(), &["permission"]).await.unwrap_err();
        assert_eq!(violated_fields(&refused), ["share.max_downloads"], "views are not counted");
        let refused = update_share(&s.alice(), new.clone(), &["type"]).await.unwrap_err();
        assert_eq!(violated_fields(&refused), ["update_mask.paths[0]"]);

        s.superuser.execute("UPDATE shares SET download_count = 2, last_access_time = create_time").await;
        let used = get_share(&s.alice(), &created.id).await.unwrap();
        assert_eq!((used.etag, used.update_time), (updated.etag, updated.update_time), "no change");
        let fewer = Share { max_downloads: 1, ..new };
        let refused = update_share(&s.alice(), fewer.clone(), &["max_downloads"]).await.unwrap_err();
        assert_eq!(violated_fields(&refused), ["share.max_downloads"]);
        let exact = Share { max_downloads: 2, ..fewer };
        let exhausted = update_share(&s.alice(), exact, &["max_downloads"]).await.unwrap();
        assert_eq!(exhausted.state(), ShareState::Exhausted);
    });
}

#[test]
fn secrets_of_a_link_change_at_once() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        let created = share(&s.alice(), link(&id)).await.unwrap();
        let share_id = created.share.unwrap().id;
        let revision = async || s.superuser.query_number("SELECT secret_revision FROM shares").await;
        let set_password = async |password: &str| {
            let share = Some(Share { id: share_id.clone(), ..Share::default() });
            let request =
                UpdateShareRequest { share, password: password.to_owned(), ..update(&["password"]) };
            send_update(&s.alice(), request).await.unwrap()
        };
        assert!(set_password(PASSWORD).await.has_password);
        assert_eq!(revision().await, 2);
        assert!(!set_password("").await.has_password);
        assert_eq!(revision().await, 3);
        let note = Share { id: share_id.clone(), note: "n".to_owned(), ..Share::default() };
        update_share(&s.alice(), note, &["note"]).await.unwrap();
        assert_eq!(revision().await, 3, "a note is no secret");

        let rotated = rotate(&s.alice(), &share_id).await.unwrap();
        assert_ne!(rotated.token, created.token);
        let digest = ShareToken::parse(&rotated.token).unwrap().digest();
        assert_eq!((stored_digest(&s).await, revision().await), (digest.to_string(), 4));
        let revoked = revoke_share(&s.alice(), &share_id).await.unwrap();
        assert_eq!((revoked.state(), revision().await), (ShareState::Revoked, 5));
        assert_eq!(revoke_share(&s.alice(), &share_id).await.unwrap(), revoked, "it does not change");
        let refused = rotate(&s.alice(), &share_id).await.unwrap_err();
        assert_eq!(refusal(&refused), (Code::FailedPrecondition, "SHARE_REVOKED".to_owned()));
    });
}

#[test]
fn changes_of_shares_are_events_and_audited() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        let mut watcher = s.alice().watch_files().await;
        let created = share(&s.alice(), link(&id)).await.unwrap().share.unwrap();
        rotate(&s.alice(), &created.id).await.unwrap();
        revoke_share(&s.alice(), &created.id).await.unwrap();
        for kind in [FileEventKind::ShareCreated, FileEventKind::ShareUpdated, FileEventKind::ShareRevoked] {
            let event = watcher.next_event().await;
            assert_eq!((event.kind(), event.file_id.as_str()), (kind, id.as_str()));
        }
        let audited = format!(
            "SELECT count(*) FROM audit_entries WHERE is_allowed AND details ->> 'share_id' = '{}' AND action IN
                ({{audit_action.share_create}}, {{audit_action.share_rotate}}, {{audit_action.share_revoke}})",
            created.id
        );
        assert_eq!(s.superuser.query_number(&audited).await, 3);
    });
}

#[test]
fn shares_are_listed_in_pages() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.push(share(&s.alice(), link(&id)).await.unwrap().share.unwrap().id);
        }
        ids.push(share(&s.ada(), link(&id)).await.unwrap().share.unwrap().id);
        let of_file = || List::FileId(id.clone());
        assert_eq!(list_shares(&s.alice(), of_file()).await.unwrap(), ids);
        assert_eq!(list_shares(&s.alice(), List::CreatedByMe(true)).await.unwrap(), ids[..3]);
        assert_eq!(list_shares(&s.bob(), of_file()).await.unwrap_err().code(), Code::NotFound);
        revoke_share(&s.alice(), &ids[0]).await.unwrap();
        assert_eq!(list_shares(&s.ada(), of_file()).await.unwrap(), ids[1..]);

        let mut request = ListSharesRequest {
            list: Some(of_file()),
            show_closed: true,
            page_size: 3,
            ..ListSharesRequest::default()
        };
        let mut shares = s.alice().shares;
        let page = shares.list_shares(request.clone()).await.unwrap().into_inner();
        assert_eq!(page.shares.iter().map(|share| share.id.clone()).collect::<Vec<_>>(), ids[..3]);
        request.page_token = page.next_page_token;
        let page = shares.list_shares(request.clone()).await.unwrap().into_inner();
        assert_eq!((page.shares.len(), page.next_page_token.as_str()), (1, ""));
        request.list = Some(List::CreatedByMe(true));
        assert_eq!(reason(&shares.list_shares(request).await.unwrap_err()), "PAGE_TOKEN_INVALID");
    });
}

#[test]
fn file_has_a_limited_number_of_open_shares() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        s.superuser
            .execute(
                "INSERT INTO shares (tenant_id, id, file_id, share_type, permission, token_hash, created_by,
                    create_time, update_time)
                 SELECT tenant_id, gen_random_uuid(), id, {share_type.public_link}, {permission.view},
                    sha256(n::text::bytea), 'alice', create_time, create_time
                 FROM files, generate_series(1, 1000) AS n",
            )
            .await;
        let refused = share(&s.alice(), link(&id)).await.unwrap_err();
        assert_eq!(refusal(&refused), (Code::ResourceExhausted, "FILE_SHARES_EXCEEDED".to_owned()));
        s.superuser.execute("UPDATE shares SET revoke_time = create_time WHERE id = (SELECT max(id::text)::uuid FROM shares)").await;
        share(&s.alice(), link(&id)).await.unwrap();
    });
}

#[test]
fn closed_shares_are_kept_for_thirty_days() {
    service_test(|s| async move {
        let id = upload_private(&s).await;
        let created = share(&s.alice(), link(&id)).await.unwrap().share.unwrap();
        revoke_share(&s.alice(), &created.id).await.unwrap();
        share(&s.alice(), link(&id)).await.unwrap();
        for (days, count) in [(29, 2), (1, 1)] {
            s.clock.advance(chrono::Duration::days(days));
            enforce_retention(&s.app).await.unwrap();
            assert_eq!(s.superuser.query_number("SELECT count(*) FROM shares").await, count);
        }
        s.alice().purge(&id).await.unwrap();
        assert_eq!(s.superuser.query_number("SELECT count(*) FROM shares").await, 0);
    });
}
