//! Faults of the object store: unreachable, slow, temporary errors, connections that break in the middle of a
//! part or a download, and wrong responses after a successful operation. The store is Garage behind a proxy;
//! moto is used for conditional writes, which Garage does not support.

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

/// The smallest part size that S3 allows.
const PART: usize = 5 * 1024 * 1024;
/// The size of a small file, and of a file of three parts.
const SIZES: [usize; 2] = [1_000, 2 * PART + 1_000_000];
const ATTEMPTS: u32 = 4;

const SLOW_DOWN: Fault = Fault::Respond {
    status: 503,
    body: "<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>",
};
const INTERNAL_ERROR: &str =
    "<?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>Try again.</Message></Error>";
const NO_SUCH_UPLOAD: &str =
    "<?xml version=\"1.0\"?><Error><Code>NoSuchUpload</Code><Message>Gone.</Message></Error>";

/// Whether a request line belongs to an operation.
type IsOperation = fn(&str) -> bool;

fn is_put(line: &str) -> bool {
    line.starts_with("PUT ") && !line.contains('?')
}

fn is_create_multipart(line: &str) -> bool {
    line.starts_with("POST ") && line.contains("?uploads")
}

fn is_upload_part(line: &str) -> bool {
    line.starts_with("PUT ") && line.contains("partNumber=")
}

