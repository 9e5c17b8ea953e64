//! Visitors of shares: what a token gives, how downloads are counted, and how failed attempts are limited.

use chrono::Duration;
use futures::future::join_all;
use secrecy::{ExposeSecret as _, SecretString};
use strongroom::{
    crypto::{share_password::hash_password, share_token::ShareToken},
    db::{
        Viewer,
        shares::{self, NewShare},
    },
    domain::{
        clock::{Clock as _, IdSource as _, SystemIds},
        file::ContentState,
        ids::{FileId, ShareId, TenantId},
        permission::Permission,
        share::ShareType,
    },
    proto::v1::{
        DownloadShareRequest, DownloadShareResponse, ResolveShareRequest, ResolveShareResponse, VisitHeader,
        VisitPermission, download_share_response::Message, share_service_client::ShareServiceClient,
    },
    storage::{
        StorageErrorKind,
        flaky::{Fault, Operation, Plan},
    },
};
use tonic::{Code, Status, Streaming, transport::Channel};
use uuid::Uuid;

use crate::harness::{
    PART, Service, file_id, pattern, reason, service_test, service_test_with, sha256, spec,
};

/// The concurrent downloads of the test of `max_downloads`. With `STRONGROOM_TEST_FULL=1` it is ten times as large.
const DOWNLOADS: usize = 100;

/// What a test shares.
pub(crate) struct Terms {
    pub(crate) permission: Permission,
    pub(crate) password: Option<&'static str>,
    pub(crate) max_downloads: Option<i64>,
    pub(crate) expires_after: Option<Duration>,
    pub(crate) pinned_version: Option<i32>,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            permission: Permission::Download,
            password: None,
            max_downloads: None,
            expires_after: None,
            pinned_version: None,
        }
    }
}

/// A link to a file of alice.
pub(crate) struct Link {
    pub(crate) id: ShareId,
    pub(crate) tenant: TenantId,
    pub(crate) token: String,
}

pub(crate) async fn share(s: &Service, file: &str, terms: Terms) -> Link {
    let alice = s.alice();
    let tenant: TenantId = alice.tenant_id().await.parse().unwrap();
    let token = ShareToken::generate(tenant).unwrap();
    let id = ShareId::from_uuid(SystemIds.uuid());
    let password_hash = terms.password.map(|password| hash_password(&SecretString::from(password)).unwrap());
    let new = NewShare {
        id,
        file: file.parse::<FileId>().unwrap(),
        share_type: ShareType::PublicLink,
        permission: terms.permission,
        token_hash: Some(token.digest()),
        password_hash: password_hash.as_deref(),
        pinned_version: terms.pinned_version,
        expire_time: terms.expires_after.map(|after| s.clock.now() + after),
        max_downloads: terms.max_downloads,
        note: "",
        created_by: &alice.identity.user,
        source_grant: None,
    };
    let mut tx = s.db.tenant_tx(tenant, &Viewer::system()).await.unwrap();
    shares::insert(&mut tx, &new).await.unwrap();
    tx.commit().await.unwrap();
    Link { id, tenant, token: token.text().expose_secret().to_owned() }
}

/// Uploads a file and shares it.
pub(crate) async fn share_new(s: &Service, data: &[u8], terms: Terms) -> (String, Link) {
    let file = file_id(&s.alice().upload(spec("minutes.txt"), data).await.unwrap());
    let link = share(s, &file, terms).await;
    (file, link)
}

pub(crate) fn visitor(s: &Service) -> ShareServiceClient<Channel> {
    ShareServiceClient::new(s.channel.clone())
}

pub(crate) async fn resolve(
    s: &Service,
    token: &str,
    password: &str,
) -> Result<ResolveShareResponse, Status> {
    let request = ResolveShareRequest { token: token.to_owned(), password: password.to_owned() };
    visitor(s).resolve_share(request).await.map(tonic::Response::into_inner)
}

pub(crate) async fn grant(s: &Service, link: &Link) -> String {
    resolve(s, &link.token, "").await.unwrap().grant
}

pub(crate) async fn open(
    s: &Service,
    request: DownloadShareRequest,
) -> Result<Streaming<DownloadShareResponse>, Status> {
    visitor(s).download_share(request).await.map(tonic::Response::into_inner)
}

