//! Restarts of PostgreSQL, connections lost during a commit, and an exhausted connection pool.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use futures::future::join_all;
use strongroom::{
    config::Config,
    db::DbErrorKind,
    proto::v1::{UploadFileResponse, UploadSpec},
};
use tokio::sync::{Semaphore, watch};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use url::Url;

use crate::{
    harness::{
        Caller, PART, Service, file_id, pattern, reason, service_test_in, service_test_with, sha256, spec,
        test_server_url,
    },
    private_postgres::PrivatePostgres,
    proxy::{Fault, Protocol, Proxy, Upstream},
};

const REQUEST_ID: &str = "018f4e5a-7c1b-7d2e-8f3a-4b5c6d7e8f90";

/// The size of a small file, which is stored with one PUT, and of a file of several parts.
const SIZES: [usize; 2] = [10, 3 * PART];

/// The proxies between the service and its database, one per connection pool.
pub(crate) struct DatabaseProxies {
    pub(crate) requests: Proxy,
    pub(crate) system: Proxy,
}

impl DatabaseProxies {
    fn start(server: &Url) -> Self {
        let directory = PathBuf::from(server.host_str().unwrap().replace("%2F", "/"));
        let socket = Upstream::Unix(directory.join(".s.PGSQL.5432"));
        Self {
            requests: Proxy::start(Protocol::Postgres, socket.clone()),
            system: Proxy::start(Protocol::Postgres, socket),
        }
    }
}

/// Runs a test against a service that connects to its database through proxies.
pub(crate) fn with_database_proxies<F, Fut>(configure: impl FnOnce(&mut Config), test: F)
where
    F: FnOnce(Service, Arc<OnceLock<DatabaseProxies>>) -> Fut,
    Fut: Future<Output = ()>,
{
    let proxies = Arc::new(OnceLock::new());
    let (opened, for_test) = (proxies.clone(), proxies.clone());
    service_test_in(
        None,
        |setup| {
            configure(&mut setup.config);
            let proxies = opened.get_or_init(|| DatabaseProxies::start(&test_server_url()));
            setup.database_addresses = Some([proxies.requests.address(), proxies.system.address()]);
        },
        |s| test(s, for_test),
    );
    drop(proxies);
}

pub(crate) fn is_commit(message: &str) -> bool {
    message == "Q COMMIT"
}

/// Asserts that the status reports an unavailable database and a retry delay.
pub(crate) fn assert_retryable(status: &Status) {
    let got = (status.code(), reason(status));
    assert_eq!(got, (Code::Unavailable, "DATABASE_UNAVAILABLE".to_owned()), "{status:?}");
    assert!(status.get_error_details().retry_info().is_some(), "{status:?}");
}

/// Waits until failed uploads are cleaned up, and returns the number of files.
async fn wait_and_count_files(s: &Service) -> i64 {
    s.wait_until("clean up", || async {
        let reserved = "SELECT sum(reserved_bytes + reserved_file_count) FROM quotas";
        let files = s.superuser.query_number("SELECT count(*) FROM files").await;
        s.app.is_idle()
            && s.superuser.query_number(reserved).await == 0
            && s.store.list("", None, 100).await.unwrap().objects.len() as i64 == files
            && s.store.list_multiparts("", None, 10).await.unwrap().multiparts.is_empty()
    })
    .await;
    s.superuser.query_number("SELECT count(*) FROM files").await
}

/// Uploads once without faults, and returns the number of commits. The last commit makes the file visible.
async fn count_upload_commits(alice: &Caller, proxies: &DatabaseProxies, size: usize) -> usize {
    let match_count = proxies.requests.count_matches(is_commit);
    alice.upload(spec("without faults"), &pattern(size)).await.unwrap();
    proxies.requests.clear_faults();
    match_count.count()
}