fn is_complete_multipart(line: &str) -> bool {
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

/// Returns the options for Garage behind a proxy, with a separate bucket for each test.
fn garage_options(proxy: SocketAddr) -> S3Options {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    S3Options {
        endpoint: Some(format!("http://{proxy}")),
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

/// Returns the options for moto behind a proxy. moto supports `If-None-Match` and accepts any credentials.
fn moto_options(proxy: SocketAddr) -> S3Options {
    S3Options { conditional_writes: true, ..garage_options(proxy) }
}

/// Runs a test against a service that stores its objects in Garage through a proxy.
fn with_garage_proxy<F, Fut>(test: F)
where
    F: FnOnce(Service, Arc<OnceLock<Proxy>>) -> Fut,
    Fut: Future<Output = ()>,
{
    with_store_proxy("S3_ENDPOINT", garage_options, test);
}

fn with_store_proxy<F, Fut>(endpoint: &str, options: fn(SocketAddr) -> S3Options, test: F)
where
    F: FnOnce(Service, Arc<OnceLock<Proxy>>) -> Fut,
    Fut: Future<Output = ()>,
{
    let proxy = Arc::new(OnceLock::new());
    let (opened, for_test) = (proxy.clone(), proxy.clone());
    service_test_in(
        None,
        |setup| {
            let store = setting(endpoint).strip_prefix("http://").unwrap().parse().unwrap();
            let proxy = opened.get_or_init(|| Proxy::start(Protocol::Http, Upstream::Tcp(store)));
            setup.storage.adapter = AdapterOptions::S3(Box::new(options(proxy.address())));
            setup.storage.retry_attempts_max = ATTEMPTS;
            let uploads = &mut setup.config.uploads;
            (uploads.part_size_bytes, uploads.byte_budget_bytes) = (PART, 6 * PART);
            uploads.reservation_step_bytes = 2 * PART as u64;
        },
        |s| test(s, for_test),
    );
    drop(proxy);
}

/// Uploads a file in chunks of 1 MB.
async fn upload(s: &Service, name: &str, size: usize) -> Result<String, Status> {
    let messages = crate::harness::upload_messages(spec(name), &pattern(size), 1_000_000);
    s.alice().send_messages(messages).await.map(|uploaded| file_id(&uploaded))
}

/// Uploads a file and reads it back.
async fn check_round_trip(s: &Service, size: usize) {
    let id = upload(s, "a", size).await.unwrap();
    assert_eq!(sha256(&s.alice().read(&id).await.unwrap()), sha256(&pattern(size)), "{size}");
}

fn assert_storage_unavailable(status: &Status) {
    let got = (status.code(), reason(status));
    assert_eq!(got, (Code::Unavailable, "STORAGE_UNAVAILABLE".to_owned()), "{status:?}");
    assert!(status.get_error_details().retry_info().is_some(), "{status:?}");
}

/// Asserts that there are `count` files, and as many objects and no multipart upload in the store.
async fn assert_file_count(s: &Service, count: usize) {
    s.wait_until("clean up", || async {
        s.store.list_multiparts("", None, 10).await.unwrap().multiparts.is_empty()
            && s.store.list("", None, 100).await.unwrap().objects.len() == count
    })
    .await;
    assert_eq!(s.alice().list(ListFilesRequest::default()).await.unwrap().files.len(), count);
}

#[test]
fn unreachable_store_is_reported_and_recovers() {
    with_garage_proxy(|s, proxy| async move {
        let proxy = proxy.get().unwrap();
        let existing = upload(&s, "existing", SIZES[0]).await.unwrap();
        proxy.stop().await;
        for size in SIZES {
            assert_storage_unavailable(&upload(&s, "a", size).await.unwrap_err());
        }
        assert_storage_unavailable(&s.alice().read(&existing).await.unwrap_err());
        // The readiness probe makes the same check.
        let kind = s.store.check().await.unwrap_err().kind;
        assert!(matches!(kind, StorageErrorKind::Unavailable | StorageErrorKind::Transient), "{kind:?}");
        // Calls that need no objects still succeed.
        s.alice().get(&existing).await.unwrap();
        proxy.restart();
        s.store.check().await.unwrap();
        assert_eq!(s.alice().read(&existing).await.unwrap(), pattern(SIZES[0]));
        check_round_trip(&s, SIZES[1]).await;
        assert_file_count(&s, 2).await;
    });
}

#[test]
fn multipart_upload_is_aborted_after_store_recovers() {
    with_garage_proxy(|s, proxy| async move {
        let proxy = proxy.get().unwrap();
        s.alice().quota().await.unwrap();
        let gate = Arc::new(Semaphore::new(0));
        let parts = proxy.inject(0..usize::MAX, Fault::Hold(gate), is_upload_part);
        let running = {
            let s = s.clone();
            tokio::spawn(async move { upload(&s, "a", SIZES[1]).await })
        };
        s.wait_until("a part is being uploaded", || async { parts.count() > 0 }).await;
        proxy.stop().await;
        assert_storage_unavailable(&running.await.unwrap().unwrap_err());
        s.wait_until("the quota is released", || async {
            s.superuser.query_number("SELECT sum(reserved_bytes + reserved_file_count) FROM quotas").await
                == 0
        })
        .await;
        proxy.clear_faults();
        proxy.restart();
        // The multipart upload could not be aborted. Background work aborts it after the upload's lease.
        s.clock.advance(chrono::Duration::hours(25));
        s.wait_until("the multipart upload is aborted", || async {
            strongroom::worker::run_round(&s.app).await;
            s.store.list_multiparts("", None, 10).await.unwrap().multiparts.is_empty()
        })
        .await;
        s.assert_nothing_is_left().await;
    });
}

#[test]
fn slow_store_slows_only_its_uploads() {
    with_garage_proxy(|s, proxy| async move {
        let proxy = proxy.get().unwrap();
        let gate = Arc::new(Semaphore::new(0));
        let held_messages = proxy
            .inject(0..usize::MAX, Fault::Hold(gate.clone()), |line| is_upload_part(line) || is_put(line));
        let slow: Vec<_> = SIZES
            .into_iter()
            .map(|size| {
                let s = s.clone();
                tokio::spawn(async move { upload(&s, "slow", size).await })
            })
            .collect();
        s.wait_until("the uploads wait for the store", || async { held_messages.count() >= 3 }).await;
        let budget = s.app.limits().uploads.byte_budget_bytes as u64;
        for _ in 0..20 {
            s.alice().quota().await.unwrap();
            assert!(s.read_metric("strongroom_byte_budget_used_bytes") <= budget);
        }
        gate.add_permits(100);
        for upload in slow {
            upload.await.unwrap().unwrap();
        }
        assert_file_count(&s, 2).await;
    });
}

#[test]
fn temporary_store_errors_are_retried() {
    with_garage_proxy(|s, proxy| async move {
        let proxy = proxy.get().unwrap();
        let operations: [(IsOperation, usize); 5] = [
            (is_put, 0),
            (is_create_multipart, 1),
            (is_upload_part, 1),
            (is_complete_multipart, 1),
            (is_get, 0),
        ];
        for (operation, size) in operations {
            let match_count = proxy.inject(0..ATTEMPTS as usize - 1, SLOW_DOWN, operation);
            check_round_trip(&s, SIZES[size]).await;
            assert!(match_count.count() >= ATTEMPTS as usize, "{}", match_count.count());
            proxy.clear_faults();
        }
        assert_file_count(&s, operations.len()).await;
    });
}

#[test]
fn persistent_store_errors_fail_upload_and_leave_nothing() {
    with_garage_proxy(|s, proxy| async move {
        let proxy = proxy.get().unwrap();
        let operations: [(IsOperation, usize); 4] =
            [(is_put, 0), (is_create_multipart, 1), (is_upload_part, 1), (is_complete_multipart, 1)];
        s.alice().quota().await.unwrap();
        for (operation, size) in operations {
            proxy.inject(0..usize::MAX, SLOW_DOWN, operation);
            assert_storage_unavailable(&upload(&s, "a", SIZES[size]).await.unwrap_err());
            proxy.clear_faults();
            s.assert_nothing_is_left().await;
        }
    });
}

#[test]
fn part_with_broken_connection_is_retried() {
    with_garage_proxy(|s, proxy| async move {
        let proxy = proxy.get().unwrap();
        for (after_bytes, operation) in [
            (0, is_upload_part as IsOperation),
            (1_000_000, is_upload_part),
            (PART - 1, is_upload_part),
            (500, is_put),
        ] {
            let match_count = proxy.inject(0..2, Fault::CutRequest { after_bytes }, operation);
            check_round_trip(&s, SIZES[usize::from(!operation("PUT /a HTTP/1.1"))]).await;
            assert!(match_count.count() > 2);
            proxy.clear_faults();
        }
        assert_file_count(&s, 4).await;
    });
}

#[test]
fn truncated_download_resumes_with_correct_digest() {
    with_garage_proxy(|s, proxy| async move {
        let proxy = proxy.get().unwrap();
        let id = upload(&s, "a", SIZES[1]).await.unwrap();
        let match_count = proxy.inject(0..3, Fault::CutResponse { after_bytes: 3_000_000 }, is_get);
        assert_eq!(sha256(&s.alice().read(&id).await.unwrap()), sha256(&pattern(SIZES[1])));
        assert!(match_count.count() > 3);
        proxy.clear_faults();
        // A download without progress fails; it never succeeds with fewer bytes.
        proxy.inject(0..usize::MAX, Fault::CutResponse { after_bytes: 0 }, is_get);
        assert_storage_unavailable(&s.alice().read(&id).await.unwrap_err());
        proxy.clear_faults();
        proxy.inject(0..usize::MAX, Fault::TrickleResponse { piece_bytes: 10_000 }, is_get);
        assert_eq!(sha256(&s.alice().read(&id).await.unwrap()), sha256(&pattern(SIZES[1])));
    });
}

#[test]
fn lost_store_response_creates_one_file() {
    with_garage_proxy(|s, proxy| async move {
        let proxy = proxy.get().unwrap();
        for (operation, size) in [(is_put as IsOperation, 0), (is_upload_part, 1), (is_complete_multipart, 1)]
        {
            let match_count = proxy.inject(0..1, Fault::DropResponse, operation);
            check_round_trip(&s, SIZES[size]).await;
            assert!(match_count.count() >= 1);
            proxy.clear_faults();
        }
        assert_file_count(&s, 3).await;
    });
}

#[test]
fn retried_conditional_put_recognizes_its_own_object() {
    with_store_proxy("MOTO_ENDPOINT", moto_options, |s, proxy| async move {
        let proxy = proxy.get().unwrap();
        assert!(s.store.capabilities().conditional_writes);
        let puts = proxy.inject(0..1, Fault::DropResponse, is_put);
        let gets = proxy.count_matches(is_get);
        let id = upload(&s, "a", SIZES[0]).await.unwrap();
        // The retry was rejected with 412, so the service read the object and recognized it.
        assert_eq!((puts.count(), gets.count()), (2, 1));
        assert_eq!(sha256(&s.alice().read(&id).await.unwrap()), sha256(&pattern(SIZES[0])));
        proxy.clear_faults();
        let completes = proxy.inject(0..1, Fault::DropResponse, is_complete_multipart);
        check_round_trip(&s, SIZES[1]).await;
        assert!(completes.count() >= 1);
        proxy.clear_faults();
        assert_file_count(&s, 2).await;
    });
}

#[test]
fn failed_complete_is_resolved_by_checking_object() {
    with_garage_proxy(|s, proxy| async move {
        let proxy = proxy.get().unwrap();
        let responses = [(200, INTERNAL_ERROR), (500, INTERNAL_ERROR), (404, NO_SUCH_UPLOAD)];
        for (status, body) in responses {
            // The object was created, but the response reports an error.
            let match_count =
                proxy.inject(0..usize::MAX, Fault::ReplaceResponse { status, body }, is_complete_multipart);
            check_round_trip(&s, SIZES[1]).await;
            assert!(match_count.count() >= 1);
            proxy.clear_faults();
        }
        // The object was not created: a temporary error is retried.
        let match_count =
            proxy.inject(0..2, Fault::Respond { status: 200, body: INTERNAL_ERROR }, is_complete_multipart);
        check_round_trip(&s, SIZES[1]).await;
        assert_eq!(match_count.count(), 3);
        proxy.clear_faults();
        assert_file_count(&s, responses.len() + 1).await;
    });
}

#[test]
fn complete_without_multipart_upload_creates_no_file() {
    with_garage_proxy(|s, proxy| async move {
        let proxy = proxy.get().unwrap();
        let not_found = Fault::Respond { status: 404, body: NO_SUCH_UPLOAD };
        proxy.inject(0..usize::MAX, not_found, is_complete_multipart);
        let spec = UploadSpec { size_bytes: Some(SIZES[1] as i64), ..spec("a") };
        let messages = crate::harness::upload_messages(spec, &pattern(SIZES[1]), 1_000_000);
        let status = s.alice().send_messages(messages).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Aborted, "UPLOAD_PARTS_LOST"));
        proxy.clear_faults();
        s.assert_nothing_is_left().await;
    });
}
