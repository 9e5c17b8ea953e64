//! Many concurrent uploads with large chunks on few connections, larger than the buffers of the service.
//!
//! All HTTP/2 streams of a connection share its flow-control window. If it were smaller than the sum of the
//! stream windows, unread data of some streams would block all others, including the ones they wait for,
//! until the idle timeout.

use futures::future::join_all;
use strongroom::{
    client::{Client, ClientError, ClientOptions, RetryPolicy},
    config::Config,
    proto::v1::{ErrorReason, UploadFileResponse},
};
use tonic::Code;

use crate::harness::{Service, pattern, service_test_with, sha256, spec};

const CONNECTIONS: usize = 4;
const UPLOADS: usize = 200;
const MIB: usize = 1 << 20;
const SIZE: usize = 2 * MIB + 500;

/// Configures buffers for only a few uploads, and an idle timeout that blocked uploads would reach.
fn configure_small_buffers(config: &mut Config) {
    config.uploads.decode_permits = 4;
    config.uploads.part_size_bytes = MIB;
    config.uploads.byte_budget_bytes = 6 * MIB;
    config.uploads.idle_timeout_seconds = 10;
}

/// Starts all uploads at once through the client library, which sends chunks of 1 MiB. Each is tried up to
/// `attempts_max` times.
async fn upload_concurrently(s: &Service, attempts_max: u32) -> Vec<Result<UploadFileResponse, ClientError>> {
    let alice = s.alice();
    s.ada().set_limit_bytes(100 << 30).await;
    let connect = (0..CONNECTIONS).map(|_| {
        let retry = RetryPolicy { attempts_max, ..RetryPolicy::default() };
        let token = alice.token.clone().into();
        Client::connect(ClientOptions { retry, ..ClientOptions::new(s.address.clone(), token) })
    });
    let clients: Vec<Client> = join_all(connect).await.into_iter().map(Result::unwrap).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, pattern(SIZE)).unwrap();
    join_all((0..UPLOADS).map(|n| {
        let (client, path) = (clients[n % CONNECTIONS].clone(), file.path().to_owned());
        async move { client.upload_file(&path, spec(&n.to_string()), |_| {}).await }
    }))
    .await
}

/// Checks that every upload either succeeded or was rejected as overloaded, and that only the successful ones
/// are stored and charged. Returns the number of successful uploads.
async fn check_committed(s: &Service, results: Vec<Result<UploadFileResponse, ClientError>>) -> usize {
    let digest = sha256(&pattern(SIZE));
    let mut committed = 0;
    for result in results {
        match result {
            Ok(uploaded) => {
                assert_eq!(uploaded.file.unwrap().sha256, digest);
                committed += 1;
            }
            Err(ClientError::Rejected(rejection)) => {
                assert_eq!(
                    (rejection.code, rejection.reason),
                    (Code::ResourceExhausted, ErrorReason::Overloaded)
                );
                assert!(rejection.retry_after.is_some());
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    let unfinished = "SELECT count(*) FROM uploads WHERE state = {upload_state.open}";
    s.wait_until("clean up", || async {
        s.superuser.query_number("SELECT sum(reserved_bytes + reserved_file_count) FROM quotas").await == 0
            && s.superuser.query_number(unfinished).await == 0
            && s.store.list_multiparts("", None, 10).await.unwrap().multiparts.is_empty()
    })
    .await;
    let row = s.quota_row(&s.alice()).await;
    assert_eq!((row.file_count, row.used_bytes), (committed as i64, (committed * SIZE) as i64));
    committed
}

#[test]
fn concurrent_uploads_commit_or_are_rejected_as_overloaded() {
    service_test_with(configure_small_buffers, |s| async move {
        let results = upload_concurrently(&s, 1).await;
        let committed = check_committed(&s, results).await;
        assert!(committed > 0);
    });
}

#[test]
fn overloaded_uploads_succeed_with_retries() {
    service_test_with(configure_small_buffers, |s| async move {
        let results = upload_concurrently(&s, 100).await;
        assert_eq!(check_committed(&s, results).await, UPLOADS);
    });
}