async fn read_all(mut messages: Streaming<DownloadShareResponse>) -> Result<(VisitHeader, Vec<u8>), Status> {
    let (mut header, mut bytes) = (None, Vec::new());
    while let Some(message) = messages.message().await? {
        match message.message.unwrap() {
            Message::Header(first) => header = Some(first),
            Message::Chunk(chunk) => {
                assert_eq!(chunk.offset, header.as_ref().unwrap().range.unwrap().offset + bytes.len() as i64);
                bytes.extend_from_slice(&chunk.data);
            }
        }
    }
    Ok((header.unwrap(), bytes))
}

/// Downloads a range with a grant; a limit of 0 reads to the end.
pub(crate) async fn download(
    s: &Service,
    grant: &str,
    read_offset: i64,
    read_limit: i64,
) -> Result<(VisitHeader, Vec<u8>), Status> {
    let request = DownloadShareRequest { grant: grant.to_owned(), read_offset, read_limit, if_version: 0 };
    read_all(open(s, request).await?).await
}

pub(crate) async fn count_downloads(s: &Service, link: &Link) -> i64 {
    s.superuser.query_number(&format!("SELECT download_count FROM shares WHERE id = '{}'", link.id)).await
}

/// Changes the share, and its secret revision as a revocation and a new password do.
pub(crate) async fn change(s: &Service, link: &Link, set: &str) {
    let sql = format!(
        "UPDATE shares SET {set}, secret_revision = secret_revision + 1 WHERE tenant_id = '{}' AND id = '{}'",
        link.tenant, link.id
    );
    s.superuser.execute(&sql).await;
}

pub(crate) const REVOKE: &str = "revoke_time = now()";

fn code_and_message(status: &Status) -> (Code, String, String) {
    (status.code(), reason(status), status.message().to_owned())
}

#[test]
fn visitor_downloads_a_shared_file() {
    service_test(|s| async move {
        let data = pattern(3 * PART + 7);
        let (_, link) = share_new(&s, &data, Terms::default()).await;
        let resolved = resolve(&s, &link.token, "").await.unwrap();
        assert_eq!((resolved.file_name.as_str(), resolved.version), ("minutes.txt", 1));
        assert_eq!(resolved.size_bytes, data.len() as i64);
        assert_eq!(resolved.permission(), VisitPermission::Download);
        let (header, bytes) = download(&s, &resolved.grant, 0, 0).await.unwrap();
        assert_eq!(bytes, data);
        assert_eq!(header.sha256, sha256(&data));
        assert_eq!(count_downloads(&s, &link).await, 1);
        let (header, tail) = download(&s, &resolved.grant, -5, 0).await.unwrap();
        assert_eq!((tail.as_slice(), header.range.unwrap().length), (&data[data.len() - 5..], 5));
        assert_eq!(count_downloads(&s, &link).await, 1, "a grant is one download");
        let granted =
            "SELECT count(*) FROM access_log WHERE is_granted AND actor_kind IS NULL AND user_agent <> ''
            AND address = '127.0.0.1'";
        assert_eq!(s.superuser.query_number(granted).await, 3);
    });
}

