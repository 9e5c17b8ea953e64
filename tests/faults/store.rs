//! The object store: down, slow, failing for a while, cut off in the middle of a part or a download, and answering
//! wrongly after it has done what it was asked. A real Garage stands behind the proxy, and moto for what Garage does not know:
//! writes that are refused where an object is.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use strongroom::{
    proto::v1::{ListFilesRequest, UploadSpec},
    storage::{AdapterOptions, PayloadSigning, S3Credentials, S3Options, StorageErrorKind},
};
use tokio::sync::Semaphore;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    harness::{Service, file_id, pattern, reason, service_test_in, sha256, spec},
    proxy::{Fault, Protocol, Proxy, Upstream},
};

/// The smallest part that S3 takes.
const PART: usize = 5 * 1024 * 1024;
/// A small file, and one of three parts.
const SIZES: [usize; 2] = [1_000, 2 * PART + 1_000_000];
const ATTEMPTS: u32 = 4;

const SLOW_DOWN: Fault = Fault::Answer {
    status: 503,
    body: "<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>",
};
const INTERNAL_ERROR: &str =
    "<?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>Try again.</Message></Error>";
const NO_SUCH_UPLOAD: &str =
    "<?xml version=\"1.0\"?><Error><Code>NoSuchUpload</Code><Message>Gone.</Message></Error>";

/// Whether a request line is of some operation.
type Operation = fn(&str) -> bool;

fn is_put(line: &str) -> bool {
    line.starts_with("PUT ") && !line.contains('?')
}

fn is_start(line: &str) -> bool {
    line.starts_with("POST ") && line.contains("?uploads")
}

fn is_part(line: &str) -> bool {
    line.starts_with("PUT ") && line.contains("partNumber=")
}

fn is_complete(line: &str) -> bool {
    line.starts_with("POST ") && line.contains("uploadId=")
}

fn is_get(line: &str) -> bool {
    line.starts_with("GET ") && !line.contains('?')
}

fn setting(name: &str) -> String {
    let name = format!("STRONGROOM_TEST_{name}");
    std::env::var(&name).unwrap_or_else(|_| {
        panic!("{name} is not set: run through scripts/with-postgres scripts/with-garage scripts/with-moto")
    })
}

