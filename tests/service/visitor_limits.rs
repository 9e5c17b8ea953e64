//! What visitors cannot do with a link: fill the access log, outlast its rules, or take what members need.

use futures::future::join_all;
use strongroom::{
    domain::permission::Permission,
    proto::v1::{
        Category, CategoryLinks, DownloadShareRequest, FilePermission, Share, ShareState, UploadSpec,
    },
};
use tonic::{Code, Status};

use crate::{
    grants::{To, give},
    harness::{Service, file_id, pattern, reason, service_test, service_test_with, spec},
    ownership::transfer,
    shares::{get_share, in_seconds, link, rotate, share as create_share, update_share, upload_private},
    visitors::{
        Link, REVOKE, Terms, change, count_downloads, download, grant, open, read_until_error, resolve,
        share, share_new,
    },
};

/// The entries of the access log of one address for one share, besides those of counted downloads.
const ENTRIES_PER_ADDRESS_MAX: i64 = 100;

async fn count_entries(s: &Service, link: &Link) -> i64 {
    let entries = format!("SELECT count(*) FROM access_log WHERE share_id = '{}'", link.id);
    s.superuser.query_number(&entries).await
}

#[test]
fn repeated_attempts_do_not_fill_the_access_log() {
    service_test(|s| async move {
        let (_, link) = share_new(&s, b"bytes", Terms::default()).await;
        let grant = grant(&s, &link).await;
        for _ in 1..110 {
            resolve(&s, &link.token, "").await.unwrap();
        }
        assert_eq!(count_entries(&s, &link).await, ENTRIES_PER_ADDRESS_MAX);
        download(&s, &grant, 0, 1).await.unwrap();
        assert_eq!(
            count_entries(&s, &link).await,
            ENTRIES_PER_ADDRESS_MAX + 1,
            "counted downloads are entered"
        );
        download(&s, &grant, 0, 1).await.unwrap();
        change(&s, &link, REVOKE).await;
        assert_eq!(download(&s, &grant, 0, 1).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(count_entries(&s, &link).await, ENTRIES_PER_ADDRESS_MAX + 1);
    });
}

#[test]
fn requests_of_a_grant_are_limited() {
    service_test(|s| async move {
        let (_, link) = share_new(&s, &pattern(10_000), Terms::default()).await;
        let grant = grant(&s, &link).await;
        download(&s, &grant, 0, 1).await.unwrap();
        s.superuser.execute("UPDATE share_grants SET use_count = 999").await;
        download(&s, &grant, 0, 1).await.unwrap();
        let error = download(&s, &grant, 0, 1).await.unwrap_err();
        assert_eq!((error.code(), reason(&error)), (Code::FailedPrecondition, "SHARE_GRANT_SPENT".into()));
        assert_eq!(count_downloads(&s, &link).await, 1);
    });
}

async fn set_link_rules(s: &Service, links: CategoryLinks) {
    let category = Category { name: "report".to_owned(), links: Some(links), ..Category::default() };
    s.ada().update_category(category, &["links"]).await.unwrap();
}

#[test]
fn link_that_breaks_newer_rules_serves_nothing() {
    service_test(|s| async move {
        let spec = UploadSpec { category: "report".to_owned(), ..spec("a") };
        let file = file_id(&s.alice().upload(spec, b"bytes").await.unwrap());
        let plain = share(&s, &file, Terms::default()).await;
        let strict = share(&s, &file, Terms { password: Some("correct horse"), ..Terms::default() }).await;
        let grant = grant(&s, &plain).await;
        set_link_rules(&s, CategoryLinks { password_required: true, ..Default::default() }).await;
        assert_eq!(resolve(&s, &plain.token, "").await.unwrap_err().code(), Code::NotFound);
        assert_eq!(download(&s, &grant, 0, 0).await.unwrap_err().code(), Code::NotFound);
        resolve(&s, &strict.token, "correct horse").await.unwrap();
        set_link_rules(&s, CategoryLinks { expiry_required: true, ..Default::default() }).await;
        assert_eq!(resolve(&s, &strict.token, "correct horse").await.unwrap_err().code(), Code::NotFound);
        set_link_rules(&s, CategoryLinks::default()).await;
        download(&s, &grant, 0, 0).await.unwrap();
    });
}

#[test]
fn running_download_follows_the_rules_of_its_category() {
    service_test_with(
        |config| config.tenants.stream_recheck_milliseconds = 1,
        |s| async move {
            // More than the buffers between the store and this client.
            let data = pattern(24 << 20);
            let spec = UploadSpec { category: "report".to_owned(), ..spec("large.bin") };
            let file = file_id(&s.alice().upload(spec, &data).await.unwrap());
            let link = share(&s, &file, Terms::default()).await;
            let grant = grant(&s, &link).await;
            let start = async || {
                let request = DownloadShareRequest { grant: grant.clone(), ..Default::default() };
                let mut messages = open(&s, request).await.unwrap();
                messages.message().await.unwrap().unwrap();
                messages
            };
            let mut allowed = start().await;
            set_link_rules(&s, CategoryLinks { forbidden: false, ..Default::default() }).await;
            while allowed.message().await.unwrap().is_some() {}
            let refused = start().await;
            set_link_rules(&s, CategoryLinks { forbidden: true, ..Default::default() }).await;
            assert_eq!(read_until_error(refused).await.code(), Code::NotFound);
        },
    );
}

#[test]
fn changed_permission_ends_grants_of_visitors() {
    service_test(|s| async move {
        let view = Terms { permission: Permission::View, ..Terms::default() };
        let (_, link) = share_new(&s, b"bytes", view).await;
        let grant = grant(&s, &link).await;
        download(&s, &grant, 0, 1).await.unwrap();
        let wider = Share {
            id: link.id.to_string(),
            permission: FilePermission::Download.into(),
            max_downloads: 1,
            ..Share::default()
        };
        update_share(&s.alice(), wider, &["permission", "max_downloads"]).await.unwrap();
        assert_eq!(download(&s, &grant, 0, 0).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(count_downloads(&s, &link).await, 0);
    });
}

#[test]
fn narrowed_source_never_lifts_the_limit_of_downloads() {
    service_test(|s| async move {
        let file = upload_private(&s).await;
        give(&s.alice(), &file, To::User("bob"), FilePermission::Download).await.unwrap();
        let limited = Share { max_downloads: 1, ..link(&file) };
        let created = create_share(&s.bob(), limited).await.unwrap();
        give(&s.alice(), &file, To::User("bob"), FilePermission::View).await.unwrap();
        let closed = get_share(&s.alice(), &created.share.unwrap().id).await.unwrap();
        assert_eq!(closed.state(), ShareState::Revoked, "views are not counted");
        assert_eq!(resolve(&s, &created.token, "").await.unwrap_err().code(), Code::NotFound);
    });
}

#[test]
fn creator_without_permission_only_closes_its_share() {
    service_test(|s| async move {
        let file = file_id(&s.alice().upload(spec("a"), b"bytes").await.unwrap());
        let created = create_share(&s.alice(), link(&file)).await.unwrap().share.unwrap();
        let (alice, bob) = (s.alice().identity.user, s.bob().identity.user);
        transfer(&s.ada(), (&alice, &bob), |_| {}).await.unwrap();
        assert_eq!(rotate(&s.alice(), &created.id).await.unwrap_err().code(), Code::PermissionDenied);
        let changed = || Share { id: created.id.clone(), max_downloads: 5, ..Share::default() };
        for path in ["max_downloads", "password"] {
            let refused = update_share(&s.alice(), changed(), &[path]).await.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied, "{path}");
        }
        let expiring = Share { expire_time: in_seconds(&s, 60), ..changed() };
        update_share(&s.bob(), expiring, &["max_downloads", "expire_time"]).await.unwrap();
        crate::shares::revoke_share(&s.alice(), &created.id).await.unwrap();
    });
}

#[test]
fn visitors_take_no_requests_of_members() {
    service_test_with(
        |config| {
            let rates = &mut config.rate_limits;
            (rates.share_requests_per_second, rates.burst_seconds) = (3, 1);
            rates.tenant_requests_per_second = 1_000;
        },
        |s| async move {
            let (file, link) = share_new(&s, b"bytes", Terms::default()).await;
            let resolved = join_all((0..60).map(|_| resolve(&s, &link.token, ""))).await;
            let refusals: Vec<Status> = resolved.into_iter().filter_map(Result::err).collect();
            assert!(refusals.iter().all(|refused| reason(refused) == "RATE_LIMITED"), "{refusals:?}");
            assert!(!refusals.is_empty());
            s.alice().read(&file).await.unwrap();
        },
    );
}