#[test]
fn upload_reports_outcome_of_commit_with_lost_response() {
    with_database_proxies(
        |_| {},
        |s, proxies| async move {
            let (alice, proxies) = (s.alice(), proxies.get().unwrap());
            alice.quota().await.unwrap();
            for size in SIZES {
                let commits = count_upload_commits(&alice, proxies, size).await;
                assert!(commits >= 1, "{commits}");
                for (nth, is_committed) in (0..commits).flat_map(|nth| [(nth, true), (nth, false)]) {
                    let before = wait_and_count_files(&s).await;
                    let fault =
                        if is_committed { Fault::DropResponse } else { Fault::CutRequest { after_bytes: 0 } };
                    let match_count = proxies.requests.inject(nth..nth + 1, fault, is_commit);
                    let result = alice.upload(spec("cut"), &pattern(size)).await;
                    assert!(match_count.count() > nth, "the fault was not injected");
                    proxies.requests.clear_faults();
                    let is_last_commit = nth + 1 == commits;
                    assert_eq!(
                        result.is_ok(),
                        is_committed && is_last_commit,
                        "commit {nth} of {size} bytes"
                    );
                    match &result {
                        Ok(result) => {
                            assert_eq!(alice.read(&file_id(result)).await.unwrap(), pattern(size));
                        }
                        Err(status) => assert_retryable(status),
                    }
                    assert_eq!(wait_and_count_files(&s).await - before, i64::from(result.is_ok()));
                }
            }
        },
    );
}

/// Uploads with a fault in the commit that makes the file visible, while the database cannot be queried for
/// the outcome.
async fn upload_with_unknown_outcome(
    s: &Service,
    proxies: &DatabaseProxies,
    fault: Fault,
    size: usize,
) -> Result<UploadFileResponse, Status> {
    let alice = s.alice();
    alice.quota().await.unwrap();
    let commits = count_upload_commits(&alice, proxies, size).await;
    proxies.requests.inject(commits - 1..commits, fault, is_commit);
    proxies.system.stop().await;
    let spec = UploadSpec { request_id: REQUEST_ID.to_owned(), ..spec("unknown") };
    let result = alice.upload(spec, &pattern(size)).await;
    proxies.requests.clear_faults();
    proxies.system.restart();
    result
}

/// Asserts that the outcome is reported as unknown, and that a retry with the same request id is safe.
fn assert_unknown_outcome(result: Result<UploadFileResponse, Status>) {
    let status = result.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "DATABASE_UNAVAILABLE"));
    assert!(status.message().contains("not known"), "{status:?}");
    assert!(status.get_error_details().retry_info().is_some());
}

#[test]
fn unknown_outcome_of_committed_upload_keeps_file() {
    with_database_proxies(
        |_| {},
        |s, proxies| async move {
            let size = 10;
            assert_unknown_outcome(
                upload_with_unknown_outcome(&s, proxies.get().unwrap(), Fault::DropResponse, size).await,
            );
            assert_eq!(wait_and_count_files(&s).await, 2);
            let spec = UploadSpec { request_id: REQUEST_ID.to_owned(), ..spec("unknown") };
            let again = s.alice().upload(spec, &pattern(size)).await.unwrap();
            assert_eq!(s.alice().read(&file_id(&again)).await.unwrap(), pattern(size));
            assert_eq!(wait_and_count_files(&s).await, 2);
        },
    );
}

#[test]
fn upload_with_failed_commit_is_cleaned_up_after_lease() {
    with_database_proxies(
        |_| {},
        |s, proxies| async move {
            let (size, cut) = (3 * PART, Fault::CutRequest { after_bytes: 0 });
            assert_unknown_outcome(upload_with_unknown_outcome(&s, proxies.get().unwrap(), cut, size).await);
            // The object is kept until it is certain that the commit failed.
            assert_eq!(s.store.list("", None, 10).await.unwrap().objects.len(), 2);
            let spec = UploadSpec { request_id: REQUEST_ID.to_owned(), ..spec("unknown") };
            s.alice().upload(spec, &pattern(size)).await.unwrap();
            s.clock.advance(chrono::Duration::hours(25));
            strongroom::worker::run_round(&s.app).await;
            assert_eq!(wait_and_count_files(&s).await, 2);
        },
    );
}

#[test]
fn exhausted_pool_rejects_calls_as_overloaded() {
    let limit_pool = |config: &mut Config| {
        // One of them is reserved. The time also limits connecting, which takes long on a busy machine.
        (config.database.pool_size_max, config.database.acquire_timeout_seconds) = (3, 10);
    };
    with_database_proxies(limit_pool, |s, proxies| async move {
        let (alice, proxies) = (s.alice(), proxies.get().unwrap());
        alice.quota().await.unwrap();
        let gate = Arc::new(Semaphore::new(0));
        let held_messages = proxies
            .requests
            .inject(0..2, Fault::Hold(gate.clone()), |message| message.starts_with("Q BEGIN"));
        let busy: Vec<_> = (0..2)
            .map(|_| {
                let alice = alice.clone();
                tokio::spawn(async move { alice.quota().await })
            })
            .collect();
        s.wait_until("both connections are busy", || async { held_messages.count() == 2 }).await;
        let (upload, quota) = tokio::join!(alice.upload(spec("a"), b"bytes"), alice.quota());
        for refused in [upload.unwrap_err(), quota.unwrap_err()] {
            let got = (refused.code(), reason(&refused));
            assert_eq!(got, (Code::ResourceExhausted, "OVERLOADED".to_owned()), "{refused:?}");
            assert!(refused.get_error_details().retry_info().is_some(), "{refused:?}");
        }
        gate.add_permits(2);
        for result in join_all(busy).await {
            result.unwrap().unwrap();
        }
        alice.upload(spec("a"), b"bytes").await.unwrap();
        assert_eq!(wait_and_count_files(&s).await, 1);
    });
}

