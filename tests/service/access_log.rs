//! The access log and the counts of failed attempts of visitors, below the RPCs that use them.

use std::net::IpAddr;

use chrono::Duration;
use futures::future::join_all;
use strongroom::{
    db::{
        Viewer,
        access_log::{self, AccessRange},
        visitor_attempts,
    },
    domain::{
        access_log::{AccessAction, AccessEntry, AccessPosition, AccessSubject, ClientOrigin, StoredAccess},
        caller::{Actor, Origin},
        clock::Clock as _,
        ids::{FileId, ShareId, TenantId},
        visitor_attempts::{AttemptBucket, BUCKETS},
    },
    proto::v1::{
        AccessAction as ProtoAction, AccessOutcome, DownloadFileRequest, File, FilePermission,
        ListFileAccessRequest, Visibility,
    },
};
use tonic::Code;
use uuid::Uuid;

use crate::{
    grants::{To, grant_request},
    harness::{Service, file_id, service_test, spec},
};

/// The number of addresses that attempt to guess a password. With `STRONGROOM_TEST_FULL=1` it is five times as large.
const ADDRESSES: u32 = 20_000;

const TENANT: TenantId = TenantId::from_uuid(Uuid::from_u128(7));
const SHARE: ShareId = ShareId::from_uuid(Uuid::from_u128(8));
const FILE: FileId = FileId::from_uuid(Uuid::from_u128(9));

async fn take_attempt(s: &Service, bucket: AttemptBucket, attempts_max: i32) -> bool {
    let mut tx = s.db.tenant_tx(TENANT, &Viewer::system()).await.unwrap();
    let taken = visitor_attempts::take(&mut tx, bucket, attempts_max).await;
    tx.finish(taken).await.unwrap().is_some()
}

#[test]
fn attempts_of_many_addresses_use_bounded_rows() {
    let addresses = if std::env::var("STRONGROOM_TEST_FULL").is_ok() { 5 * ADDRESSES } else { ADDRESSES };
    service_test(|s| async move {
        let mut tx = s.db.tenant_tx(TENANT, &Viewer::system()).await.unwrap();
        for n in 0..addresses {
            let bucket = AttemptBucket::of_share_address(SHARE, IpAddr::from(n.to_be_bytes()), "secret");
            visitor_attempts::take(&mut tx, bucket, i32::MAX).await.unwrap();
        }
        tx.commit().await.unwrap();
        let rows = s.superuser.query_number("SELECT count(*) FROM visitor_attempts").await;
        assert!((i64::from(BUCKETS / 2)..=i64::from(BUCKETS)).contains(&rows), "{rows} rows");
        let counted = s.superuser.query_number("SELECT sum(attempts) FROM visitor_attempts").await;
        assert_eq!(counted, i64::from(addresses));
    });
}

#[test]
fn downloads_of_members_are_in_the_log_of_the_file() {
    service_test(|s| async move {
        let file = file_id(&s.alice().upload(spec("a"), b"bytes").await.unwrap());
        let mut request =
            tonic::Request::new(DownloadFileRequest { file_id: file.clone(), ..Default::default() });
        request.metadata_mut().insert("access-purpose", "grading".parse().unwrap());
        let mut stream = s.bob().files.clone().download_file(request).await.unwrap().into_inner();
        while stream.message().await.unwrap().is_some() {}
        let range = DownloadFileRequest { file_id: file.clone(), read_offset: 2, ..Default::default() };
        s.billing().download(range).await.unwrap();
        let missing = DownloadFileRequest { file_id: file.clone(), version: 9, ..Default::default() };
        s.bob().download(missing).await.unwrap_err();
        s.bob().get(&file).await.unwrap();
        let to_carol = grant_request(&file, To::User("carol"), FilePermission::View);
        s.alice().shares.clone().grant_access(to_carol).await.unwrap();
        let hidden = File { id: file.clone(), visibility: Visibility::Owner.into(), ..File::default() };
        s.alice().update(hidden, &["visibility"]).await.unwrap();
        s.member("carol", "acme", "member", &[]).read(&file).await.unwrap();

        let request = ListFileAccessRequest { file_id: file.clone(), ..Default::default() };
        let listed = s.alice().shares.clone().list_file_access(request.clone()).await.unwrap().into_inner();
        let entries: Vec<_> = listed
            .entries
            .iter()
            .rev()
            .map(|entry| (entry.actor_id.as_str(), entry.action(), entry.outcome(), entry.purpose.as_str()))
            .collect();
        let (download, view, granted) = (ProtoAction::Download, ProtoAction::View, AccessOutcome::Granted);
        assert_eq!(
            entries,
            [
                ("bob", download, granted, "grading"),
                ("service:billing", download, granted, ""),
                ("carol", view, granted, ""),
            ]
        );
        let newest = &listed.entries[2];
        assert_eq!((newest.version, newest.address.as_str(), newest.share_id.as_str()), (1, "127.0.0.1", ""));
        assert!(newest.user_agent.starts_with("tonic/"), "{}", newest.user_agent);
        assert_eq!(
            s.bob().shares.clone().list_file_access(request).await.unwrap_err().code(),
            Code::NotFound
        );
    });
}