#[test]
fn closed_and_unknown_tokens_get_the_same_response() {
    service_test(|s| async move {
        let (_, revoked) = share_new(&s, b"a", Terms::default()).await;
        change(&s, &revoked, REVOKE).await;
        let terms = Terms { expires_after: Some(Duration::hours(1)), ..Terms::default() };
        let (_, expired) = share_new(&s, b"b", terms).await;
        let (_, exhausted) = share_new(&s, b"c", Terms { max_downloads: Some(1), ..Terms::default() }).await;
        let last = grant(&s, &exhausted).await;
        download(&s, &last, 0, 0).await.unwrap();
        let (trashed_file, trashed) = share_new(&s, b"d", Terms::default()).await;
        s.alice().delete(&trashed_file).await.unwrap();
        let (archived_file, archived) = share_new(&s, b"e", Terms::default()).await;
        s.alice().archive(&archived_file).await.unwrap();
        let (held_file, held) = share_new(&s, b"f", Terms::default()).await;
        s.ada().set_legal_hold(&held_file, "trial").await.unwrap();
        s.clock.advance(Duration::hours(2));

        let unknown = ShareToken::generate(revoked.tenant).unwrap().text().expose_secret().to_owned();
        let other_tenant = TenantId::from_uuid(Uuid::from_u128(7));
        let of_nobody = ShareToken::generate(other_tenant).unwrap().text().expose_secret().to_owned();
        let expected = (Code::NotFound, "NOT_FOUND".to_owned(), "share not found".to_owned());
        let closed =
            [&revoked, &expired, &exhausted, &trashed, &archived, &held].map(|link| link.token.clone());
        for token in closed.into_iter().chain([unknown, of_nobody, "srs_7".to_owned()]) {
            let error = resolve(&s, &token, "").await.unwrap_err();
            assert_eq!(code_and_message(&error), expected, "{token}");
            let with_password = resolve(&s, &token, "a password").await.unwrap_err();
            assert_eq!(code_and_message(&with_password), expected, "{token}");
        }
        let reasons = "SELECT DISTINCT denial_reason FROM access_log WHERE NOT is_granted ORDER BY 1";
        assert_eq!(
            s.superuser.query_texts(reasons).await,
            ["file is not available", "share has expired", "share is exhausted", "share is revoked"]
        );
        let error = download(&s, "forged", 0, 0).await.unwrap_err();
        assert_eq!(code_and_message(&error), expected);
    });
}

#[test]
fn changed_secret_ends_grants() {
    service_test(|s| async move {
        for set in [REVOKE, "password_hash = 'other'", "password_hash = NULL"] {
            let (_, link) = share_new(&s, b"bytes", Terms::default()).await;
            let grant = grant(&s, &link).await;
            download(&s, &grant, 0, 0).await.unwrap();
            change(&s, &link, set).await;
            assert_eq!(download(&s, &grant, 0, 0).await.unwrap_err().code(), Code::NotFound, "{set}");
        }
        let (_, link) = share_new(&s, b"bytes", Terms::default()).await;
        let grant = grant(&s, &link).await;
        s.clock.advance(Duration::minutes(61));
        assert_eq!(download(&s, &grant, 0, 0).await.unwrap_err().code(), Code::NotFound, "the grant expired");
    });
}

/// Receives messages until one of the closing errors.
pub(crate) async fn read_until_error(mut messages: Streaming<DownloadShareResponse>) -> Status {
    loop {
        match messages.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the download was complete"),
            Err(status) => return status,
        }
    }
}

#[test]
fn running_download_ends_when_its_share_closes() {
    service_test_with(
        |config| config.tenants.stream_recheck_milliseconds = 1,
        |s| async move {
            // More than the buffers between the store and this client.
            let data = pattern(24 << 20);
            let file = file_id(&s.alice().upload(spec("large.bin"), &data).await.unwrap());
            for how in ["revoked", "quarantined"] {
                let link = share(&s, &file, Terms::default()).await;
                let grant = grant(&s, &link).await;
                let request = DownloadShareRequest { grant, ..Default::default() };
                let mut messages = open(&s, request).await.unwrap();
                messages.message().await.unwrap().unwrap();
                match how {
                    "revoked" => change(&s, &link, REVOKE).await,
                    _ => s.superuser.set_content_state(ContentState::Quarantined).await,
                }
                let error = read_until_error(messages).await;
                assert_eq!(error.code(), Code::NotFound, "{how}: {error:?}");
            }
            s.superuser.set_content_state(ContentState::Available).await;
        },
    );
}

#[test]
fn grant_serves_at_most_twice_the_size() {
    service_test(|s| async move {
        let (_, link) = share_new(&s, b"0123456789", Terms::default()).await;
        let grant = grant(&s, &link).await;
        for _ in 0..2 {
            download(&s, &grant, 0, 0).await.unwrap();
        }
        let error = download(&s, &grant, 0, 1).await.unwrap_err();
        assert_eq!((error.code(), reason(&error)), (Code::FailedPrecondition, "SHARE_GRANT_SPENT".into()));
        assert_eq!(count_downloads(&s, &link).await, 1);
    });
}

#[test]
fn views_do_not_count_as_downloads() {
    service_test(|s| async move {
        let (_, link) =
            share_new(&s, b"bytes", Terms { permission: Permission::View, ..Terms::default() }).await;
        let resolved = resolve(&s, &link.token, "").await.unwrap();
        assert_eq!(resolved.permission(), VisitPermission::View);
        download(&s, &resolved.grant, 0, 0).await.unwrap();
        assert_eq!(count_downloads(&s, &link).await, 0);
        assert_eq!(s.superuser.query_number("SELECT view_count FROM shares").await, 1);
    });
}