/// Garage by way of a proxy, with a bucket of this test's own.
fn options(door: SocketAddr) -> S3Options {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    S3Options {
        endpoint: Some(format!("http://{door}")),
        region: setting("S3_REGION"),
        bucket: format!("faults-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)),
        bucket_per_tenant: false,
        abandoned_multipart_days: None,
        virtual_hosted_style: false,
        credentials: S3Credentials::Static {
            access_key_id: setting("S3_ACCESS_KEY"),
            secret_access_key: setting("S3_SECRET_KEY").into(),
            session_token: None,
        },
        payload_signing: PayloadSigning::Never,
        encryption: strongroom::storage::Encryption::None,
        storage_class: None,
        archive_storage_class: None,
        tags: Vec::new(),
        conditional_writes: false,
        allow_http: true,
        request_timeout: Duration::from_secs(60),
        connect_timeout: Duration::from_secs(5),
        ca_file: None,
    }
}

/// moto by way of a proxy. It heeds `If-None-Match`, and asks nobody for a key.
fn moto_options(door: SocketAddr) -> S3Options {
    S3Options { conditional_writes: true, ..options(door) }
}

/// Runs a test against a service whose bytes go to Garage through a proxy.
fn behind_a_proxy<F, Fut>(test: F)
where
    F: FnOnce(Service, Arc<OnceLock<Proxy>>) -> Fut,
    Fut: Future<Output = ()>,
{
    behind_a_proxy_to("S3_ENDPOINT", options, test);
}

fn behind_a_proxy_to<F, Fut>(endpoint: &str, options: fn(SocketAddr) -> S3Options, test: F)
where
    F: FnOnce(Service, Arc<OnceLock<Proxy>>) -> Fut,
    Fut: Future<Output = ()>,
{
    let proxy = Arc::new(OnceLock::new());
    let (opened, for_test) = (proxy.clone(), proxy.clone());
    service_test_in(
        None,
        |site| {
            let store = setting(endpoint).strip_prefix("http://").unwrap().parse().unwrap();
            let proxy = opened.get_or_init(|| Proxy::start(Protocol::Http, Upstream::Tcp(store)));
            site.storage.adapter = AdapterOptions::S3(Box::new(options(proxy.address())));
            site.storage.retry_attempts_max = ATTEMPTS;
            let uploads = &mut site.config.uploads;
            (uploads.part_size_bytes, uploads.byte_budget_bytes) = (PART, 6 * PART);
            uploads.reservation_step_bytes = 2 * PART as u64;
        },
        |s| test(s, for_test),
    );
    drop(proxy);
}

/// Large files in chunks that are not many.
async fn upload(s: &Service, name: &str, size: usize) -> Result<String, Status> {
    let messages = crate::harness::upload_messages(spec(name), &pattern(size), 1_000_000);
    s.alice().send(messages).await.map(|answer| file_id(&answer))
}

/// Uploads a file and reads it back, whatever the proxy does meanwhile.
async fn there_and_back(s: &Service, size: usize) {
    let id = upload(s, "a", size).await.unwrap();
    assert_eq!(sha256(&s.alice().read(&id).await.unwrap()), sha256(&pattern(size)), "{size}");
}

fn assert_store_is_away(status: &Status) {
    let got = (status.code(), reason(status));
    assert_eq!(got, (Code::Unavailable, "STORAGE_UNAVAILABLE".to_owned()), "{status:?}");
    assert!(status.get_error_details().retry_info().is_some(), "{status:?}");
}

/// That the store holds as many objects as there are files, and nothing unfinished.
async fn assert_files(s: &Service, count: usize) {
    s.until("clean up", || async {
        s.store.list_multiparts("", None, 10).await.unwrap().multiparts.is_empty()
            && s.store.list("", None, 100).await.unwrap().objects.len() == count
    })
    .await;
    assert_eq!(s.alice().list(ListFilesRequest::default()).await.unwrap().files.len(), count);
}

#[test]
fn while_the_store_is_down_uploads_and_downloads_say_so_and_it_comes_back_by_itself() {
    behind_a_proxy(|s, proxy| async move {
        let proxy = proxy.get().unwrap();
        let kept = upload(&s, "kept", SIZES[0]).await.unwrap();
        proxy.go_down().await;
        for size in SIZES {
            assert_store_is_away(&upload(&s, "a", size).await.unwrap_err());
        }
        assert_store_is_away(&s.alice().read(&kept).await.unwrap_err());
        // What readiness asks.
        let away = s.store.check().await.unwrap_err().kind;
        assert!(matches!(away, StorageErrorKind::Unavailable | StorageErrorKind::Transient), "{away:?}");
        // What needs no bytes goes on.
        s.alice().get(&kept).await.unwrap();
        proxy.come_up();
        s.store.check().await.unwrap();
        assert_eq!(s.alice().read(&kept).await.unwrap(), pattern(SIZES[0]));
        there_and_back(&s, SIZES[1]).await;
        assert_files(&s, 2).await;
    });
}

#[test]
fn a_store_that_goes_down_during_an_upload_is_cleaned_up_when_it_is_back() {
    behind_a_proxy(|s, proxy| async move {
        let proxy = proxy.get().unwrap();
        s.alice().quota().await.unwrap();
        let gate = Arc::new(Semaphore::new(0));
        let parts = proxy.strike(0..usize::MAX, Fault::Hold(gate), is_part);
        let running = {
            let s = s.clone();
            tokio::spawn(async move { upload(&s, "a", SIZES[1]).await })
        };
        s.until("a part is under way", || async { parts.times() > 0 }).await;
        proxy.go_down().await;
        assert_store_is_away(&running.await.unwrap().unwrap_err());
        s.until("the quota is released", || async {
            s.owner.number("SELECT sum(reserved_bytes + reserved_file_count) FROM quotas").await == 0
        })
        .await;
        proxy.heal();
        proxy.come_up();
        // The unfinished object could not be taken back; it is when the upload's lease ends.
        s.clock.advance(chrono::Duration::hours(25));
        s.until("background work takes it back", || async {
            strongroom::worker::round(&s.app).await;
            s.store.list_multiparts("", None, 10).await.unwrap().multiparts.is_empty()
        })
        .await;
        s.assert_nothing_is_left().await;
    });
}

#[test]
fn a_slow_store_slows_its_uploads_and_nobody_else() {
    behind_a_proxy(|s, proxy| async move {
        let proxy = proxy.get().unwrap();
        let gate = Arc::new(Semaphore::new(0));
        let held =
            proxy.strike(0..usize::MAX, Fault::Hold(gate.clone()), |line| is_part(line) || is_put(line));
        let slow: Vec<_> = SIZES
            .into_iter()
            .map(|size| {
                let s = s.clone();
                tokio::spawn(async move { upload(&s, "slow", size).await })
            })
            .collect();
        s.until("they wait for the store", || async { held.times() >= 3 }).await;
        let budget = s.app.limits().uploads.byte_budget_bytes as u64;
        for _ in 0..20 {
            s.alice().quota().await.unwrap();
            assert!(s.metric("strongroom_byte_budget_used_bytes") <= budget);
        }
        gate.add_permits(100);
        for upload in slow {
            upload.await.unwrap().unwrap();
        }
        assert_files(&s, 2).await;
    });
}

#[test]
fn a_store_that_fails_for_a_while_is_not_noticed() {
    behind_a_proxy(|s, proxy| async move {
        let proxy = proxy.get().unwrap();
        let operations: [(Operation, usize); 5] =
            [(is_put, 0), (is_start, 1), (is_part, 1), (is_complete, 1), (is_get, 0)];
        for (operation, size) in operations {
            let seen = proxy.strike(0..ATTEMPTS as usize - 1, SLOW_DOWN, operation);
            there_and_back(&s, SIZES[size]).await;
            assert!(seen.times() >= ATTEMPTS as usize, "{}", seen.times());
            proxy.heal();
        }
        assert_files(&s, operations.len()).await;
    });
}

#[test]
fn a_store_that_fails_for_long_is_told_of_and_leaves_nothing() {
    behind_a_proxy(|s, proxy| async move {
        let proxy = proxy.get().unwrap();
        let operations: [(Operation, usize); 4] =
            [(is_put, 0), (is_start, 1), (is_part, 1), (is_complete, 1)];
        s.alice().quota().await.unwrap();
        for (operation, size) in operations {
            proxy.strike(0..usize::MAX, SLOW_DOWN, operation);
            assert_store_is_away(&upload(&s, "a", SIZES[size]).await.unwrap_err());
            proxy.heal();
            s.assert_nothing_is_left().await;
        }
    });
}

#[test]
fn a_connection_cut_in_the_middle_of_a_part_is_tried_again_and_the_bytes_are_right() {
    behind_a_proxy(|s, proxy| async move {
        let proxy = proxy.get().unwrap();
        for (after_bytes, operation) in
            [(0, is_part as Operation), (1_000_000, is_part), (PART - 1, is_part), (500, is_put)]
        {
            let seen = proxy.strike(0..2, Fault::Cut { after_bytes }, operation);
            there_and_back(&s, SIZES[usize::from(!operation("PUT /a HTTP/1.1"))]).await;
            assert!(seen.times() > 2);
            proxy.heal();
        }
        assert_files(&s, 4).await;
    });
}

#[test]
fn a_truncated_download_is_gone_on_with_and_its_digest_is_right() {
    behind_a_proxy(|s, proxy| async move {
        let proxy = proxy.get().unwrap();
        let id = upload(&s, "a", SIZES[1]).await.unwrap();
        let seen = proxy.strike(0..3, Fault::CutAnswer { after_bytes: 3_000_000 }, is_get);
        assert_eq!(sha256(&s.alice().read(&id).await.unwrap()), sha256(&pattern(SIZES[1])));
        assert!(seen.times() > 3);
        proxy.heal();
        // One that never gets on ends with an error, and never with fewer bytes.
        proxy.strike(0..usize::MAX, Fault::CutAnswer { after_bytes: 0 }, is_get);
        assert_store_is_away(&s.alice().read(&id).await.unwrap_err());
        proxy.heal();
        proxy.strike(0..usize::MAX, Fault::Trickle { piece_bytes: 10_000 }, is_get);
        assert_eq!(sha256(&s.alice().read(&id).await.unwrap()), sha256(&pattern(SIZES[1])));
    });
}

#[test]
fn an_answer_that_is_lost_leaves_one_file() {
    behind_a_proxy(|s, proxy| async move {
        let proxy = proxy.get().unwrap();
        for (operation, size) in [(is_put as Operation, 0), (is_part, 1), (is_complete, 1)] {
            let seen = proxy.strike(0..1, Fault::LoseAnswer, operation);
            there_and_back(&s, SIZES[size]).await;
            assert!(seen.times() >= 1);
            proxy.heal();
        }
        assert_files(&s, 3).await;
    });
}

#[test]
fn a_put_whose_answer_is_lost_finds_its_own_object_where_writes_are_conditional() {
    behind_a_proxy_to("MOTO_ENDPOINT", moto_options, |s, proxy| async move {
        let proxy = proxy.get().unwrap();
        assert!(s.store.capabilities().conditional_writes);
        let puts = proxy.strike(0..1, Fault::LoseAnswer, is_put);
        let gets = proxy.count(is_get);
        let id = upload(&s, "a", SIZES[0]).await.unwrap();
        // The second one was refused with 412, so the object was read to see whose it is.
        assert_eq!((puts.times(), gets.times()), (2, 1));
        assert_eq!(sha256(&s.alice().read(&id).await.unwrap()), sha256(&pattern(SIZES[0])));
        proxy.heal();
        let completes = proxy.strike(0..1, Fault::LoseAnswer, is_complete);
        there_and_back(&s, SIZES[1]).await;
        assert!(completes.times() >= 1);
        proxy.heal();
        assert_files(&s, 2).await;
    });
}

#[test]
fn a_complete_that_answers_with_an_error_is_settled_by_looking() {
    behind_a_proxy(|s, proxy| async move {
        let proxy = proxy.get().unwrap();
        let answers = [(200, INTERNAL_ERROR), (500, INTERNAL_ERROR), (404, NO_SUCH_UPLOAD)];
        for (status, body) in answers {
            // It had worked.
            let seen = proxy.strike(0..usize::MAX, Fault::AnswerInstead { status, body }, is_complete);
            there_and_back(&s, SIZES[1]).await;
            assert!(seen.times() >= 1);
            proxy.heal();
        }
        // It had not worked: an error that passes is tried again.
        let seen = proxy.strike(0..2, Fault::Answer { status: 200, body: INTERNAL_ERROR }, is_complete);
        there_and_back(&s, SIZES[1]).await;
        assert_eq!(seen.times(), 3);
        proxy.heal();
        assert_files(&s, answers.len() + 1).await;
    });
}

#[test]
fn a_complete_that_says_no_such_upload_and_made_nothing_makes_no_file() {
    behind_a_proxy(|s, proxy| async move {
        let proxy = proxy.get().unwrap();
        let gone = Fault::Answer { status: 404, body: NO_SUCH_UPLOAD };
        proxy.strike(0..usize::MAX, gone, is_complete);
        let told = UploadSpec { size_bytes: Some(SIZES[1] as i64), ..spec("a") };
        let messages = crate::harness::upload_messages(told, &pattern(SIZES[1]), 1_000_000);
        let status = s.alice().send(messages).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Aborted, "UPLOAD_FENCED"));
        proxy.heal();
        s.assert_nothing_is_left().await;
    });
}
