//! Crowds: more large chunks on few connections than there is room for.
//!
//! All streams of a connection share its window. Were it smaller than theirs together, then what waits unread on some would
//! stop the others, also those that they wait for, until the idle timeout ends them all.

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

/// Room for a few of the crowd, and an idle timeout that a crowd which stands still runs into.
fn little_room(config: &mut Config) {
    config.uploads.decode_permits = 4;
    config.uploads.part_size_bytes = MIB;
    config.uploads.byte_budget_bytes = 6 * MIB;
    config.uploads.idle_timeout_seconds = 10;
}

/// All at once, through the client library, which sends chunks of 1 MiB; each with so many tries.
async fn crowd(s: &Service, tries_max: u32) -> Vec<Result<UploadFileResponse, ClientError>> {
    let alice = s.alice();
    s.ada().limit_bytes(100 << 30).await;
    let connect = (0..CONNECTIONS).map(|_| {
        let retry = RetryPolicy { tries_max, ..RetryPolicy::default() };
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

/// Whoever was not told to come again has the whole file, and nothing else is stored or charged; answers how many have.
async fn committed(s: &Service, answers: Vec<Result<UploadFileResponse, ClientError>>) -> usize {
    let digest = sha256(&pattern(SIZE));
    let mut committed = 0;
    for answer in answers {
        match answer {
            Ok(uploaded) => {
                assert_eq!(uploaded.file.unwrap().sha256, digest);
                committed += 1;
            }
            Err(ClientError::Rejected(refused)) => {
                assert_eq!(
                    (refused.code, refused.reason),
                    (Code::ResourceExhausted, ErrorReason::Overloaded)
                );
                assert!(refused.retry_after.is_some());
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    let unfinished = "SELECT count(*) FROM uploads WHERE state = 1";
    s.until("clean up", || async {
        s.owner.number("SELECT sum(reserved_bytes + reserved_file_count) FROM quotas").await == 0
            && s.owner.number(unfinished).await == 0
            && s.store.list_multiparts("", None, 10).await.unwrap().multiparts.is_empty()
    })
    .await;
    let book = s.book(&s.alice()).await;
    assert_eq!((book.file_count, book.used_bytes), (committed as i64, (committed * SIZE) as i64));
    committed
}

#[test]
fn a_crowd_with_large_chunks_on_few_connections_commits_or_is_told_to_come_again() {
    service_test_with(little_room, |s| async move {
        let answers = crowd(&s, 1).await;
        let committed = committed(&s, answers).await;
        assert!(committed > 0);
    });
}

#[test]
fn a_crowd_that_comes_again_when_it_is_told_to_is_served_to_the_last() {
    service_test_with(little_room, |s| async move {
        let answers = crowd(&s, 100).await;
        assert_eq!(committed(&s, answers).await, UPLOADS);
    });
}