#[test]
fn concurrent_attempts_of_a_bucket_are_counted_exactly() {
    service_test(|s| async move {
        let bucket = AttemptBucket::of_share(SHARE);
        let taken = join_all((0..50).map(|_| take_attempt(&s, bucket, 10))).await;
        assert_eq!(taken.iter().filter(|is_taken| **is_taken).count(), 10);
        assert!(take_attempt(&s, AttemptBucket::of_address([192, 0, 2, 1].into()), 10).await);

        s.clock.advance(Duration::minutes(9));
        assert!(!take_attempt(&s, bucket, 10).await, "the window has not ended");
        s.clock.advance(Duration::minutes(1));
        assert!(take_attempt(&s, bucket, 1).await);
        assert!(!take_attempt(&s, bucket, 1).await);
        let mut tx = s.db.tenant_tx(TENANT, &Viewer::system()).await.unwrap();
        visitor_attempts::give_back(&mut tx, bucket).await.unwrap();
        tx.commit().await.unwrap();
        assert!(take_attempt(&s, bucket, 1).await, "an attempt was given back");
    });
}

fn entry(action: AccessAction, actor: Option<Actor>, denial_reason: Option<&str>) -> AccessEntry {
    AccessEntry {
        file: FILE,
        version: Some(1),
        share: actor.is_none().then_some(SHARE),
        actor,
        client: ClientOrigin {
            origin: Origin { call_id: "call".into(), address: "192.0.2.1".into() },
            user_agent: "curl/8".into(),
            purpose: String::new(),
        },
        action,
        denial_reason: denial_reason.map(str::to_owned),
    }
}

async fn insert(s: &Service, entries: &[AccessEntry]) {
    let mut tx = s.db.tenant_tx(TENANT, &Viewer::system()).await.unwrap();
    access_log::insert(&mut tx, entries).await.unwrap();
    tx.commit().await.unwrap();
}

async fn list_before(s: &Service, subject: AccessSubject, end: AccessPosition) -> Vec<StoredAccess> {
    let mut tx = s.db.tenant_tx(TENANT, &Viewer::system()).await.unwrap();
    let range = AccessRange { start_time: s.clock.now() - Duration::days(1), end };
    let listed = access_log::list(&mut tx, subject, range, 2).await;
    tx.finish(listed).await.unwrap()
}

#[test]
fn access_is_listed_by_share_and_by_file() {
    service_test(|s| async move {
        let entries = [
            entry(AccessAction::Resolve, None, Some("share is revoked")),
            entry(AccessAction::Download, Some(Actor::user("alice")), None),
            entry(AccessAction::View, None, None),
        ];
        insert(&s, &entries).await;
        let end = AccessPosition { create_time: s.clock.now() + Duration::seconds(1), n: 0 };
        let entries_of = |listed: &[StoredAccess]| -> Vec<AccessEntry> {
            listed.iter().map(|stored| stored.entry.clone()).collect()
        };
        let of_file = list_before(&s, AccessSubject::File(FILE), end).await;
        assert_eq!(entries_of(&of_file), [entries[2].clone(), entries[1].clone()]);
        let rest = list_before(&s, AccessSubject::File(FILE), of_file[1].position).await;
        assert_eq!(entries_of(&rest), [entries[0].clone()]);
        let of_share = list_before(&s, AccessSubject::Share(SHARE), end).await;
        assert_eq!(entries_of(&of_share), [entries[2].clone(), entries[0].clone()]);
    });
}

#[test]
fn access_log_is_dropped_after_its_retention() {
    service_test(|s| async move {
        insert(&s, &[entry(AccessAction::Download, Some(Actor::user("alice")), None)]).await;
        let count = "SELECT count(*) FROM access_log";
        // The retention is 365 days, and a partition ends up to 31 days after its first entry.
        s.clock.advance(Duration::days(364));
        strongroom::worker::run_round(&s.app).await;
        assert_eq!(s.superuser.query_number(count).await, 1);
        s.clock.advance(Duration::days(33));
        strongroom::worker::run_round(&s.app).await;
        assert_eq!(s.superuser.query_number(count).await, 0);
    });
}