#[test]
fn download_that_sends_no_byte_is_not_counted() {
    service_test(|s| async move {
        let terms = Terms { max_downloads: Some(1), ..Terms::default() };
        let (_, link) = share_new(&s, b"bytes", terms).await;
        let first = grant(&s, &link).await;
        s.faults.set_plan(Plan::new().with_fault(
            Operation::Get,
            1,
            Fault::Before(StorageErrorKind::Unavailable),
        ));
        let error = download(&s, &first, 0, 0).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error:?}");
        s.faults.set_plan(Plan::new());
        s.wait_until("the download is uncounted", || async { count_downloads(&s, &link).await == 0 }).await;
        let second = grant(&s, &link).await;
        download(&s, &second, 0, 0).await.unwrap();
        assert_eq!(count_downloads(&s, &link).await, 1);
        let error = download(&s, &first, 0, 0).await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound, "the share is exhausted");
        download(&s, &second, 2, 0).await.unwrap();
    });
}

#[test]
fn concurrent_downloads_never_exceed_the_maximum() {
    let downloads = if std::env::var("STRONGROOM_TEST_FULL").is_ok() { 10 * DOWNLOADS } else { DOWNLOADS };
    service_test(|s| async move {
        let replica = s.start_replica(|_| {}).await;
        let terms = Terms { max_downloads: Some(10), ..Terms::default() };
        let (_, link) = share_new(&s, b"bytes", terms).await;
        let mut grants = Vec::new();
        for _ in 0..downloads {
            grants.push(grant(&s, &link).await);
        }
        let download_one = |(n, grant): (usize, String)| {
            let service = if n % 2 == 0 { &s } else { &replica };
            async move {
                loop {
                    match download(service, &grant, 0, 0).await {
                        // Overload says nothing about the share.
                        Err(status) if status.code() == Code::ResourceExhausted => {
                            tokio::task::yield_now().await;
                        }
                        outcome => return outcome,
                    }
                }
            }
        };
        let outcomes = join_all(grants.into_iter().enumerate().map(download_one)).await;
        let served = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert!(
            outcomes.iter().flat_map(|outcome| outcome.as_ref().err()).all(|e| e.code() == Code::NotFound)
        );
        assert_eq!((served, count_downloads(&s, &link).await), (10, 10));
        replica.stop().await;
    });
}

#[test]
fn pinned_version_is_served_after_an_upload() {
    service_test(|s| async move {
        let (file, current) = share_new(&s, b"first", Terms::default()).await;
        let pinned = share(&s, &file, Terms { pinned_version: Some(1), ..Terms::default() }).await;
        let before = grant(&s, &current).await;
        s.alice().upload_version(&file, b"second").await.unwrap();
        let (header, bytes) = download(&s, &before, 0, 0).await.unwrap();
        assert_eq!(
            (header.version, bytes.as_slice()),
            (2, &b"second"[..]),
            "the version at the time of reading"
        );
        let request = DownloadShareRequest { grant: before, if_version: 1, ..Default::default() };
        assert_eq!(reason(&open(&s, request).await.unwrap_err()), "ETAG_MISMATCH");
        let (header, bytes) = download(&s, &grant(&s, &pinned).await, 0, 0).await.unwrap();
        assert_eq!((header.version, bytes.as_slice()), (1, &b"first"[..]));
    });
}

#[test]
fn suspension_of_the_tenant_closes_its_shares() {
    service_test(|s| async move {
        let (_, link) = share_new(&s, b"bytes", Terms::default()).await;
        let grant = grant(&s, &link).await;
        s.operator().suspend_tenant(&link.tenant.to_string()).await.unwrap();
        assert_eq!(resolve(&s, &link.token, "").await.unwrap_err().code(), Code::NotFound);
        assert_eq!(download(&s, &grant, 0, 0).await.unwrap_err().code(), Code::NotFound);
        s.operator().resume_tenant(&link.tenant.to_string()).await.unwrap();
        download(&s, &grant, 0, 0).await.unwrap();
    });
}