#[test]
fn one_connection_per_pool_is_enough() {
    let limit_pool =
        |config: &mut Config| (config.database.pool_size_max, config.database.system_pool_size_max) = (1, 1);
    service_test_with(limit_pool, |s| async move {
        let calls = (0..16).map(|n| {
            let caller = if n % 2 == 0 { s.alice() } else { s.mallory() };
            async move {
                let size = SIZES[n / 2 % 2];
                let spec = UploadSpec { request_id: format!("{}{n:02}", &REQUEST_ID[..34]), ..spec("a") };
                let id = file_id(&caller.upload(spec, &pattern(size)).await.unwrap());
                assert_eq!(caller.read(&id).await.unwrap(), pattern(size));
                caller.delete(&id).await.unwrap();
            }
        });
        // A call that needed a second connection would fail with a timeout.
        join_all(calls).await;
    });
}

/// The uploads that have been acknowledged so far.
struct AcknowledgedUploads {
    files: Mutex<Vec<(String, usize)>>,
    count: watch::Sender<usize>,
}

impl AcknowledgedUploads {
    /// Uploads files until `count` uploads are acknowledged. Every failure must be `DATABASE_UNAVAILABLE`.
    async fn upload_until(&self, s: &Service, count: usize) {
        for size in SIZES.iter().copied().cycle() {
            if *self.count.borrow() >= count {
                return;
            }
            match s.alice().upload(spec("a"), &pattern(size)).await {
                Ok(result) => {
                    self.files.lock().unwrap().push((file_id(&result), size));
                    self.count.send_modify(|count| *count += 1);
                }
                Err(status) => {
                    // Without a request id, a retry after an unknown outcome could create a second file.
                    let got = (status.code(), reason(&status));
                    let unavailable = (Code::Unavailable, "DATABASE_UNAVAILABLE".to_owned());
                    let unknown = (Code::Aborted, "OUTCOME_UNKNOWN".to_owned());
                    assert!(got == unavailable || got == unknown, "{status:?}");
                }
            }
        }
    }

    async fn wait_for_count(&self, count: usize) {
        let mut counted = self.count.subscribe();
        let reached = counted.wait_for(|counted| *counted >= count);
        tokio::time::timeout(Duration::from_secs(60), reached)
            .await
            .expect("the uploads make no progress")
            .unwrap();
    }
}

#[test]
fn acknowledged_uploads_survive_postgres_restart() {
    const UPLOADS_PER_ROUND: usize = 12;
    let postgres = Arc::new(PrivatePostgres::start());
    let postgres_to_restart = postgres.clone();
    service_test_in(
        Some(postgres.url()),
        |_| {},
        |s| async move {
            s.alice().quota().await.unwrap();
            let acknowledged = AcknowledgedUploads { files: Mutex::default(), count: watch::Sender::new(0) };
            let uploads = join_all((0..6).map(|_| acknowledged.upload_until(&s, 3 * UPLOADS_PER_ROUND)));
            let restarts = async {
                for (round, mode) in ["fast", "immediate"].into_iter().enumerate() {
                    acknowledged.wait_for_count((round + 1) * UPLOADS_PER_ROUND).await;
                    let postgres = postgres_to_restart.clone();
                    tokio::task::spawn_blocking(move || postgres.restart(mode)).await.unwrap();
                }
            };
            tokio::join!(uploads, restarts);
            // Uploads that could not be abandoned while the database was unreachable are abandoned after
            // their leases expire.
            s.clock.advance(chrono::Duration::hours(25));
            strongroom::worker::run_round(&s.app).await;
            // Deletions wait until it is certain that the restarted server is no copy.
            s.clock.advance(chrono::Duration::seconds(180));
            strongroom::worker::run_round(&s.app).await;
            let files = acknowledged.files.into_inner().unwrap();
            for (id, size) in &files {
                let read = s.alice().read(id).await.unwrap();
                assert_eq!(sha256(&read), sha256(&pattern(*size)), "{id}");
            }
            // An upload with an unknown outcome may exist as well. The harness checks that every file is
            // complete.
            assert!(wait_and_count_files(&s).await >= files.len() as i64);
        },
    );
}

async fn set_read_only(s: &Service, is_read_only: bool) {
    let setting = if is_read_only { "on" } else { "off" };
    s.superuser.execute(&format!("ALTER SYSTEM SET default_transaction_read_only = {setting}")).await;
    s.superuser.execute("SELECT pg_reload_conf()").await;
}

/// Returns the processes of the server that serve the service's connections.
async fn list_backends(s: &Service) -> Vec<String> {
    s.superuser
        .query_texts("SELECT pid::text FROM pg_stat_activity WHERE usename LIKE 'strongroom_test_%'")
        .await
}

#[test]
fn read_only_database_is_unavailable_and_loses_connections() {
    let postgres = PrivatePostgres::start();
    service_test_in(
        Some(postgres.url()),
        |_| {},
        |s| async move {
            let alice = s.alice();
            let existing = file_id(&alice.upload(spec("existing"), b"bytes").await.unwrap());
            join_all((0..6).map(|_| alice.upload(spec("a"), b"bytes"))).await;
            let former = list_backends(&s).await;
            set_read_only(&s, true).await;
            // A session applies the setting when it begins its next transaction after the reload.
            s.wait_until("uploads fail", || async {
                let result = alice.upload(spec("a"), b"bytes").await;
                result.inspect_err(assert_retryable).is_err()
            })
            .await;
            for size in SIZES.iter().cycle().take(8) {
                assert_retryable(&alice.upload(spec("a"), &pattern(*size)).await.unwrap_err());
            }
            // A download is recorded before its first byte, so it needs a database that accepts writes.
            assert_eq!(alice.get(&existing).await.unwrap().id, existing, "reads continue");
            assert_retryable(&alice.read(&existing).await.unwrap_err());
            assert_eq!(s.db.ping().await.unwrap_err().kind, DbErrorKind::ReadOnly);
            set_read_only(&s, false).await;
            s.wait_until("uploads succeed", || async {
                let result = alice.upload(spec("a"), b"bytes").await;
                result.inspect_err(assert_retryable).is_ok()
            })
            .await;
            s.db.ping().await.unwrap();
            s.wait_until("all connections from before are closed", || async {
                let current = list_backends(&s).await;
                former.iter().all(|pid| !current.contains(pid))
            })
            .await;
            wait_and_count_files(&s).await;
        },
    );
}

#[test]
fn one_lost_session_keeps_the_other_connections() {
    let postgres = PrivatePostgres::start();
    service_test_in(
        Some(postgres.url()),
        |_| {},
        |s| async move {
            let alice = s.alice();
            join_all((0..6).map(|_| alice.upload(spec("a"), b"bytes"))).await;
            let locking = s.database.connect_as_superuser().await;
            locking.execute("BEGIN; SELECT FROM quotas FOR UPDATE").await;
            let blocked = tokio::spawn(async move { alice.upload(spec("a"), b"bytes").await });
            let waiting = "SELECT pid::text FROM pg_stat_activity
                WHERE usename LIKE 'strongroom_test_%' AND wait_event_type = 'Lock'";
            s.wait_until("a commit waits", || async { s.superuser.query_texts(waiting).await.len() == 1 })
                .await;
            let former = list_backends(&s).await;
            let lost = s.superuser.query_texts(waiting).await.remove(0);
            s.superuser.execute(&format!("SELECT pg_terminate_backend({lost})")).await;
            s.wait_until("the session has ended", || async { !list_backends(&s).await.contains(&lost) })
                .await;
            locking.execute("COMMIT").await;
            assert_retryable(&blocked.await.unwrap().unwrap_err());
            // Connections are checked when they are used again.
            let again = s.alice();
            let used = join_all((0..6).map(|_| again.upload(spec("a"), b"bytes"))).await;
            used.into_iter().for_each(|upload| drop(upload.unwrap()));
            let current = list_backends(&s).await;
            let closed: Vec<&String> = former.iter().filter(|pid| !current.contains(pid)).collect();
            assert_eq!(closed, [&lost]);
            wait_and_count_files(&s).await;
        },
    );
}
